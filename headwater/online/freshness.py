"""What workers measure of themselves: rate and freshness, kept in Redis for `status` and the catalog.

Freshness here is from the broker's time of an event to the moment Redis acknowledged its rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from headwater.monitoring.histograms import Histogram
from headwater.online.connection import Connection
from headwater.online.keys import statistics_key

EVERY = 1.0
KEPT_MS = 86_400_000


class WorkerStatistics(msgspec.Struct, frozen=True):
    """The last second or more of work on a view. `at`: microseconds since the epoch."""

    at: int
    events: int
    events_per_second: float
    freshness_p50_ms: float
    freshness_p99_ms: float


_statistics = msgspec.json.Decoder(WorkerStatistics)


class FreshnessWriter:
    """Collects broker times of applied events and writes percentiles once a second.

    `histograms`: view -> all ages so far, in seconds, for whoever monitors this worker.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self.histograms: dict[str, Histogram] = {}
        self._ages: dict[str, list[NDArray[np.float64]]] = {}
        self._since = time.monotonic()

    def record(self, view: str, broker_time: NDArray[np.int64], written: float) -> None:
        """Events of these broker times (int64 microseconds) became readable at `written`, seconds since the epoch."""
        ages = (written * 1e6 - broker_time) / 1000.0
        self._ages.setdefault(view, []).append(ages.astype(np.float64, copy=False))
        if view not in self.histograms:
            self.histograms[view] = Histogram()
        self.histograms[view].add((ages / 1000.0).astype(np.float64, copy=False))

    def flush_when_due(self, connection: Connection) -> None:
        """`flush`, once a second."""
        if time.monotonic() - self._since >= EVERY:
            self.flush(connection)

    def flush(self, connection: Connection) -> None:
        """Write what was collected."""
        took, now = max(time.monotonic() - self._since, 1e-9), time.time_ns() // 1000
        commands = []
        for view, parts in self._ages.items():
            ages = np.concatenate(parts)
            p50, p99 = np.percentile(ages, [50, 99]).tolist()
            found = WorkerStatistics(now, len(ages), len(ages) / took, round(p50, 3), round(p99, 3))
            commands.append(("SET", statistics_key(self._project, view), msgspec.json.encode(found), "PX", KEPT_MS))
        if commands:
            connection.pipeline(commands)
        self._ages, self._since = {}, time.monotonic()


def load_statistics(connection: Connection, project: str, views: Iterable[str]) -> dict[str, WorkerStatistics]:
    """The last measurements by view; views that no worker has touched for a day are left out."""
    names = list(views)
    if not names:
        return {}
    replies = connection.command("MGET", *(statistics_key(project, v) for v in names))
    return {view: _statistics.decode(reply) for view, reply in zip(names, replies, strict=True) if reply is not None}
