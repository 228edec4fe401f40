"""The consistency check of a windowed view: served rows against the lake, value by value.

Three questions, each answered for every row or for the receipts drawn:

1. Is the row what it says? Its digest fits its bytes.
2. Receipts: replay from the lake exactly the events that its offsets name: equal bytes?
3. Recompute over all events of the lake: the same row? If not, the difference gets a name.

Positions are read before rows, and rows before the lake, so that a running worker and sink
make no false alarm: an event below a position must be in its row, and one past it may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.errors import ReadError
from headwater.events.batch import Events
from headwater.events.select import Selected, select
from headwater.online.keys import entity_key
from headwater.plans.plan import Source, StreamView
from headwater.receipts.results import Example, ViewCheck
from headwater.rows.codec import RowHeader, digest_of, read_header
from headwater.rows.fold import fold, key_codes
from headwater.rows.layout import layout_of

EXAMPLES = 20


@dataclass(frozen=True)
class Served:
    """What was read online of one view, in this order: positions, then rows.

    Attributes:
        positions: partition -> next offset of the active fill.
        rows: entity key -> the row's bytes.
        expiry_ms: how long a row lives after a write, None for ever.
    """

    positions: dict[int, int]
    rows: dict[bytes, bytes]
    expiry_ms: int | None


@dataclass(frozen=True)
class Kept:
    """What the lake has of the view's topic, read after the rows.

    Attributes:
        table: admitted events with `_partition`, `_offset`, `_arrived_at`.
        positions: partition -> next offset that the lake says it has covered.
        places: (partition, offset) of every record, admitted or not, as int64 arrays.
        missing_files: files of the table that are gone.
        ends: partition -> next offset of the topic; None where Kafka was not asked.
    """

    table: pa.Table
    positions: dict[int, int]
    places: tuple[NDArray[np.int64], NDArray[np.int64]]
    missing_files: list[str]
    ends: dict[int, int] | None


@dataclass
class _Difference:
    cause: str
    detail: str


@dataclass
class _Events:
    """The view's events in the lake, by key."""

    selected: Selected
    codes: NDArray[np.int64]
    keys: list[bytes]
    arrived: NDArray[np.int64]
    number: dict[bytes, int] = field(default_factory=dict)


def check_view(
    view: StreamView, source: Source, served: Served, kept: Kept, *, drawn: Sequence[bytes] | None, now: int
) -> ViewCheck:
    """Check one view. `drawn`: the entity keys whose receipts are replayed (None: every row); `now`: microseconds."""
    return _Check(view, source, served, kept, now).run(drawn)


