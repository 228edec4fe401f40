"""Receipts that servers kept, replayed: for each, exactly the events that its offsets name, to the digest it says.

Apart from the check of rows because a receipt speaks of bytes that are long gone: nothing of Redis is read. Events
of a key are brought into order once; a receipt is then a few ranges of them, and thousands of receipts are folded
at a time as if each were a row of its own, by the tables and the codec of every other path. Equal receipts (the
row was read again before it changed) are replayed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headwater.errors import TopicChanged
from headwater.online.keys import entity_text
from headwater.receipts.log import KeptFill, read_receipts
from headwater.receipts.results import Example
from headwater.rows.layout import layout_of
from headwater.rows.table import RowTable
from validation.causes import shown
from validation.keyed_events import KeyedEvents
from validation.lake_side import Kept, LakeSide
from validation.losses import Range, lost_ranges, ranges_text

Ints = NDArray[np.int64]
EVENTS_A_SLICE = 1 << 17
BYTES_A_SLICE = 64 << 20
EXAMPLES = 20
_Spec = tuple[str, tuple[tuple[int, int, int], ...], str]
"""Key, (partition, born, applied) offsets, digest."""
_Definition = tuple[str, str, str | None]
"""View, state hash, topic's id."""


@dataclass
class Replayed:
    """What became of the receipts of one view.

    Attributes:
        kept: receipts; distinct: how many different ones; equal: those that gave equal bytes.
        waiting: receipts past what the sink has kept; elsewhere: of topics that the lake no longer has.
        differences: how many of each cause (receipts/results.py).
    """

    kept: int = 0
    distinct: int = 0
    equal: int = 0
    waiting: int = 0
    elsewhere: int = 0
    differences: dict[str, int] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        found = [
            f"receipts kept by servers: {self.equal:,} of {self.kept:,} equal, {self.distinct:,} of them different"
        ]
        if self.waiting:
            found.append(f"{self.waiting:,} kept receipts are not replayed, because the sink has not come to them yet.")
        if self.elsewhere:
            found.append(f"{self.elsewhere:,} kept receipts are of a topic whose events the lake does not have.")
        return tuple(found)

    def differs(self, cause: str, times: int, example: Example) -> None:
        """Count a difference."""
        self.differences[cause] = self.differences.get(cause, 0) + times
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


def replay_kept(folder: Path, lake: LakeSide, views: Sequence[str]) -> dict[str, Replayed]:
    """View -> what became of its receipts; of these views.

    Raises:
        LakeDamaged: a table of the lake cannot be read.
    """
    definitions: dict[_Definition, _Receipts] = {}
    for kept, receipts in read_receipts(folder):
        if kept.view.name not in views:
            continue
        # What a receipt is replayed with is its definition's; its fill only says where it was born.
        mine = definitions.setdefault((kept.view.name, kept.view.state_hash, kept.fill.topic_id), _Receipts(kept))
        for r in receipts:
            spec = (r.key, r.offsets, r.digest)
            mine.counts[spec] = mine.counts.get(spec, 0) + 1
    out: dict[str, Replayed] = {}
    for (view, _, _), mine in definitions.items():
        result = out.setdefault(view, Replayed())
        result.kept += sum(mine.counts.values())
        result.distinct += len(mine.counts)
        _replay(mine, lake, result)
    return out


@dataclass
class _Receipts:
    """Receipts of one definition: how often each was handed out, and a fill that it had."""

    of: KeptFill
    counts: dict[_Spec, int] = field(default_factory=dict)


def _replay(receipts: _Receipts, lake: LakeSide, result: Replayed) -> None:
    of, counts = receipts.of, receipts.counts
    newest: dict[int, int] = {}
    for _, offsets, _ in counts:
        for p, _, applied in offsets:
            newest[p] = max(newest.get(p, -1), applied)
    try:
        kept = lake.read(of.view, of.source, of.fill.topic_id, newest)
    except TopicChanged:
        result.elsewhere += sum(counts.values())
        return
    covered = [s for s in counts if all(a < kept.positions.get(p, 0) for p, _, a in s[1])]
    result.waiting += sum(counts.values()) - sum(counts[s] for s in covered)
    digests = Replay(of, kept).digests(covered)
    lost = lost_ranges(kept)
    for spec, digest in zip(covered, digests.tolist(), strict=True):
        if f"{digest:016x}" == spec[2]:
            result.equal += counts[spec]
        else:
            cause, example = _named(of, lost, spec, digest)
            result.differs(cause, counts[spec], example)


