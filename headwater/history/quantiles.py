"""The value of a rank in each of many ranges of one array of small integers.

By a wavelet matrix (Claude, Navarro, "The wavelet matrix", 2012) as in distinct.py: one pass a bit serves all
ranges, whatever their lengths are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def of_rank(values: Ints, bits: int, lo: Ints, hi: Ints, rank: Ints) -> Ints:
    """For every i the rank[i]-th least (from 1) of values[lo[i]:hi[i]]; values lie in [0, 2**bits)."""
    left, right, found, before = lo.copy(), hi.copy(), np.zeros(len(lo), np.int64), rank - 1
    for bit in range(bits - 1, -1, -1):
        ones = ((values >> bit) & 1).astype(np.bool_)
        zeros_before = np.concatenate([[0], np.cumsum(~ones)])
        zeros = int(zeros_before[-1])
        left_zeros, right_zeros = zeros_before[left], zeros_before[right]
        up = before >= right_zeros - left_zeros
        before = np.where(up, before - (right_zeros - left_zeros), before)
        found |= np.where(up, 1 << bit, 0)
        left = np.where(up, zeros + left - left_zeros, left_zeros)
        right = np.where(up, zeros + right - right_zeros, right_zeros)
        values = np.concatenate([values[~ones], values[ones]])
    return found
