"""Aggregates of many ranges of one sorted column: prefix sums, a sparse table, positions.

A column enters once (`Kept`: nulls and events outside the feature's `where` dropped) and
then answers all windows. Sums are integers, so differences of prefix sums lose nothing; two
32-bit limbs hold them, since a wrapped int64 would hide an overflow. States become values by
the functions of `aggregations/`, as on every other path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.approx_distinct import hashes
from headwater.aggregations.components import States
from headwater.aggregations.numbers import LOW, scaled, unit_of
from headwater.aggregations.quantiles import BITS, OFFSET, buckets_of, middles, nearest_ranks
from headwater.aggregations.squares import square_limbs, words_of
from headwater.aggregations.statistics import finish
from headwater.columns import Column
from headwater.history.counts import top_counts
from headwater.history.distinct import approx_distinct, distinct_counts, previous_occurrence
from headwater.history.quantiles import of_rank
from headwater.plans.plan import Feature

NUMBERS = ("sum", "mean", "var", "stddev")
"""Functions of scaled integers."""
Ranges = tuple[NDArray[np.int64], NDArray[np.int64]]


class SumOverflow(Exception):
    """An integer sum needs more than 64 bits; `index` is the first range it concerns."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class Kept:
    """The values of a sorted column that a feature looks at, and how ranges of the log become theirs.

    Nulls are dropped unless the feature sees them (`nulls`); then `valid` says where there is a value.
    """

    def __init__(self, column: Column, passes: NDArray[np.bool_] | None, *, nulls: bool = False) -> None:
        valid = None if nulls else column.valid
        keep = valid if passes is None else passes if valid is None else passes & valid
        self.all = keep is None or bool(keep.all())
        self.dtype = column.dtype
        self.valid = column.valid if nulls else None
        if keep is None or self.all:
            self.values = column.values
        else:
            self.values = column.values[keep]
            self.valid = None if self.valid is None else self.valid[keep]
            self._before = np.concatenate([[0], np.cumsum(keep)])

    def ranges(self, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Ranges:
        """Ranges of the log as ranges of `values`."""
        return (lo, hi) if self.all else (self._before[lo], self._before[hi])

    @cached_property
    def limbs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Prefix sums of the low and of the high 32 bits, int64[n + 1] each."""
        low = np.concatenate([[0], np.cumsum(self.values & LOW)])
        return low, np.concatenate([[0], np.cumsum(self.values >> 32)])

    @cached_property
    def square_limbs(self) -> list[NDArray[np.int64]]:
        """Prefix sums of the 32-bit limbs of the values' squares, int64[n + 1] each, lowest first."""
        return [np.concatenate([[0], np.cumsum(limb)]) for limb in square_limbs(self.values)]

    @cached_property
    def previous(self) -> NDArray[np.int64]:
        """Where each value stood last before its position; -1 where nowhere."""
        return previous_occurrence(self.values)


def prepared(feature: Feature, column: Column) -> Column:
    """A feature's column as its function takes it: scaled integers for sums and means, else as it is."""
    if feature.function in NUMBERS:
        return scaled(column, feature.scale)
    if feature.function == "approx_quantile":
        integers = scaled(column, feature.scale)
        return Column("int64", buckets_of(integers.values) + OFFSET, integers.valid)
    if feature.function == "approx_distinct":
        hashed, valid = hashes(column)
        return Column("int64", hashed, valid)
    return column


def aggregate(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    """The feature's value over kept values [lo[i], hi[i]), for every i.

    Raises:
        SumOverflow: an integer sum that needs more than 64 bits.
    """
    return FUNCTIONS[feature.function](feature, kept, lo, hi)


def _count(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    return Column("int64", hi - lo)


def _sum(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    low, high = _wide_sums(kept, lo, hi)
    past = high != low >> 63
    if feature.column_dtype != "float64" and past.any():
        raise SumOverflow(int(past.argmax()))
    return finish(feature, [States((hi - lo).reshape(-1, 1)), States(np.stack([low, high], axis=1))])


def _mean(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    return finish(feature, [States((hi - lo).reshape(-1, 1)), States(np.stack(_wide_sums(kept, lo, hi), axis=1))])


def _var(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    sums = States(np.stack(_wide_sums(kept, lo, hi), axis=1))
    squares = States(words_of([before[hi] - before[lo] for before in kept.square_limbs]))
    return finish(feature, [States((hi - lo).reshape(-1, 1)), sums, squares])


def _wide_sums(kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Ranges:
    low_before, high_before = kept.limbs
    low = low_before[hi] - low_before[lo]
    high = high_before[hi] - high_before[lo] + (low >> 32)
    return (high << 32) | (low & LOW), high >> 32


def _min(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    return _extreme(kept, lo, hi, np.minimum)


def _max(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    return _extreme(kept, lo, hi, np.maximum)


def _extreme(kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64], pick: Callable[..., Any]) -> Column:
    if kept.values.dtype != object:
        return _nullable(kept.dtype, range_extreme(kept.values, lo, hi, pick), lo, hi)
    texts, ranks = np.unique(kept.values, return_inverse=True)
    chosen = range_extreme(ranks.astype(np.int64), lo, hi, pick)
    return _nullable(kept.dtype, texts[chosen] if len(texts) else _blank(kept.dtype, len(lo)), lo, hi)


def range_extreme(
    values: NDArray[Any], lo: NDArray[np.int64], hi: NDArray[np.int64], pick: Callable[..., Any]
) -> NDArray[Any]:
    """pick.reduce(values[lo[i]:hi[i]]) for every i (`pick`: np.minimum or np.maximum); 0 for empty ranges.

    A sparse table of which only one level is kept: the level of width 2**j answers, by its two
    overlapping halves, the ranges of 2**j up to 2**(j + 1) - 1 values.
    """
    out = np.zeros(len(lo), values.dtype)
    levels = np.frexp((hi - lo).astype(np.float64))[1] - 1
    table, width = values, 1
    for level in range(int(levels.max(initial=-1)) + 1):
        rows = np.flatnonzero(levels == level)
        out[rows] = pick(table[lo[rows]], table[hi[rows] - width])
        table, width = pick(table[:-width], table[width:]), 2 * width
    return out


def _last(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    if not len(kept.values):
        return Column.nulls(kept.dtype, len(lo))
    return _nullable(kept.dtype, kept.values[np.maximum(hi - 1, 0)], lo, hi)


def _latest(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    found = _last(feature, kept, lo, hi)
    if kept.valid is None or not len(kept.values):
        return found
    return Column(found.dtype, found.values, found.mask() & kept.valid[np.maximum(hi - 1, 0)])


def _first(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    if not len(kept.values):
        return Column.nulls(kept.dtype, len(lo))
    return _nullable(kept.dtype, kept.values[np.minimum(lo, len(kept.values) - 1)], lo, hi)


def _last_n(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    assert feature.n is not None
    values = kept.values[::-1].tolist()
    first = len(values) - hi
    spans = zip(first.tolist(), np.minimum(first + feature.n, len(values) - lo).tolist(), strict=True)
    return Column.of(feature.dtype, [values[a:b] for a, b in spans])


def _distinct(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    assert feature.limit is not None
    return Column("int64", np.minimum(distinct_counts(kept.previous, lo, hi), feature.limit))


def _top_k(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    assert feature.n is not None
    assert feature.limit is not None
    few = distinct_counts(kept.previous, lo, hi) <= feature.limit
    found = top_counts(kept.values, np.where(few, lo, 0), np.where(few, hi, 0), feature.n)
    column = Column.of(feature.dtype, found)
    return column if few.all() else Column(column.dtype, column.values, few)


def _approx_quantile(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    assert feature.q is not None
    there = hi > lo
    found = of_rank(kept.values, BITS, lo[there], hi[there], nearest_ranks((hi - lo)[there], feature.q))
    values = np.zeros(len(lo))
    values[there] = middles(found - OFFSET, unit_of(feature.column_dtype, feature.scale))
    return Column("float64", values, None if there.all() else there)


def _approx_distinct(feature: Feature, kept: Kept, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    return Column("int64", approx_distinct(kept.values, lo, hi))


def _nullable(dtype: Any, values: NDArray[Any], lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Column:
    """Values with null where the range is empty, and a harmless filler there."""
    valid = hi > lo
    if valid.all():
        return Column(dtype, values)
    values = values.copy()
    values[~valid] = _blank(dtype, 1)
    return Column(dtype, values, valid)


def _blank(dtype: Any, length: int) -> NDArray[Any]:
    return Column.nulls(dtype, length).values


FUNCTIONS: dict[str, Callable[[Feature, Kept, NDArray[np.int64], NDArray[np.int64]], Column]] = {
    "count": _count, "sum": _sum, "mean": _mean, "var": _var, "stddev": _var, "min": _min, "max": _max,
    "first": _first, "last": _last, "latest": _latest, "last_n": _last_n, "distinct": _distinct,
    "top_k": _top_k, "approx_quantile": _approx_quantile, "approx_distinct": _approx_distinct,
}  # fmt: skip