class _Check:
    def __init__(self, view: StreamView, source: Source, served: Served, kept: Kept, now: int) -> None:
        self.view, self.served, self.kept, self.now = view, served, kept, now
        self.layout = layout_of(view)
        self.events = _events(view, source, kept.table)
        self.lost = _lost_ranges(kept)
        self.twice = _twice(kept.places)
        self.headers: dict[bytes, RowHeader] = {}
        self.differences: dict[bytes, _Difference] = {}
        for key, data in served.rows.items():
            self._take_header(key, data)

    def run(self, drawn: Sequence[bytes] | None) -> ViewCheck:
        replayed = self._replay()
        chosen = list(self.served.rows) if drawn is None else [k for k in drawn if k in self.served.rows]
        receipts_equal = sum(replayed.get(k) == self.served.rows[k] for k in chosen)
        recomputed = self._recompute()
        keys = self.served.rows.keys() | recomputed.keys()
        equal = sum(self.served.rows.get(k) == recomputed.get(k) for k in keys)
        for key in keys:
            if key not in self.differences and self.served.rows.get(key) != recomputed.get(key):
                self.differences[key] = self._name(key, replayed.get(key))
        for key in chosen:
            if key not in self.differences and replayed.get(key) != self.served.rows[key]:
                self.differences[key] = self._name(key, replayed.get(key))
        counts = Counter(d.cause for d in self.differences.values())
        return ViewCheck(
            self.view.name, self.now, len(chosen), receipts_equal, len(keys), equal, dict(counts), self._examples()
        )

    def _take_header(self, key: bytes, data: bytes) -> None:
        try:
            header = read_header(data)
        except ReadError as error:
            self.differences[key] = _Difference("defect", str(error))
            return
        if digest_of(data) != header.digest:
            self.differences[key] = _Difference(
                "defect",
                f"digest {digest_of(data):016x} does not fit the row's own, {header.digest:016x}: bytes changed",
            )
            return
        self.headers[key] = header

    def _replay(self) -> dict[bytes, bytes]:
        """Each row from exactly the events that its receipt names: born <= offset <= applied."""
        events, wide = self.events, 1 + int(self.events.selected.partition.max(initial=0))
        born = np.full((len(events.keys), wide), 2**62, np.int64)
        applied = np.full((len(events.keys), wide), -1, np.int64)
        claims: dict[object, Mapping[int, int]] = {}
        values = _key_values(events.selected, events.codes)
        for key, header in self.headers.items():
            if (i := events.number.get(key)) is None:
                continue
            for p, b, a in header.partitions:
                if p < wide:
                    born[i, p], applied[i, p] = b, a
            claims[values[i]] = {p: b for p, b, _ in header.partitions}
        at = (events.codes, events.selected.partition)
        named = (events.selected.offset >= born[at]) & (events.selected.offset <= applied[at])
        rows = fold(self.layout, events.selected.take(named), born=claims)
        return {entity_key(r.key): r.data for r in rows}

    def _recompute(self) -> dict[bytes, bytes]:
        """Each row from all events of the lake, with the born offsets that rows claim (0 where there is none)."""
        values = _key_values(self.events.selected, self.events.codes)
        claims: dict[object, Mapping[int, int]] = {
            values[i]: {p: b for p, b, _ in h.partitions}
            for k, h in self.headers.items()
            if (i := self.events.number.get(k)) is not None
        }
        return {entity_key(r.key): r.data for r in fold(self.layout, self.events.selected, born=claims)}

    def _name(self, key: bytes, replayed: bytes | None) -> _Difference:
        """Why the row is not what all events of the lake give."""
        here = np.flatnonzero(self.events.codes == self.events.number.get(key, -1))
        if not len(here):
            return self._not_in_lake(key)
        mine = self.events.selected.take(here)
        only_lake = self._only_in_lake(mine)
        if only_lake is not None:
            return only_lake
        if key not in self.headers:
            return self._not_online(mine, here)
        header = self.headers[key]
        if (past := self._past_the_end(header)) is not None:
            return past
        for p, _, a in header.partitions:
            if a >= self.kept.positions.get(p, 0):
                return _Difference("not yet applied", f"the sink is at {self.kept.positions.get(p, 0)} of partition {p}, "
                                   f"the row at {a}: run 'headwater sink --until-caught-up'")  # fmt: skip
        behind = self._behind(header, mine)
        if behind is not None:
            return behind
        if replayed == self.served.rows[key]:
            return self._began_anew(header, mine, here)
        if self.lost:
            return _Difference("missing in lake", f"the lake lacks {self._lost_text()}")
        return _Difference("defect", "replaying the row's own offsets gives other bytes")

    def _began_anew(self, header: RowHeader, mine: Selected, here: NDArray[np.int64]) -> _Difference:
        """A row that is right by its own word and yet lacks older events: expired before, or lost."""
        born = {p: b for p, b, _ in header.partitions}
        places = zip(mine.partition.tolist(), mine.offset.tolist(), strict=True)
        older = np.array([o < born.get(p, 2**62) for p, o in places], np.bool_)
        arrived = self.events.arrived[here]
        quiet = int(arrived[~older].min()) - int(arrived[older].max()) if older.any() and not older.all() else 0
        # A row lives longer than any of its windows; retention bounds how late the sink can be.
        if self.served.expiry_ms is not None and quiet >= max(w + hop for hop, w in self.view.hops().items()):
            return _Difference("expired", "the row began anew after it had expired; older events left every window")
        return _Difference(
            "missing online", f"the row began anew, and {int(older.sum())} events of its key from before are not in "
            f"it: it was lost and not expired",
        )  # fmt: skip

    def _past_the_end(self, header: RowHeader) -> _Difference | None:
        """A row that claims events which its topic has not given to anybody."""
        for p, _, a in header.partitions:
            if self.kept.ends is not None and a >= self.kept.ends.get(p, 0):
                return _Difference(
                    "defect", f"the row says that it has applied partition {p}, offset {a}; the topic ends at "
                    f"{self.kept.ends.get(p, 0)}",
                )  # fmt: skip
        return None

    def _not_in_lake(self, key: bytes) -> _Difference:
        header = self.headers.get(key)
        if header is not None and (past := self._past_the_end(header)) is not None:
            return past
        if header is not None and all(a >= self.kept.positions.get(p, 0) for p, _, a in header.partitions):
            return _Difference("not yet applied", "the sink has not come to this row's events yet")
        if self.lost:
            return _Difference("missing in lake", f"the lake lacks {self._lost_text()}")
        return _Difference("missing in lake", "the row is served, and the lake has no event of its key")

    def _only_in_lake(self, mine: Selected) -> _Difference | None:
        """An event that the topic cannot have given: past its end, past the sink's own position, or there twice."""
        for p, o in zip(mine.partition.tolist(), mine.offset.tolist(), strict=True):
            if (p, o) in self.twice:
                return _Difference("missing online", f"the lake has the event at partition {p}, offset {o} twice")
            if self.kept.ends is not None and o >= self.kept.ends.get(p, 0):
                return _Difference(
                    "missing online", f"the lake has an event at partition {p}, offset {o}; the topic ends at "
                    f"{self.kept.ends.get(p, 0)}",
                )  # fmt: skip
            if o >= self.kept.positions.get(p, 0):
                return _Difference(
                    "missing online", f"the lake has an event at partition {p}, offset {o}, past the sink's position "
                    f"{self.kept.positions.get(p, 0)}",
                )  # fmt: skip
        return None

    def _not_online(self, mine: Selected, here: NDArray[np.int64]) -> _Difference:
        due = [
            o < self.served.positions.get(p, 0)
            for p, o in zip(mine.partition.tolist(), mine.offset.tolist(), strict=True)
        ]
        if not any(due):
            return _Difference("not yet applied", "the worker has not come to this key's events yet")
        last = int(self.events.arrived[here].max())
        if self.served.expiry_ms is not None and last + self.served.expiry_ms * 1000 < self.now:
            return _Difference("expired", "no event for longer than a row lives")
        return _Difference(
            "missing online", f"no row, and the lake has {sum(due)} events of its key below the positions"
        )

    def _behind(self, header: RowHeader, mine: Selected) -> _Difference | None:
        """Events of the key that the row does not have, by its own word."""
        applied = {p: a for p, _, a in header.partitions}
        waiting = False
        for p, o in sorted(zip(mine.partition.tolist(), mine.offset.tolist(), strict=True)):
            if o <= applied.get(p, -1):
                continue
            if o < self.served.positions.get(p, 0):
                return _Difference(
                    "defect", f"the row has applied partition {p} up to {applied.get(p, 'nothing')}, and the event at "
                    f"offset {o} lies below the position {self.served.positions.get(p)}: an older row",
                )  # fmt: skip
            waiting = True
        return _Difference("not yet applied", "the worker has not come to the newest events yet") if waiting else None

    def _lost_text(self) -> str:
        ranges = [f"partition {p} offsets {a} to {b - 1}" for p, a, b in self.lost[:3]]
        more = f" and {len(self.lost) - 3} more ranges" if len(self.lost) > 3 else ""
        files = f" ({len(self.kept.missing_files)} of its files are gone)" if self.kept.missing_files else ""
        return ", ".join(ranges) + more + files

    def _examples(self) -> tuple[Example, ...]:
        """Some of every cause, the unexplained first."""
        seen: Counter[str] = Counter()
        out = []
        for key, d in self.differences.items():
            seen[d.cause] += 1
            if seen[d.cause] <= EXAMPLES:
                out.append(Example(key.decode("utf-8", "backslashreplace"), d.cause, d.detail))
        return tuple(out)


