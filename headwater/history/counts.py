"""Which values come most often in each of many ranges of one array.

Counts do not add up like sums over a sorted log, so a window slides from range to range: questions of a key lie in
the order of time, and each event comes into the counts once and leaves them once.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray


def top_counts(values: NDArray[Any], lo: NDArray[np.int64], hi: NDArray[np.int64], n: int) -> list[list[list[Any]]]:
    """For every i the n most frequent values of values[lo[i]:hi[i]] as [value, count]: by count falling, value rising."""
    distinct, codes = np.unique(values, return_inverse=True)
    shown = distinct.tolist()
    ranges, which = np.unique(np.stack([lo, hi]), axis=1, return_inverse=True)
    window = _Window(codes.tolist())
    found = []
    for first, end in ranges.T.tolist():
        window.move(first, end)
        # The codes rise as the values do.
        top = heapq.nsmallest(n, window.counts.items(), key=lambda item: (-item[1], item[0]))
        found.append([[shown[code], count] for code, count in top])
    return [found[i] for i in which.reshape(-1).tolist()]


class _Window:
    """The counts of a range of codes that moves onwards."""

    def __init__(self, codes: list[int]) -> None:
        self.codes, self.first, self.end = codes, 0, 0
        self.counts: Counter[int] = Counter()

    def move(self, first: int, end: int) -> None:
        """Make it [first, end)."""
        if not self.first <= first <= self.end <= end:
            self.first = self.end = first
            self.counts = Counter()
        self.counts.update(self.codes[self.end : end])
        for code in self.codes[self.first : first]:
            self.counts[code] -= 1
            if not self.counts[code]:
                del self.counts[code]
        self.first, self.end = first, end
