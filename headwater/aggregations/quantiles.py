"""Approximate quantiles: how many of the (scaled) integers fell into each of some thousand log-linear buckets.

Below 128 each integer is a bucket of its own, above that its top 7 bits name it, so the middle of a bucket lies
within 1/128 of all its integers. The buckets do not depend on the data, and so counts of them on no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Ints, Runs, States
from headwater.aggregations.numbers import LOW
from headwater.aggregations.recorded import packed_states
from headwater.aggregations.records import Records, added, merged, unpack
from headwater.expressions.syntax import Expr

BITS = 13
"""Bits of a bucket's number and OFFSET together."""
OFFSET = 1 << (BITS - 1)
_COUNT_BITS = 48


@dataclass(frozen=True)
class Buckets:
    """1 word that stands for packed records (records.py), by rising buckets, None while there is no value.

    A record is one word: the bucket's number + 4,096 in the upper 16 bits, its count in the lower 48.
    """

    column: str
    scale: int
    where: Expr | None = None
    width: ClassVar[int] = 1
    variable: ClassVar[bool] = True
    empty: ClassVar[tuple[int, ...]] = (0,)

    def reduce(self, runs: Runs) -> States:
        """The counts of each run."""
        column = runs.scaled(self.column, self.scale)
        position, run = runs.counted(self.where, column)
        number = buckets_of(column.values[runs.order[position]])
        words = np.stack([number, np.ones(len(run), np.int64)], axis=1)
        return _packed(added(Records(run, words)), len(runs.starts))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The counts of each run of states."""
        records = _records(states)
        run = np.searchsorted(starts, records.row, "right") - 1
        return _packed(added(Records(run, records.words)), len(starts))

    def merge(self, old: States, new: States) -> States:
        """The counts of both."""
        n = len(new.words)
        return _packed(merged(_records(old), _records(new), n, (0,), 1, np.add), n)

    def state_of(self, counts: Sequence[Sequence[tuple[int, int]]]) -> States:
        """States of (bucket, count) pairs, each bucket once, in any order: what a SQL engine returns."""
        row = np.repeat(np.arange(len(counts)), [len(pairs) for pairs in counts])
        words = np.array([pair for pairs in counts for pair in pairs], np.int64).reshape(-1, 2)
        return _packed(added(Records(row, words)), len(counts))


def _records(states: States) -> Records:
    assert states.objects is not None
    records = unpack(states.objects, 1)
    word = records.words[:, 0]
    return Records(records.row, np.stack([(word >> _COUNT_BITS) - OFFSET, word & ((1 << _COUNT_BITS) - 1)], axis=1))


def _packed(records: Records, n: int) -> States:
    word = (records.words[:, 0] + OFFSET) << _COUNT_BITS | records.words[:, 1]
    return packed_states(Records(records.row, word[:, None]), n)


def buckets_of(values: Ints) -> Ints:
    """The number of each integer's bucket: numbers rise with the integers, and are 0 for 0."""
    # The least int64 has no positive twin of its own, but its bits are that of 2**63 as an unsigned number.
    size = np.abs(values).view(np.uint64)
    high = (size >> np.uint64(32)).view(np.int64)
    # A double holds any integer below 2**53 exactly, so its binary exponent is the bit length.
    low_bits = np.frexp((size & np.uint64(LOW)).astype(np.float64))[1]
    length = np.where(high > 0, np.frexp(high.astype(np.float64))[1] + 32, low_bits)
    shift = np.maximum(length - 7, 0).astype(np.int64)
    number = shift * 64 + (size >> shift.view(np.uint64)).view(np.int64)
    return np.asarray(np.where(values < 0, -number, number), np.int64)


def middles(numbers: Ints, unit: int) -> NDArray[np.float64]:
    """The middle of each bucket, divided by `unit`, rounded once to the nearest double."""
    known, which = np.unique(numbers, return_inverse=True)
    found = np.array([_middle(number, unit) for number in known.tolist()], np.float64)
    return np.asarray(found[which], np.float64)


def _middle(number: int, unit: int) -> float:
    shift = max(abs(number) // 64 - 1, 0)
    low = (abs(number) - shift * 64) << shift
    # Python's true division of integers is correctly rounded (CPython, Objects/longobject.c).
    middle = (2 * low + (1 << shift) - 1) / (2 * unit)
    return -middle if number < 0 else middle


def nearest_ranks(counts: Ints, q: float) -> Ints:
    """The rank ceil(q * n), at least 1, of each n; q is the decimal that it is written as."""
    part = Fraction(str(q))
    ranks: Ints = (-(-counts.astype(object) * part.numerator // part.denominator)).astype(np.int64)
    return np.maximum(ranks, 1)


def quantiles(states: States, q: float, unit: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The quantile of each state, and where there is one."""
    records = _records(states)
    total = np.bincount(records.row, records.words[:, 1], len(states.words)).astype(np.int64)
    there = total > 0
    if not there.any():
        return np.zeros(len(total)), there
    reached = np.cumsum(records.words[:, 1])
    target = (np.cumsum(total) - total + nearest_ranks(total, q))[there]
    out = np.zeros(len(total))
    out[there] = middles(records.words[np.searchsorted(reached, target), 0], unit)
    return out, there