def _events(view: StreamView, source: Source, table: pa.Table) -> _Events:
    selected = select(view, Events.from_arrow(source, table, [n for n in table.column_names if not n.startswith("_")]))
    codes, keys = key_codes(selected.keys)
    single = len(view.keys) == 1
    names = [entity_key((k,) if single else k) for k in keys]
    arrived = table["_arrived_at"].combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)[selected.index]
    return _Events(selected, codes, names, arrived, {name: i for i, name in enumerate(names)})


def _key_values(selected: Selected, codes: NDArray[np.int64]) -> list[object]:
    """The join key values by code, as `fold` names them."""
    return key_codes(selected.keys)[1] if len(codes) else []


def _lost_ranges(kept: Kept) -> list[tuple[int, int, int]]:
    """Offsets that the lake says it has covered and has no record of: (partition, first, end)."""
    partition, offset = kept.places
    out = []
    for p, end in sorted(kept.positions.items()):
        mine = np.unique(offset[(partition == p) & (offset < end)])
        edges = np.concatenate([[-1], mine, [end]])
        for i in np.flatnonzero(np.diff(edges) > 1).tolist():
            out.append((p, int(edges[i]) + 1, int(edges[i + 1])))
    return out


def _twice(places: tuple[NDArray[np.int64], NDArray[np.int64]]) -> set[tuple[int, int]]:
    partition, offset = places
    if not len(offset):
        return set()
    order = np.lexsort((offset, partition))
    p, o = partition[order], offset[order]
    same = np.flatnonzero((p[1:] == p[:-1]) & (o[1:] == o[:-1]))
    return {(int(p[i]), int(o[i])) for i in same.tolist()}
