"""Values of rows at a time: what online reads, the client and the check take out of the bytes.

Windowed rows are read by the window law, plain rows by their ttl; where there is no row,
values follow the law (counts are 0) and only the status says that it was not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import States, objects_of
from headwater.aggregations.statistics import finish
from headwater.columns import Column
from headwater.errors import ReadError
from headwater.plans.plan import Feature, StreamView
from headwater.rows.codec import Rows, Tiles, decode, read_header
from headwater.rows.layout import Group, RowLayout, layout_of

PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"


@dataclass(slots=True)
class RowsRead:
    """Values of n rows.

    Attributes:
        values: by feature name n Python values (None for null; timestamps as int microseconds).
        effective: the time each row was read at, microseconds.
        status: "PRESENT", "NOT_FOUND" or "OUTSIDE_MAX_AGE".
        newest: each row's newest event time (None where there is no row).
    """

    values: dict[str, list[Any]]
    effective: list[int]
    status: list[str]
    newest: list[int | None] = field(default_factory=list)


class ViewReader:
    """Reads rows of one StreamView."""

    def __init__(self, view: StreamView) -> None:
        self.view = view
        self.layout: RowLayout = layout_of(view)
        self._absent = {f.name: 0 if f.function in ("count", "approx_distinct") else None for f in view.features}

    def read(
        self, rows: Sequence[bytes | None], as_of: int | Sequence[int], names: Sequence[str] | None = None
    ) -> RowsRead:
        """Values of the features in `names` (all by default) at `as_of` (one time, or one a row).

        Raises:
            ReadError: bytes that are not a row of this view, or a sum past 64 bits.
        """
        n, wanted = len(rows), list(self.layout.features) if names is None else list(names)
        times = np.full(n, as_of, np.int64) if isinstance(as_of, int) else np.asarray(as_of, np.int64)
        here = [i for i, row in enumerate(rows) if row is not None]
        if not here:
            absent = {name: [self._absent[name]] * n for name in wanted}
            return RowsRead(absent, times.tolist(), [NOT_FOUND] * n, [None] * n)
        taken = decode(self.layout, [row for row in rows if row is not None])
        effective = np.maximum(times[here], taken.newest + 1)
        found = {c: v.to_list() for c, v in self._values(taken, effective, wanted).items()}
        if len(here) == n:
            return RowsRead(found, effective.tolist(), [PRESENT] * n, list(taken.newest.tolist()))
        return self._spread(found, here, effective, times, taken)

    def _values(self, rows: Rows, at: NDArray[np.int64], names: Sequence[str]) -> dict[str, Column]:
        windows: dict[tuple[int, int | None], _Window] = {}
        out = {}
        for name in names:
            feature, place = self.layout.features[name], self.layout.places[name]
            key = (place.group, feature.window)
            if key not in windows:
                windows[key] = _Window.of(self.layout.groups[place.group], rows.groups[place.group], feature, at)
            try:
                out[name] = finish(feature, [windows[key].state(c) for c in place.components])
            except (ReadError, UnicodeDecodeError) as error:
                raise ReadError(f"View {self.view.name!r}: {error}") from None
        return out

    def _spread(
        self, found: dict[str, list[Any]], here: list[int], effective: NDArray[np.int64],
        times: NDArray[np.int64], taken: Rows,
    ) -> RowsRead:  # fmt: skip
        n = len(times)
        values = {}
        for name, items in found.items():
            column: list[Any] = [self._absent[name]] * n
            for i, v in zip(here, items, strict=True):
                column[i] = v
            values[name] = column
        times = times.copy()
        times[here] = effective
        newest: list[int | None] = [None] * n
        status = [NOT_FOUND] * n
        for i, t in zip(here, taken.newest.tolist(), strict=True):
            newest[i], status[i] = t, PRESENT
        return RowsRead(values, times.tolist(), status, newest)


@dataclass(slots=True)
class _Window:
    """The tiles of one group that one window sees, cut into runs of one row each."""

    group: Group
    rows: int
    chosen: NDArray[np.int64] | slice
    row: NDArray[np.int64]
    starts: NDArray[np.int64]
    tiles: Tiles
    memo: dict[int, States] = field(default_factory=dict)

    @classmethod
    def of(cls, group: Group, tiles: Tiles, feature: Feature, at: NDArray[np.int64]) -> _Window:
        chosen: NDArray[np.int64] | slice = slice(None)
        row = tiles.row
        if group.hop is not None and feature.window is not None:
            first = (at - feature.window) // group.hop
            chosen = np.flatnonzero(tiles.tile >= first[row])
            row = row[chosen]
        changes = np.ones(len(row), np.bool_)
        changes[1:] = row[1:] != row[:-1]
        starts = np.flatnonzero(changes)
        return cls(group, len(at), chosen, row[starts], starts, tiles)

    def state(self, number: int) -> States:
        """One component's state of every row, empty ones included."""
        if number not in self.memo:
            self.memo[number] = self._merged(number)
        return self.memo[number]

    def _merged(self, number: int) -> States:
        component, states = self.group.components[number], self.tiles.states[number]
        empty = np.array(component.empty, np.int64)
        if not len(self.starts):
            objects = objects_of([None] * self.rows) if component.variable else None
            return States(np.broadcast_to(empty, (self.rows, len(empty))), objects)
        merged = states if isinstance(self.chosen, slice) else states.take(self.chosen)
        if len(self.starts) < len(merged.words):
            merged = component.merge_runs(merged, self.starts)
        if len(self.starts) == self.rows:
            return merged
        words = np.empty((self.rows, len(empty)), np.int64)
        words[:] = empty
        words[self.row] = merged.words
        if merged.objects is None:
            return States(words)
        spread = objects_of([None] * self.rows)
        spread[self.row] = merged.objects
        return States(words, spread)


__all__ = ["NOT_FOUND", "OUTSIDE_MAX_AGE", "PRESENT", "RowsRead", "ViewReader", "read_header"]