def _named(of: KeptFill, lost: list[Range], spec: _Spec, digest: int) -> tuple[str, Example]:
    key, offsets, said = spec
    mine = [r for r in lost if any(r[0] == p and b < r[2] and r[1] <= a for p, b, a in offsets)]
    names = [k.name for k in of.view.keys]
    row = f"served with the digest {said}, offsets " + ", ".join(f"{p}: {b} to {a}" for p, b, a in offsets)
    log = f"replaying them gives {digest:016x}"
    if mine:
        cause, detail = "missing in lake", "the lake has lost events that a served value was made of"
        log += f"; it lacks {ranges_text(mine)}"
    else:
        cause, detail = "defect", "a served value is not what its events give"
    return cause, Example(key, cause, detail, entity_text(key.encode(), names), row, log)


class Replay:
    """Replays receipts of one definition from what the lake has of its topic."""

    def __init__(self, of: KeptFill, kept: Kept) -> None:
        self.layout = layout_of(of.view)
        self.events = KeyedEvents(of.view, of.source, kept)
        self._number = {shown(key): i for key, i in self.events.number.items()}
        selected = self.events.selected
        self._order = np.lexsort((selected.offset, selected.partition, self.events.codes))
        # One sorted list of numbers: a key's partition, and the offset in it.
        self._most = int(selected.offset.max(initial=0)) + 2
        segment = self.events.codes * self.events.wide + selected.partition
        self._places = (segment * self._most + selected.offset)[self._order]

    def digests(self, specs: Sequence[_Spec]) -> NDArray[np.uint64]:
        """The digest that the events of each receipt give; 0 where the lake has none of them."""
        found = np.zeros(len(specs), np.uint64)
        receipt, partition, born, applied = self._claims(specs)
        first, end = self._ranges(specs, receipt, partition, born, applied)
        events = np.bincount(receipt, end - first, len(specs)).astype(np.int64)
        edges, part = np.cumsum(events), np.searchsorted(receipt, np.arange(len(specs) + 1))
        table = RowTable(self.layout, self._rows_a_slice())
        at = 0
        while at < len(specs):
            before = int(edges[at - 1]) if at else 0
            last = int(np.searchsorted(edges, before + EVENTS_A_SLICE, "right"))
            last = min(max(last, at + 1), at + table.capacity, len(specs))
            mine = slice(int(part[at]), int(part[last]))
            ranges = (receipt[mine] - at, partition[mine], born[mine], first[mine], end[mine])
            found[at:last] = self._slice(table, last - at, *ranges)
            at = last
        found[events == 0] = 0
        return found

    def _slice(
        self, table: RowTable, n: int, receipt: Ints, partition: Ints, born: Ints, first: Ints, end: Ints
    ) -> NDArray[np.uint64]:
        rows = np.arange(n)
        table.forget(rows)
        lengths = end - first
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        index = self._order[np.repeat(first - (ends - lengths), lengths) + np.arange(total)]
        if not total:
            return np.zeros(n, np.uint64)
        table.fold(np.repeat(receipt, lengths), self.events.selected.take(index), born=0)
        has = lengths > 0
        table.born[receipt[has], partition[has]] = born[has]
        return table.encode(rows)[1]

    def _rows_a_slice(self) -> int:
        return max(1, BYTES_A_SLICE // RowTable(self.layout, 1).bytes_a_row)

    def _claims(self, specs: Sequence[_Spec]) -> tuple[Ints, Ints, Ints, Ints]:
        """Receipt, partition, born and applied offset of every pair of a receipt and a partition."""
        flat = np.array([(i, p, b, a) for i, (_, offsets, _) in enumerate(specs) for p, b, a in offsets], np.int64)
        receipt, partition, born, applied = flat.reshape(-1, 4).T
        return receipt, partition, born, applied

    def _ranges(
        self, specs: Sequence[_Spec], receipt: Ints, partition: Ints, born: Ints, applied: Ints
    ) -> tuple[Ints, Ints]:
        """Where in the order each pair's events begin and end; nowhere for keys and partitions without events."""
        code = np.array([self._number.get(key, -1) for key, _, _ in specs], np.int64)[receipt]
        known = (code >= 0) & (partition < self.events.wide)
        segment = np.where(known, code * self.events.wide + partition, 0) * self._most
        low, high = (segment + np.minimum(o, self._most - 1) for o in (born, applied + 1))
        first, end = np.searchsorted(self._places, low), np.searchsorted(self._places, high)
        return np.where(known, first, 0), np.where(known, np.maximum(end, first), 0)
