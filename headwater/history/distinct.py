"""How many distinct values each of many ranges of one array holds, exactly, and estimated past the bound.

A value is the first of its kind in a range where its previous occurrence lies before the
range, so the count is the number of positions in [lo, hi) with `previous < lo`. A wavelet
matrix (Claude, Navarro, "The wavelet matrix", 2012) answers that for all ranges at once, one
pass a bit, whatever the ranges' lengths are; only one level is kept in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.aggregations.approx_distinct import LIMIT, REGISTERS, estimate, registers_of

_BLOCK = 2048
"""Values a block whose registers are kept: a long range is its blocks and less than two blocks more."""


def approx_distinct(hashed: NDArray[np.uint64], lo: NDArray[np.int64], hi: NDArray[np.int64]) -> NDArray[np.int64]:
    """The approximate distinct count of hashed[lo[i]:hi[i]] for every i (exact to 256 distinct)."""
    counts = distinct_counts(previous_occurrence(hashed), lo, hi)
    many = np.flatnonzero(counts > LIMIT)
    if len(many):
        ranges, inverse = np.unique(np.stack([lo[many], hi[many]]), axis=1, return_inverse=True)
        blocks = _Blocks(hashed)
        estimates = [estimate(blocks.registers(a, b)) for a, b in ranges.T.tolist()]
        counts[many] = np.array(estimates, np.int64)[inverse.reshape(-1)]
    return counts


def previous_occurrence(values: NDArray[Any]) -> NDArray[np.int64]:
    """Where each value stood last before its position; -1 where nowhere."""
    kinds = pa.array(values).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.argsort(kinds, kind="stable")
    same = kinds[order][1:] == kinds[order][:-1]
    out = np.full(len(values), -1, np.int64)
    out[order[1:][same]] = order[:-1][same]
    return out


def distinct_counts(previous: NDArray[np.int64], lo: NDArray[np.int64], hi: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every i, how many positions p in [lo[i], hi[i]) have previous[p] < lo[i]."""
    level = previous + 1
    bound = lo + 1
    left, right, counts = lo.copy(), hi.copy(), np.zeros(len(lo), np.int64)
    for bit in range(len(previous).bit_length() - 1, -1, -1):
        ones = ((level >> bit) & 1).astype(np.bool_)
        zeros_before = np.concatenate([[0], np.cumsum(~ones)])
        zeros = int(zeros_before[-1])
        left_zeros, right_zeros = zeros_before[left], zeros_before[right]
        up = ((bound >> bit) & 1).astype(np.bool_)
        counts += np.where(up, right_zeros - left_zeros, 0)
        left = np.where(up, zeros + left - left_zeros, left_zeros)
        right = np.where(up, zeros + right - right_zeros, right_zeros)
        level = np.concatenate([level[~ones], level[ones]])
    return counts


class _Blocks:
    """HyperLogLog registers of blocks of values, and of 2, 4, 8, … blocks: any range from four pieces."""

    def __init__(self, hashed: NDArray[np.uint64]) -> None:
        self.hashed = hashed
        whole = len(hashed) // _BLOCK
        rows = [registers_of(hashed[i * _BLOCK : (i + 1) * _BLOCK]) for i in range(whole)]
        self.levels = [np.array(rows, np.uint8).reshape(whole, REGISTERS)]
        while len(self.levels[-1]) > (width := 1 << (len(self.levels) - 1)):
            last = self.levels[-1]
            self.levels.append(np.maximum(last[:-width], last[width:]))

    def registers(self, lo: int, hi: int) -> NDArray[np.uint8]:
        """The registers of the values in [lo, hi)."""
        first, end = -(-lo // _BLOCK), hi // _BLOCK
        if end <= first:
            return registers_of(self.hashed[lo:hi])
        level = (end - first).bit_length() - 1
        edges = np.concatenate([self.hashed[lo : first * _BLOCK], self.hashed[end * _BLOCK : hi]])
        inner = np.maximum(self.levels[level][first], self.levels[level][end - (1 << level)])
        registers: NDArray[np.uint8] = np.maximum(inner, registers_of(edges))
        return registers
