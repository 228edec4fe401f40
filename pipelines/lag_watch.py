"""Where the topics end, asked beside the batches: what the lag that monitors see is counted from.

Apart from the worker and the sink because both are asked for it, and neither waits for the answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelines.consumers import Place


class LagWatch:
    """`ends`: the next offset of each place that was asked for, as the broker last said it to a committed reader."""

    def __init__(self, kafka: Mapping[str, str], every: float = 1.0) -> None:
        self.ends: dict[Place, int] = {}
        self._admin = AdminClient({"reconnect.backoff.max.ms": 1_000, **kafka, "log_level": 0})
        self._every = every
        self._asked = float("-inf")
        self._pending: dict[TopicPartition, Any] = {}

    def look(self, places: Iterable[Place]) -> None:
        """Take the answers that are there, and ask again when it is time; never waits."""
        if self._pending and all(future.done() for future in self._pending.values()):
            answers, self._pending = self._pending, {}
            # Replaced and never changed: the endpoint's thread reads it.
            self.ends = dict(_answered(answers))
        if not self._pending and time.monotonic() - self._asked >= self._every:
            self._asked = time.monotonic()
            wanted = {TopicPartition(topic, p): OffsetSpec.latest() for topic, p in places}
            if wanted:
                self._pending = self._admin.list_offsets(
                    wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=10.0
                )


def _answered(answers: Mapping[TopicPartition, Any]) -> Iterable[tuple[Place, int]]:
    for place, future in answers.items():
        try:
            yield (place.topic, place.partition), future.result().offset
        except KafkaException:
            # What is wrong with a topic is the worker's to say; its lag is unknown.
            continue
