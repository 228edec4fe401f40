"""How long an event takes from the broker to a reader, measured from outside of the worker.

A file of its own because it shares nothing with the worker but Redis and Kafka: it sends one event,
takes the time that the broker stamped on it, and reads the row until the row says that the event is in.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headwater.errors import Unreachable, UsageError
from headwater.events.admission import Admission
from headwater.events.select import select
from headwater.online.connection import Connection
from headwater.online.keys import entity_key, row_prefix
from headwater.online.published import PublishedPlan
from headwater.plans.plan import StreamView
from headwater.rows.codec import read_header

_PAUSE = 0.0005
"""Seconds between two reads of a row: what the measure may be late by."""


@dataclass
class Freshness:
    """Milliseconds from the broker's timestamp (whole milliseconds) to the moment a reader saw the event.

    `missed` counts events that no read showed within the patience.
    """

    milliseconds: list[float] = field(default_factory=list)
    missed: int = 0

    def percentile(self, percent: float) -> float:
        """The percentile over all events that were seen; NaN where none was."""
        return float(np.percentile(self.milliseconds, percent)) if self.milliseconds else float("nan")


class FreshnessProbe:
    """Sends events one by one and watches the rows of one view.

    Args:
        kafka: librdkafka settings with bootstrap.servers.
        view: the name of a StreamView that is active.

    Raises:
        UsageError: the view is not one.
        Unreachable: Kafka does not take an event (`measure`), or Redis does not answer.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        connection: Connection,
        published: PublishedPlan,
        view: str,
        patience: float = 2.0,
    ) -> None:
        from confluent_kafka import Producer

        active = published.active.get(view)
        if active is None or not isinstance(active.definition, StreamView):
            raise UsageError(f"Expected an active stream view, got '{view}'. Run 'headwater apply' first.")
        self.connection, self.view, self.patience = connection, active.definition, patience
        plan = published.plan
        self.prefix = row_prefix(plan.project, view, self.view.state_hash, active.fill)
        self.source = plan.source(self.view.source)
        self.admission = Admission(self.source)
        self.producer = Producer({**kafka, "linger.ms": 0, "acks": "all"})

    def measure(self, records: Iterable[tuple[bytes | None, bytes]], rate: float) -> Freshness:
        """Send (key, value) records in order, at most `rate` a second, and measure those that reach a row."""
        result = Freshness()
        due = time.monotonic()
        for key, value in records:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 1) + 1 / rate
            partition, offset, stamped = self._send(key, value)
            row = self._row_of(value, partition, offset, stamped)
            if row is not None:
                self._watch(row, partition, offset, stamped, result)
        return result

    def _send(self, key: bytes | None, value: bytes) -> tuple[int, int, int]:
        delivered: list[tuple[Any, Any]] = []
        self.producer.produce(
            self.source.topic, value, key, on_delivery=lambda error, at: delivered.append((error, at))
        )
        self.producer.flush(20)
        error, at = delivered[0] if delivered else ("no answer within 20 s", None)
        if error is not None or at is None:
            raise Unreachable(f"Kafka did not take an event for topic '{self.source.topic}': {error}.")
        return at.partition(), at.offset(), at.timestamp()[1]

    def _row_of(self, value: bytes, partition: int, offset: int, stamped: int) -> bytes | None:
        """The key of the row that the event goes into; None where the view does not take it."""
        place = [np.array([number], np.int64) for number in (partition, offset, stamped * 1000)]
        selected = select(self.view, self.admission.admit([value], place[0], place[1], place[2]).events)
        if not len(selected):
            return None
        return self.prefix + entity_key([key.to_list()[0] for key in selected.keys])

    def _watch(self, row: bytes, partition: int, offset: int, stamped: int, result: Freshness) -> None:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            data = self.connection.command("GET", row)
            seen = time.time()
            if data is not None and _applied(data, partition) >= offset:
                result.milliseconds.append(seen * 1000 - stamped)
                return
            time.sleep(_PAUSE)
        result.missed += 1


def _applied(data: bytes, partition: int) -> int:
    return next((applied for at, _, applied in read_header(data).partitions if at == partition), -1)
