"""Exact sums of squares, 192 bits: what a variance needs beside a count and a sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Ints, Runs, States
from headwater.aggregations.numbers import LOW
from headwater.expressions.syntax import Expr

_SMALL = 2**31
"""Below this a square fits 62 bits."""


@dataclass(frozen=True)
class Squares:
    """The exact sum of the squares of a column's (scaled) integers: 3 words, lowest first, never negative."""

    column: str
    scale: int
    where: Expr | None = None
    width: ClassVar[int] = 3
    variable: ClassVar[bool] = False
    empty: ClassVar[tuple[int, ...]] = (0, 0, 0)

    def reduce(self, runs: Runs) -> States:
        """Sums a run."""
        column = runs.scaled(self.column, self.scale)
        values, mask = column.values[runs.order], runs.mask(self.where, column)
        if mask is not None:
            values = np.where(mask, values, 0)
        return States(words_of([np.add.reduceat(limb, runs.starts) for limb in square_limbs(values)]))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """Adds up, each 32-bit limb on its own so that nothing wraps."""
        return States(words_of([np.add.reduceat(limb, starts) for limb in _limbs(states.words)]))

    def merge(self, old: States, new: States) -> States:
        """Adds."""
        return States(words_of([a + b for a, b in zip(_limbs(old.words), _limbs(new.words), strict=True)]))


def square_limbs(values: Ints) -> list[Ints]:
    """The squares of int64 values as 32-bit limbs, lowest first: a limb may have one bit more, and is never negative."""
    if not len(values) or (int(values.max()) < _SMALL and int(values.min()) > -_SMALL):
        squares = values * values
        return [squares & LOW, squares >> 32]
    # The least int64 has no positive twin of its own, but its bits are that of 2**63 as an unsigned number.
    size = np.abs(values).view(np.uint64)
    high, low = size >> np.uint64(32), size & np.uint64(LOW)
    lows, cross, highs = low * low, high * low, (high * high).view(np.int64)
    lowest, carry = (lows & np.uint64(LOW)).view(np.int64), (lows >> np.uint64(32)).view(np.int64)
    twice = ((cross << np.uint64(1)) & np.uint64(LOW)).view(np.int64)
    return [lowest, carry + twice, (cross >> np.uint64(31)).view(np.int64) + (highs & LOW), highs >> 32]


def words_of(limbs: Sequence[Ints]) -> NDArray[np.int64]:
    """Sums of limbs as (m, 3) words, carries passed on."""
    words, carry = np.zeros((len(limbs[0]), 6), np.int64), np.zeros(len(limbs[0]), np.int64)
    for i in range(6):
        carry = carry + limbs[i] if i < len(limbs) else carry
        words[:, i] = carry & LOW
        carry = carry >> 32
    return words[:, 0::2] | words[:, 1::2] << 32


def _limbs(words: Ints) -> list[Ints]:
    return [part for i in range(3) for part in (words[:, i] & LOW, words[:, i] >> 32 & LOW)]


def to_ints(words: Ints) -> NDArray[Any]:
    """Python integers of (m, w) words of two's complement, lowest first: only the last has a sign."""
    out = words[:, -1].astype(object)
    for i in range(words.shape[1] - 2, -1, -1):
        out = (out << 64) + np.ascontiguousarray(words[:, i]).view(np.uint64).astype(object)
    return out


def variances(counts: Ints, sums: Ints, squares: Ints, unit: int) -> NDArray[np.float64]:
    """The sample variances (with n - 1) of windows of n >= 2 integers, each the quotient of exact integers.

    Args:
        counts: n, int64.
        sums: (m, 2) words of 128 bits.
        squares: (m, 3) words.
        unit: by what an integer is divided to be the value.
    """
    n, total = counts.astype(object), to_ints(sums)
    # Python's true division of integers is correctly rounded (CPython, Objects/longobject.c).
    quotients = (n * to_ints(squares) - total * total) / (n * (n - 1) * (unit * unit))
    return np.asarray(quotients, np.float64)
