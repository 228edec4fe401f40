"""What a sink counts for /metrics. Called by the sink once a commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headwater.events.admission import DEAD_LETTER, IGNORED
from headwater.monitoring.families import by_label, counters, gauges
from headwater.monitoring.histograms import Histogram, histogram_family
from pipelines.consumers import Place
from pipelines.loop_metrics import LoopMetrics
from pipelines.outages import Outages


class SinkMetrics(LoopMetrics):
    """The counts of one sink."""

    def __init__(self, kafka: Mapping[str, str], outages: Outages) -> None:
        super().__init__("headwater_sink", kafka, outages)
        self._records: Counter[str] = Counter()
        self._dead: Counter[str] = Counter()
        self._quarantined: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._delay: dict[tuple[str, ...], Histogram] = {}
        self._commits: dict[tuple[str, ...], Histogram] = {}
        self._positions: dict[Place, int] = {}

    def committed(self, topic: str, rows: pa.Table, began: float, now: float) -> None:
        """The lake has these rows; the commit began and is done, seconds since the epoch."""
        self._records[topic] += rows.num_rows
        kinds = rows["_kind"].drop_null()
        dead = pc.sum(pc.equal(kinds, DEAD_LETTER)).as_py() or 0
        self._dead[topic] += dead
        ignored = pc.sum(pc.equal(kinds, IGNORED)).as_py() or 0
        self._ignored[topic] += ignored
        self._quarantined[topic] += len(kinds) - dead - ignored
        self._commits.setdefault((topic,), Histogram()).add_one(max(now - began, 0.0))
        broker_time = rows["_broker_time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._delay.setdefault((topic,), Histogram()).add(now - broker_time / 1e6)

    def refused(self, topic: str) -> None:
        """Delta refused a commit: another sink was faster."""
        self._refusals[topic] += 1

    def stands(self, nexts: Mapping[Place, int]) -> None:
        """The lake's positions of the places that are read."""
        super().stands(nexts)
        self._positions = dict(nexts)

    def collect(self) -> Iterable[Any]:
        """prometheus_client's metric families."""
        yield counters("headwater_sink_records", "Records kept in the lake, admitted or not.", ("topic",),
                       by_label(self._records))  # fmt: skip
        yield counters("headwater_sink_dead_letters", "Events that do not fit their source.", ("topic",),
                       by_label(self._dead))  # fmt: skip
        yield counters("headwater_sink_quarantined", "Events that fail an expectation of their source.", ("topic",),
                       by_label(self._quarantined))  # fmt: skip
        yield counters("headwater_sink_ignored", "Records that are no events of their source, such as deletions.",
                       ("topic",), by_label(self._ignored))  # fmt: skip
        yield counters("headwater_sink_refusals", "Commits refused because another sink was faster.", ("topic",),
                       by_label(self._refusals))  # fmt: skip
        yield gauges("headwater_sink_position", "The next offset that the lake needs.", ("topic", "partition"),
                     {(t, str(p)): at for (t, p), at in self._positions.items()})  # fmt: skip
        yield histogram_family("headwater_sink_delay_seconds", "From the broker's time of a record to its commit.",
                               ("topic",), self._delay.copy())  # fmt: skip
        yield histogram_family("headwater_sink_commit_seconds", "How long a commit to the lake takes.", ("topic",),
                               self._commits.copy())  # fmt: skip
        yield from super().collect()
