"""All keys' times on one int64 line, so that one binary search finds where any window begins and ends.

Key by key, and by time inside a key. Where keys x microseconds do not fit 62 bits, a time is
replaced by its rank among the events' times, which orders the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.numbers import INT64_MAX, INT64_MIN
from headwater.windows.law import LIFETIME_START

_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Timeline:
    """A line with `span` places a key. `ranks` are the distinct event times where ranks stand for times."""

    low: int
    high: int
    span: int
    ranks: NDArray[np.int64] | None

    @classmethod
    def of(cls, times: NDArray[np.int64], keys: int) -> Timeline:
        """The line of event times (int64 microseconds, any order) and codes below `keys`."""
        if not len(times):
            return cls(0, 0, 2, None)
        low, high = int(times.min()), int(times.max())
        if (high - low + 2) * keys < _LIMIT and high < INT64_MAX:
            return cls(low, high, high - low + 2, None)
        ranks = np.unique(times)
        return cls(low, high, len(ranks) + 1, ranks)

    def place(self, codes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each (code, time): not above that of an event of the key exactly where time is not later."""
        if self.ranks is not None:
            return codes * self.span + np.searchsorted(self.ranks, times, "left")
        return codes * self.span + (np.clip(times, self.low, self.high + 1) - self.low)

    def first(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place before all events of each code."""
        return codes * self.span


def window_starts(at: NDArray[np.int64], window: int, hop: int) -> NDArray[np.int64]:
    """`windows.law.window_start` of many read times; what lies before int64 begins is its beginning."""
    lowest = INT64_MIN + window + hop
    return np.where(at < lowest, LIFETIME_START, (np.maximum(at, lowest) - window) // hop * hop)


def sort_places(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that sorts places (not stable)."""
    return np.argsort(places)
