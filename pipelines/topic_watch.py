"""Notices that a topic was deleted and made anew under a running worker.

A consumer does not: it goes on at its offset, in the middle of another log. Apart from the worker because
the broker is asked beside the batches, and no batch waits for the answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient


class TopicWatch:
    """Asks for the topics' ids every so many seconds; `changed` takes the answers that are there.

    `answered`: when the last question that got an answer was asked (the monotonic clock).
    """

    def __init__(self, kafka: Mapping[str, str], every: float = 1.0) -> None:
        self._admin = AdminClient({"reconnect.backoff.max.ms": 1_000, **kafka, "log_level": 0})
        self._every = every
        self._asked = self.answered = float("-inf")
        self._pending: dict[str, Any] = {}

    def changed(self, ids: Mapping[str, Iterable[str | None]]) -> bool:
        """Whether a topic (name -> ids it is known by) seems to be gone or another one; never waits."""
        if not self._pending and ids and time.monotonic() - self._asked >= self._every:
            self._asked = time.monotonic()
            self._pending = self._admin.describe_topics(TopicCollection(list(ids)), request_timeout=10.0)
        if not self._pending or not all(future.done() for future in self._pending.values()):
            return False
        answers, self._pending = self._pending, {}
        return any(self._other(future, set(ids[name])) for name, future in answers.items() if name in ids)

    def _other(self, future: Any, known: set[str | None]) -> bool:
        try:
            found = str(future.result().topic_id)
        except KafkaException as error:
            # A broker that is away says nothing of its topics.
            return bool(error.args[0].name() == "UNKNOWN_TOPIC_OR_PART")
        self.answered = self._asked
        return found not in known
