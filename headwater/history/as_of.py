"""As-of joins for plain views: the newest row of a key at each read time, not older than the ttl.

Feast's rule: event time <= q, and >= q - ttl. Rows of one key and time are told apart by
(created, then the values in order, nulls first), so that the answer does not depend on the
order of rows in files. The tie rule costs nothing where no row ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headwater.aggregations.numbers import INT64_MAX, INT64_MIN
from headwater.columns import Column
from headwater.history.groups import codes
from headwater.history.local import Questions
from headwater.history.timeline import Timeline
from headwater.plans.plan import Field

NOT_FOUND = -1
_ONE_CHUNK = 2**30


@dataclass(frozen=True)
class PlainRows:
    """The rows of a view without windows: its table, and which columns are keys, time and creation time."""

    name: str
    table: pa.Table
    keys: tuple[Field, ...]
    ttl: int | None
    time: str = "event_timestamp"
    created: str | None = None


def newest_rows(
    keys: Sequence[Column],
    times: Column,
    questions: Questions,
    ttl: int | None,
    ties: Sequence[pa.ChunkedArray] = (),
) -> NDArray[np.int64]:
    """For each question the index of its row, NOT_FOUND where there is none.

    Args:
        keys, times: join keys and event times of the rows; rows with a null there are never found.
        ttl: microseconds, None for ever.
        ties: created timestamp and value columns, by which rows of one key and time are ordered.
    """
    row_codes, asked_codes, bound = codes(keys, questions.keys, (len(times), len(questions)))
    usable = row_codes >= 0 if times.valid is None else (row_codes >= 0) & times.valid
    asked = asked_codes >= 0 if questions.valid is None else (asked_codes >= 0) & questions.valid
    wanted = np.zeros(bound, np.bool_)
    wanted[asked_codes[asked]] = True
    chosen = np.flatnonzero(usable & wanted[np.maximum(row_codes, 0)])
    row_codes, row_times = row_codes[chosen], times.values[chosen]
    timeline = Timeline.of(row_times, bound)
    places = timeline.place(row_codes, row_times)
    order = _order(places, chosen, ties)
    return _search(timeline, places[order], chosen[order], np.maximum(asked_codes, 0), questions.at, ttl, asked)


def _search(
    timeline: Timeline,
    places: NDArray[np.int64],
    rows: NDArray[np.int64],
    asked_codes: NDArray[np.int64],
    at: NDArray[np.int64],
    ttl: int | None,
    asked: NDArray[np.bool_],
) -> NDArray[np.int64]:
    after = np.minimum(at, INT64_MAX - 1) + 1
    ends = timeline.place(asked_codes, after)
    order = np.argsort(ends)
    hi = np.searchsorted(places, ends[order], "left")
    first = timeline.first(asked_codes) if ttl is None else timeline.place(asked_codes, _earliest(at, ttl))
    # The newest row is in time exactly where its place is not before that of the earliest time allowed.
    found = np.zeros(len(at), np.bool_)
    newest = np.maximum(hi - 1, 0)
    if len(places):
        found = (hi > 0) & (places[newest] >= first[order]) & asked[order]
    out = np.full(len(at), NOT_FOUND, np.int64)
    out[order[found]] = rows[newest[found]]
    return out


def _earliest(at: NDArray[np.int64], ttl: int) -> NDArray[np.int64]:
    return np.maximum(at, INT64_MIN + ttl) - ttl


def _order(places: NDArray[np.int64], chosen: NDArray[np.int64], ties: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    """Positions sorted by place, and by `ties` (nulls first) where places are equal."""
    order = np.argsort(places)
    ordered = places[order]
    tied = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(tied) or not ties:
        return order
    spots = np.union1d(tied, tied + 1)
    among = order[spots]
    picked = [column.take(pa.array(chosen[among])) for column in ties]
    order[spots] = among[sorted_rows([pa.chunked_array([pa.array(places[among])]), *picked])]
    return order


def sorted_rows(columns: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    """The order that sorts rows by several columns, nulls first; lists and structs are passed over."""
    table: dict[str, pa.ChunkedArray] = {}
    for i, column in enumerate(columns):
        if not (pa.types.is_nested(column.type) or pa.types.is_null(column.type)):
            # Whether there is a value sorts before the value: null placement is said differently by every pyarrow.
            table |= {f"valid_{i}": column.is_valid(), f"value_{i}": column}
    indices = pc.sort_indices(pa.table(table), sort_keys=[(name, "ascending") for name in table])
    order: NDArray[np.int64] = indices.to_numpy().astype(np.int64)
    return order


def take(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """The column's values at `rows`, null where NOT_FOUND; its type is kept."""
    indices = pa.array(rows, mask=rows == NOT_FOUND)
    if column.nbytes < _ONE_CHUNK:
        # Taking from one chunk is four times as fast; past this size text would not fit one.
        column = pa.chunked_array([column.combine_chunks()], column.type)
    return column.take(indices)
