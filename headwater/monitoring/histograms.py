"""A histogram that takes the values of a whole batch at once.

Apart from prometheus_client, whose histogram takes one value a call: a batch has tens of thousands. A batch's
values lie close together, so comparing them with the few bounds between their least and greatest is nearly all
there is to do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds for freshness and the time of a write."""


class Histogram:
    """Counts of values by upper bound (a value equal to a bound is below it), and their sum."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._edges = np.array(self.bounds)
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, values: NDArray[np.float64]) -> None:
        """Count values, float64[n], in the unit of the bounds."""
        if not len(values):
            return
        first, last = self._edges.searchsorted((values.min(), values.max())).tolist()
        below = 0
        for i in range(first, last):
            up_to = int(np.count_nonzero(values <= self.bounds[i]))
            self._counts[i] += up_to - below
            below = up_to
        self._counts[last] += len(values) - below
        self.sum += float(values.sum())

    def add_one(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """Upper bound as text, and how many values are at most that; the last is "+Inf"."""
        names = [*(repr(b) for b in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


def histogram_family(name: str, text: str, labels: Sequence[str], found: dict[tuple[str, ...], Histogram]) -> Any:
    """prometheus_client's family of histograms, by the values of `labels`."""
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in list(found.items()):
        family.add_metric(values, histogram.buckets(), histogram.sum)
    return family
