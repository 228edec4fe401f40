"""When a project's workers, or its sinks, have caught up with their topics, whoever owns which partition."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from headwater.errors import HeadwaterError, Unreachable
from headwater.online.connection import Connection
from headwater.online.plan_store import load_fill, load_published, read_positions, source_of
from headwater.online.published import Fill, stream_fills
from headwater.online.topic_facts import TopicFacts, topic_facts

if TYPE_CHECKING:
    from headwater.lake import Lake
    from pipelines.consumers import Place


class CaughtUp:
    """Says when the positions of all partitions, whoever owns them, have reached the ends read at the start."""

    def __init__(self, redis_url: str, kafka: Mapping[str, str], project: str) -> None:
        self._project, self._kafka = project, dict(kafka)
        self._connection = Connection(redis_url)
        self._facts: dict[str, TopicFacts] | None = None
        self._asked = 0.0
        self.remaining = self.total = 0

    def __call__(self) -> bool:
        if time.monotonic() - self._asked < 0.2:
            return False
        self._asked = time.monotonic()
        try:
            if not self._connection.connected:
                self._connection.reconnect()
            return self._reached()
        except Unreachable:
            return False

    def _reached(self) -> bool:
        plan = load_published(self._connection, self._project)
        if plan is None:
            raise HeadwaterError(f"Project {self._project!r} has no plan in Redis. Publish one with 'headwater apply'.")
        sources = [(view, fill_id, source_of(plan, view)) for view, fill_id in stream_fills(plan)]
        if self._facts is None:
            self._facts = topic_facts(self._kafka, {source.topic for _, _, source in sources if source is not None})
        behind = 0
        for view, fill_id, source in sources:
            if source is not None and source.topic in self._facts:
                fill = load_fill(self._connection, self._project, view.name, fill_id)
                behind += self._behind(fill, self._facts[source.topic])
        self.total = max(self.total, behind)
        self.remaining = behind
        return behind == 0

    def _behind(self, fill: Fill | None, topic: TopicFacts) -> int:
        """Events that the fill still lacks; none for one that no worker can feed: it waits for a backfill."""
        if fill is None or fill.topic_id != topic.id:
            return 0
        positions = read_positions(self._connection, self._project, fill, topic.partitions)
        if not positions or any(at < topic.starts[p] for p, at in positions.items()):
            return 0
        return sum(max(0, end - positions.get(p, 0)) for p, end in topic.ends.items())


class LakeCaughtUp:
    """Whether the lake's positions of all partitions, whoever owns them, reach the ends seen at the start."""

    def __init__(self, kafka: Mapping[str, str], lake: Lake, topics: Iterable[str]) -> None:
        self._lake = lake
        self._starts: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        for topic, facts in topic_facts(kafka, topics).items():
            self._starts |= {(topic, p): start for p, start in facts.starts.items()}
            self._ends |= {(topic, p): end for p, end in facts.ends.items() if end > facts.starts[p]}
        self.total = sum(end - self._starts[place] for place, end in self._ends.items())
        self.remaining = self.total

    def __call__(self) -> bool:
        """Ask the lake; `remaining` says how many offsets are still missing."""
        positions = {topic: self._lake.positions(topic) for topic in {topic for topic, _ in self._ends}}
        missing = 0
        for (topic, partition), end in self._ends.items():
            at = positions[topic].get(partition, self._starts[topic, partition])
            missing += max(0, end - max(at, self._starts[topic, partition]))
        self.remaining = missing
        return missing == 0
