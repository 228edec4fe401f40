"""Exact numbers: how a double enters a state as an integer, and how a state leaves as a value.

A double enters sums and means as floor(x * 10**scale + 0.5), three IEEE operations that
every engine has; integers enter as they are. Sums are exact integers of 128 bits, and what
leaves is the exact quotient of exact integers, rounded once to the nearest double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column

LOW = (1 << 32) - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_EXACT = 2**53


def scaled(column: Column, scale: int) -> Column:
    """The integers that enter a sum: null where the value is, or where it needs more than 64 bits."""
    if column.dtype != "float64":
        return column
    with np.errstate(over="ignore"):
        x = column.values * 10.0**scale + 0.5
    fits = (x >= -9.223372036854775808e18) & (x < 9.223372036854775808e18)
    if fits.all():
        return Column("int64", np.floor(x).astype(np.int64), column.valid)
    valid = fits if column.valid is None else fits & column.valid
    return Column("int64", np.floor(np.where(fits, x, 0.0)).astype(np.int64), valid)


def scaled_one(value: float, scale: int) -> int | None:
    """`scaled` of one double."""
    return scaled(Column.of("float64", [value]), scale).to_list()[0]  # type: ignore[no-any-return]


def unit_of(column_dtype: str | None, scale: int) -> int:
    """By what an integer in a sum is divided: 10**scale for doubles, 1 for integers."""
    return 10**scale if column_dtype == "float64" else 1


def wide_sums(values: NDArray[np.int64], starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Exact sums of runs of int64 values: (low, high) words of 128-bit two's complement.

    `starts` are the runs' first indices, as for `np.add.reduceat`; a run holds fewer than 2**31 values.
    """
    low = np.add.reduceat(values & LOW, starts)
    high = np.add.reduceat(values >> 32, starts) + (low >> 32)
    return (high << 32) | (low & LOW), high >> 32


def add_wide(
    low: NDArray[np.int64], high: NDArray[np.int64], more_low: NDArray[np.int64], more_high: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """128-bit sums of two pairs of words, element by element."""
    total = low.view(np.uint64) + more_low.view(np.uint64)
    carry = total < low.view(np.uint64)
    return total.view(np.int64), high + more_high + carry


def to_int(low: int, high: int) -> int:
    """The Python integer of one pair of words (`low` may be given signed)."""
    return (high << 64) + (low & 0xFFFFFFFFFFFFFFFF)


def quotient(numerator: int, denominator: int) -> float:
    """The exact quotient, rounded once to the nearest double (ties to even).

    Python's true division of integers is correctly rounded (CPython, Objects/longobject.c).
    """
    return numerator / denominator


def quotients(
    low: NDArray[np.int64], high: NDArray[np.int64], counts: NDArray[np.int64], unit: int = 1
) -> NDArray[np.float64]:
    """`quotient` of many 128-bit sums by counts * unit (counts positive int64).

    Where both sides are below 2**53 one IEEE division is exact; the rest goes one by one.
    """
    bottom = counts.astype(np.float64) * float(unit)
    small = (high == low >> 63) & (np.abs(low) < _EXACT) & (low != INT64_MIN) & (bottom < _EXACT)
    out = np.where(small, low, 0).astype(np.float64) / np.where(small, bottom, 1.0)
    for i in np.flatnonzero(~small).tolist():
        out[i] = quotient(to_int(int(low[i]), int(high[i])), int(counts[i]) * unit)
    return np.asarray(out + 0.0, np.float64)


def to_ordered(values: NDArray[Any], dtype: str) -> NDArray[np.int64]:
    """Integers that sort like the values: doubles by their bits, all others as they are."""
    if dtype != "float64":
        return values.astype(np.int64)
    bits = np.ascontiguousarray(values, np.float64).view(np.int64)
    return np.where(bits < 0, bits ^ INT64_MAX, bits)


def from_ordered(integers: NDArray[np.int64], dtype: str) -> NDArray[Any]:
    """The inverse of `to_ordered`."""
    if dtype == "bool":
        return np.asarray(integers != 0)
    if dtype != "float64":
        return integers
    return np.where(integers < 0, integers ^ INT64_MAX, integers).view(np.float64)
