"""When a project's workers have caught up with their topics, whoever of them owns which partition."""

from __future__ import annotations

import time
from collections.abc import Mapping

from headwater.errors import HeadwaterError, Unreachable
from headwater.online.connection import Connection
from headwater.online.plan_store import load_fill, load_published, read_positions, source_of
from headwater.online.published import Fill, stream_fills
from headwater.online.topic_facts import TopicFacts, topic_facts


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
