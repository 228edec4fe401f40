"""Values of rows at a time: what online reads, the client and the check take out of the bytes.

Windowed rows are read by the window law, plain rows (and those of a StreamView that has one) by their ttl; where there is no row,
values follow the law (counts are 0) and only the status says that it was not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.plans.plan import StreamView
from headwater.rows.layout import layout_of
from headwater.rows.many_rows import ManyRows
from headwater.rows.one_row import OneRow
from headwater.rows.window_reads import WindowReads

PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"
_MANY = 16
"""From so many rows on, columns take less time than one row after the other."""


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
    """Reads rows of one StreamView: the features in `names`, in that order (all by default)."""

    def __init__(self, view: StreamView, names: Sequence[str] | None = None) -> None:
        self.view = view
        layout = layout_of(view)
        self._names = tuple(layout.features if names is None else names)
        reads = WindowReads.of(layout, self._names)
        self._absent = reads.absent
        self._one, self._many = OneRow(reads), ManyRows(reads)

    def read(
        self, rows: Sequence[bytes | None], as_of: int | Sequence[int], names: Sequence[str] | None = None
    ) -> RowsRead:
        """Values of n rows (None: no such row) at `as_of` (one time, or one a row); of other `names`, where given.

        Raises:
            ReadError: bytes that are not a row of this view, or a sum past 64 bits.
        """
        if names is not None and tuple(names) != self._names:
            return ViewReader(self.view, names).read(rows, as_of)
        read = self._read_few(rows, as_of) if len(rows) < _MANY else self._read_many(rows, as_of)
        if self.view.ttl is not None:
            _outdate(read, self.view.ttl)
        return read

    def _read_few(self, rows: Sequence[bytes | None], as_of: int | Sequence[int]) -> RowsRead:
        times = [as_of] * len(rows) if isinstance(as_of, int) else as_of
        one, absent = self._one.read, self._absent
        read = [
            (absent(), int(q), None) if row is None else one(row, int(q)) for row, q in zip(rows, times, strict=True)
        ]
        values = [list(column) for column in zip(*(r[0] for r in read), strict=True)] or [[] for _ in self._names]
        status = [NOT_FOUND if row is None else PRESENT for row in rows]
        return RowsRead(dict(zip(self._names, values, strict=True)), [r[1] for r in read], status, [r[2] for r in read])

    def _read_many(self, rows: Sequence[bytes | None], as_of: int | Sequence[int]) -> RowsRead:
        n = len(rows)
        times = np.full(n, as_of, np.int64) if isinstance(as_of, int) else np.asarray(as_of, np.int64)
        found = [row for row in rows if row is not None]
        if len(found) == n:
            values, at, newest = self._many.read(found, times)
            return RowsRead(
                dict(zip(self._names, values, strict=True)), at.tolist(), [PRESENT] * n, list(newest.tolist())
            )
        here = np.fromiter((row is not None for row in rows), np.bool_, n)
        values, at, newest = self._many.read(found, times[here])
        times = times.copy()
        times[here] = at
        nothing = [self._absent() for _ in range(n - len(found))]
        spread = {}
        for i, name in enumerate(self._names):
            spread[name] = _spread(here, values[i], [row[i] for row in nothing])
        status = [PRESENT if h else NOT_FOUND for h in here.tolist()]
        return RowsRead(spread, times.tolist(), status, _spread(here, newest.tolist(), [None] * len(nothing)))


def _outdate(read: RowsRead, ttl: int) -> None:
    """Take the values of rows whose newest event is older than the ttl when they are read."""
    for i, (newest, at) in enumerate(zip(read.newest, read.effective, strict=True)):
        if newest is not None and newest < at - ttl:
            read.status[i] = OUTSIDE_MAX_AGE
            for column in read.values.values():
                column[i] = None


def _spread(here: NDArray[np.bool_], found: list[Any], absent: list[Any]) -> list[Any]:
    """The items of the rows that are here and of those that are not, in the rows' places."""
    items, others = iter(found), iter(absent)
    return [next(items) if h else next(others) for h in here.tolist()]
