"""What a worker counts for /metrics. Called by the worker once a batch; nothing here is done for each event."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from headwater.events.admission import DEAD_LETTER, IGNORED, QUARANTINE, Rejected
from headwater.monitoring.families import by_label, counters, gauges
from headwater.monitoring.histograms import Histogram, histogram_family
from pipelines.consumers import Place
from pipelines.feeds import ViewFeed
from pipelines.loop_metrics import LoopMetrics
from pipelines.outages import Outages


class StreamMetrics(LoopMetrics):
    """The counts of one worker. `freshness`: by view, seconds from broker time to written."""

    def __init__(self, kafka: Mapping[str, str], outages: Outages, freshness: dict[str, Histogram]) -> None:
        super().__init__("headwater_stream", kafka, outages)
        self._freshness = freshness
        self._writes: dict[tuple[str, ...], Histogram] = {}
        self._began: dict[str, float] = {}
        self._events: Counter[str] = Counter()
        self._dead: Counter[str] = Counter()
        self._quarantined: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._conflicts: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._told: WeakKeyDictionary[ViewFeed, int] = WeakKeyDictionary()
        self._positions: dict[tuple[str, ...], float] = {}

    def admitted(self, topic: str, rejected: Sequence[Rejected]) -> None:
        """A batch was admitted, and its rows are about to be sent to Redis."""
        self.admitted_but(topic, Counter(r.kind for r in rejected))

    def admitted_but(self, topic: str, rejected: Mapping[str, int]) -> None:
        """The same, of a batch admitted elsewhere: how many events of it were not, by kind (admission.py)."""
        self._began[topic] = time.time()
        self._dead[topic] += rejected.get(DEAD_LETTER, 0)
        self._ignored[topic] += rejected.get(IGNORED, 0)
        self._quarantined[topic] += rejected.get(QUARANTINE, 0)

    def landed(self, topic: str, events: int, feeds: Iterable[ViewFeed], written: float | None) -> None:
        """Redis has a batch of so many events; the last of it at `written`, seconds since the epoch (None: no rows)."""
        self._events[topic] += events
        began = self._began.pop(topic, None)
        if written is not None and began is not None:
            # The clock may be set back in between.
            self._writes.setdefault((topic,), Histogram()).add_one(max(written - began, 0.0))
        for feed in feeds:
            self._conflicts[feed.view.name] += feed.conflicts - self._told.get(feed, 0)
            self._told[feed] = feed.conflicts

    def refused(self, view: str) -> None:
        """Redis held another position than a script was computed from."""
        self._refusals[view] += 1

    def stand(self, feeds: Mapping[str, Iterable[ViewFeed]], least: Mapping[Place, int]) -> None:
        """Once a second: the feeds by topic, and the least position of each place."""
        self.stands(least)
        self._positions = {
            (f.view.name, f.fill.id, topic, str(p)): at
            for topic, some in feeds.items()
            for f in some
            for p, at in f.positions.items()
        }

    def collect(self) -> Iterable[Any]:
        """prometheus_client's metric families."""
        yield counters("headwater_stream_events", "Events read and written, admitted or not.", ("topic",),
                       by_label(self._events))  # fmt: skip
        yield counters("headwater_stream_dead_letters", "Events that do not fit their source.", ("topic",),
                       by_label(self._dead))  # fmt: skip
        yield counters("headwater_stream_quarantined", "Events that fail an expectation of their source.", ("topic",),
                       by_label(self._quarantined))  # fmt: skip
        yield counters("headwater_stream_ignored", "Records that are no events of their source, such as deletions.",
                       ("topic",), by_label(self._ignored))  # fmt: skip
        yield counters("headwater_stream_conflicts", "Rows that another worker changed first; merged again.", ("view",),
                       by_label(self._conflicts))  # fmt: skip
        yield counters("headwater_stream_refusals", "Batches refused because Redis held another position.", ("view",),
                       by_label(self._refusals))  # fmt: skip
        yield gauges("headwater_stream_position", "The next offset that a view's rows need.",
                     ("view", "fill", "topic", "partition"), self._positions)  # fmt: skip
        yield histogram_family(
            "headwater_stream_freshness_seconds", "From the broker's time of an event to its rows being written.",
            ("view",), {(view,): h for view, h in self._freshness.copy().items()},
        )  # fmt: skip
        yield histogram_family(
            "headwater_stream_flush_seconds", "From a batch's first script to Redis's last answer.",
            ("topic",), self._writes.copy(),
        )  # fmt: skip
        yield from super().collect()
