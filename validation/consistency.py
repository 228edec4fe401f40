"""The consistency check of a windowed view: served rows against the lake, value by value.

Three questions, each answered for every row or for the receipts drawn:

1. Is the row what it says? Its digest fits its bytes.
2. Receipts: replay from the lake exactly the events that its offsets name: equal bytes?
3. Recompute over all events of the lake that were due: the same row? If not, the difference gets a name
   (causes.py).

Due is an event below the position that was read before the row, and one that the row says it has applied;
what came later is no difference. A row whose last events the lake does not have yet is not compared, and
counted as waiting. So a running worker and sink make no false alarm (online_side.py, lake_side.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.errors import ReadError
from headwater.online.keys import entity_key
from headwater.plans.plan import Source, StreamView
from headwater.receipts.results import DEFECTS, ViewCheck
from headwater.rows.codec import RowHeader, digest_of, read_header
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of
from validation.causes import Causes, Seen
from validation.examples import example_of
from validation.keyed_events import KeyedEvents
from validation.lake_side import Kept
from validation.losses import Difference
from validation.online_side import Served

EXAMPLES = 20
"""Of each cause."""


@dataclass(frozen=True)
class Findings:
    """What was found: the result for people, and every difference.

    Attributes:
        rows: entity key -> what is wrong with its row (or why there is none).
        others: what is wrong with positions, files and the like: words for it, and the difference.
        positions: partition -> the offset that its position should be set back to, where it is too far.
    """

    result: ViewCheck
    rows: dict[bytes, Difference]
    others: list[tuple[str, Difference]]
    positions: dict[int, int]


def check_view(
    view: StreamView, source: Source, served: Served, kept: Kept, *, drawn: Sequence[bytes] | None, now: int
) -> ViewCheck:
    """Check one view. `drawn`: the entity keys whose receipts are replayed (None: every row); `now`: microseconds."""
    return examine(view, source, served, kept, drawn=drawn, now=now).result


def examine(
    view: StreamView, source: Source, served: Served, kept: Kept, *, drawn: Sequence[bytes] | None, now: int
) -> Findings:
    """As `check_view`, with every difference that was found."""
    return _Check(view, source, served, kept, now).run(drawn)


class _Check:
    def __init__(self, view: StreamView, source: Source, served: Served, kept: Kept, now: int) -> None:
        self.view, self.served, self.kept, self.now = view, served, kept, now
        self.layout = layout_of(view)
        self.events = KeyedEvents(view, source, kept)
        self.headers: dict[bytes, RowHeader] = {}
        self.differences: dict[bytes, Difference] = {}
        self.waiting: set[bytes] = set()
        self.unprovable: set[bytes] = set()

    def run(self, drawn: Sequence[bytes] | None) -> Findings:
        rows = self.served.rows
        self._take_headers()
        self.causes = Causes(self.view, self.served, self.kept, self.events, self.headers, self.now)
        self._take_strangers_and_uncovered()
        named, due = self._named(), self._due()
        replayed = self._folded(named)
        # Without a fault these are the same events, and folding is most of the work.
        expected = replayed if np.array_equal(named, due) else self._folded(due)
        chosen = set(rows) if drawn is None else set(drawn) & rows.keys()
        for key in (rows.keys() | expected.keys()) - self.waiting - self.differences.keys():
            seen = Seen(key, rows.get(key), replayed.get(key), expected.get(key))
            if seen.row != seen.expected or (key in chosen and seen.replayed != seen.row):
                self._name(seen)
        for key, difference in self.causes.ahead_of_positions():
            self.differences.setdefault(key, difference)
        return self._findings(chosen - self.waiting, replayed, expected)

    def _take_headers(self) -> None:
        """1. Rows that are what they say; the others are defects."""
        for key, data in self.served.rows.items():
            try:
                header = read_header(data)
            except ReadError as error:
                self.differences[key] = Causes.unreadable(self.view, key, data, str(error))
                continue
            if digest_of(data) != header.digest:
                self.differences[key] = Causes.changed_bytes(self.view, key, header, digest_of(data))
            elif header.state_hash != self.view.state_hash:
                self.differences[key] = Causes.other_definition(self.view, key, header)
            else:
                self.headers[key] = header

    def _take_strangers_and_uncovered(self) -> None:
        for key, difference in self.causes.strangers():
            self.differences.setdefault(key, difference)
        for key, header in self.headers.items():
            if key not in self.differences and (uncovered := self.causes.uncovered(key, header)) is not None:
                if isinstance(uncovered, Difference):
                    self.differences[key] = uncovered
                else:
                    self.waiting.add(key)

    def _name(self, seen: Seen) -> None:
        difference = self.causes.name(seen)
        if difference is None:
            self.unprovable.add(seen.key)
            self.waiting.add(seen.key)
        else:
            self.differences[seen.key] = difference

    def _named(self) -> NDArray[np.bool_]:
        """2. The events that each row's receipt names: born <= offset <= applied."""
        events = self.events
        born = np.full((len(events.keys), events.wide), 2**62, np.int64)
        applied = np.full((len(events.keys), events.wide), -1, np.int64)
        for i, p, b, a in self._claims():
            born[i, p], applied[i, p] = b, a
        at = (events.codes, events.selected.partition)
        named: NDArray[np.bool_] = (events.selected.offset >= born[at]) & (events.selected.offset <= applied[at])
        return named

    def _due(self) -> NDArray[np.bool_]:
        """3. The events that were due: below the position, or applied by the row's own word."""
        events = self.events
        due = np.zeros((len(events.keys), events.wide), np.int64)
        for p, position in self.served.positions.items():
            if p < events.wide:
                due[:, p] = position
        for i, p, _, a in self._claims():
            due[i, p] = max(due[i, p], a + 1)
        at = (events.codes, events.selected.partition)
        chosen: NDArray[np.bool_] = (events.selected.offset < due[at]) & ~events.strange
        return chosen

    def _claims(self) -> list[tuple[int, int, int, int]]:
        """Key number, partition, born and applied offset of every readable row that has events in the lake."""
        events = self.events
        return [
            (i, p, b, a)
            for key, header in self.headers.items()
            if (i := events.number.get(key)) is not None
            for p, b, a in header.partitions
            if 0 <= p < events.wide
        ]

    def _folded(self, chosen: NDArray[np.bool_]) -> dict[bytes, bytes]:
        """Rows of the chosen events, with the born offsets that rows claim (0 where there is no row)."""
        claims: dict[object, Mapping[int, int]] = {
            self.events.values[i]: {p: b for p, b, _ in header.partitions}
            for key, header in self.headers.items()
            if (i := self.events.number.get(key)) is not None
        }
        return {entity_key(r.key): r.data for r in fold(self.layout, self.events.selected.take(chosen), born=claims)}

    def _findings(self, chosen: set[bytes], replayed: dict[bytes, bytes], expected: dict[bytes, bytes]) -> Findings:
        rows = self.served.rows
        compared = (rows.keys() | expected.keys()) - self.waiting
        others = self.causes.losses.all({d.cause for d in self.differences.values()})
        counts = Counter(d.cause for d in [*self.differences.values(), *(d for _, d in others)])
        examples = [(*found, rows.get(found[0]), expected.get(found[0])) for found in self._chosen_examples()]
        result = ViewCheck(
            self.view.name, self.now, len(chosen), sum(replayed.get(k) == rows[k] for k in chosen),
            len(compared), len(compared - self.differences.keys()), dict(counts),
            tuple([d.example(text) for text, d in others[:EXAMPLES]] + [example_of(self.view, *e) for e in examples]),
            len(self.waiting), self.causes.notes(self.waiting - self.unprovable, self.unprovable),
        )  # fmt: skip
        return Findings(result, self.differences, others, self.causes.losses.too_far())

    def _chosen_examples(self) -> list[tuple[bytes, Difference]]:
        """Some of every cause, the unexplained first."""
        seen: Counter[str] = Counter()
        out = []
        for key, difference in sorted(
            self.differences.items(), key=lambda item: (item[1].cause not in DEFECTS, item[0])
        ):
            seen[difference.cause] += 1
            if seen[difference.cause] <= EXAMPLES:
                out.append((key, difference))
        return out
