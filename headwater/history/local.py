"""Windowed features at given times, from events in memory: the `local` engine.

One pass: keys become codes, events are sorted by (key, time, partition, offset), every
window is two binary searches on that order, and each column answers all its windows before
the next one is touched, so that memory holds one column's sums at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.numbers import INT64_MIN
from headwater.columns import Column
from headwater.errors import ReadError
from headwater.events.batch import Events
from headwater.events.select import Selected, select
from headwater.expressions.syntax import Expr
from headwater.history.aggregates import NUMBERS, Kept, SumOverflow, aggregate, prepared
from headwater.history.groups import codes
from headwater.history.moments import moment_text
from headwater.history.timeline import Timeline, window_starts
from headwater.plans.plan import Feature, StreamView

_END = (0, 0)


@dataclass(frozen=True)
class Questions:
    """Rows of a spine as one view sees them: a column a join key (in the view's order), and read times.

    Attributes:
        at: int64 microseconds, one a row.
        valid: where a row has a time; None where all have. A row without is answered like an empty window.
    """

    keys: Sequence[Column]
    at: NDArray[np.int64]
    valid: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.at)

    def take(self, index: NDArray[np.int64]) -> Questions:
        """The rows at `index`."""
        valid = None if self.valid is None else self.valid[index]
        return Questions([k.take(index) for k in self.keys], self.at[index], valid)


def point_in_time(
    view: StreamView, events: Events, questions: Questions, names: Sequence[str] | None = None
) -> dict[str, Column]:
    """Every feature (or those in `names`) at every question: feature name -> a column of as many rows.

    A key with a null in it, or a row without a time, is answered like an empty window: counts
    are 0, all else is null.

    Raises:
        ReadError: an integer sum needs more than 64 bits; names view, feature, key and time.
    """
    features = [f for f in view.features if names is None or f.name in names]
    log = _Log.of(view, events, questions)
    out: dict[str, Column] = {}
    for group in _by_column(features):
        kept = log.kept(group[0])
        for feature in group:
            try:
                out[feature.name] = log.unsorted(aggregate(feature, kept, *kept.ranges(*log.window(feature))))
            except SumOverflow as error:
                raise _overflow(view, feature, questions, int(log.rows[error.index])) from error
    return {f.name: out[f.name] for f in features}


@dataclass(frozen=True)
class _Log:
    """The events of the asked keys and the questions, both in the order of one timeline.

    Attributes:
        order: positions in `selected`, sorted by (key, time, partition, offset).
        rows: questions sorted by (key, time): neighbours look into the same memory.
        places: places of the sorted events; `ends`: those of the sorted questions.
    """

    selected: Selected
    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    timeline: Timeline
    places: NDArray[np.int64]
    codes: NDArray[np.int64]
    at: NDArray[np.int64]
    asked: NDArray[np.bool_]
    ttl: int | None
    found: dict[tuple[int | None, int | None], NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def of(cls, view: StreamView, events: Events, questions: Questions) -> _Log:
        selected = select(view, events)
        event_codes, row_codes, bound = codes(selected.keys, questions.keys, (len(selected), len(questions)))
        wanted = np.zeros(bound, np.bool_)
        wanted[row_codes[row_codes >= 0]] = True
        chosen = np.flatnonzero(wanted[event_codes])
        if len(chosen) < len(selected):
            selected, event_codes = selected.take(chosen), event_codes[chosen]
        timeline = Timeline.of(selected.time, bound)
        places = timeline.place(event_codes, selected.time)
        order = _order(places, selected)
        asked = row_codes >= 0 if questions.valid is None else (row_codes >= 0) & questions.valid
        row_codes = np.maximum(row_codes, 0)
        rows = np.argsort(timeline.place(row_codes, questions.at))
        return cls(
            selected, order, rows, timeline, places[order], row_codes[rows], questions.at[rows], asked[rows], view.ttl
        )  # fmt: skip

    def kept(self, feature: Feature) -> Kept:
        """The sorted values that a feature looks at."""
        passes = None if feature.where is None else self.selected.where(feature.where)[self.order]
        if feature.column is None:
            return Kept(Column("int64", self.places), passes)
        column = self.selected.columns[feature.column]
        return Kept(prepared(feature, column).take(self.order), passes, nulls=feature.function == "latest")

    def window(self, feature: Feature) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each sorted question's window begins and ends among the sorted events."""
        hi = self._search(_END, lambda: self.timeline.place(self.codes, self.at))
        lo = self._search((feature.window, feature.hop), lambda: self._starts(feature))
        return np.minimum(lo, hi), hi

    def _starts(self, feature: Feature) -> NDArray[np.int64]:
        if feature.window is None or feature.hop is None:
            if self.ttl is not None:
                return self.timeline.place(self.codes, np.maximum(self.at, INT64_MIN + self.ttl) - self.ttl)
            return self.timeline.first(self.codes)
        return self.timeline.place(self.codes, window_starts(self.at, feature.window, feature.hop))

    def _search(
        self, name: tuple[int | None, int | None], places: Callable[[], NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """Found once for each window, however many features share it."""
        if name not in self.found:
            self.found[name] = np.where(self.asked, np.searchsorted(self.places, places(), "left"), 0)
        return self.found[name]

    def unsorted(self, column: Column) -> Column:
        """A column of the sorted questions, in their own order."""
        back = np.empty(len(self.rows), np.int64)
        back[self.rows] = np.arange(len(self.rows))
        return column.take(back)


def _order(places: NDArray[np.int64], selected: Selected) -> NDArray[np.int64]:
    """Positions sorted by (place, partition, offset); ties are looked at only where there are any."""
    order = np.argsort(places)
    ordered = places[order]
    tied = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(tied):
        return order
    spots = np.union1d(tied, tied + 1)
    among = order[spots]
    order[spots] = among[np.lexsort((selected.offset[among], selected.partition[among], places[among]))]
    return order


def _by_column(features: Iterable[Feature]) -> list[list[Feature]]:
    """Features that look at the same values, so that those are prepared once."""
    groups: dict[tuple[str | None, str, int, Expr | None], list[Feature]] = {}
    for f in features:
        # Of those that take values as they are, only latest looks at nulls.
        others = {"approx_distinct": "hash", "approx_quantile": "bucket", "latest": "row"}
        use = "number" if f.function in NUMBERS else others.get(f.function, "value")
        scale = f.scale if use in ("number", "bucket") else 0
        groups.setdefault((f.column, use, scale, f.where), []).append(f)
    return list(groups.values())


def _overflow(view: StreamView, feature: Feature, questions: Questions, row: int) -> ReadError:
    key = {
        field.name: column.take(np.array([row])).to_list()[0]
        for field, column in zip(view.keys, questions.keys, strict=True)
    }
    return ReadError(
        f"View {view.name!r}, feature {feature.name!r}: the sum for {key} at {moment_text(int(questions.at[row]))} "
        f"needs more than 64 bits, and an int64 cannot hold it. Make the column a double in 'derive' "
        f"(CAST({feature.column} AS DOUBLE)), or shorten the window."
    )
