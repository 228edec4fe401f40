"""Micro-batches from Kafka: a consumer of the worker's group whose offsets come from elsewhere.

The positions of record lie in Redis, so this consumer never resets (`auto.offset.reset=error`),
reads only committed records, and takes each assigned partition's start from whoever uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from numpy.typing import NDArray

from headwater.errors import TopicChanged, Unreachable
from pipelines.outages import Outages

BLOCK = 2_000
Place = tuple[str, int]
"""A topic and a partition."""

_log = logging.getLogger("headwater.stream")
# One broker of several may be away without harm; librdkafka says so, too, when none is left.
_AWAY = {KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE}


class BeforeLogStart(Exception):
    """A position lies before the log's start: retention was faster than the worker."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic}[{partition}]")
        self.topic, self.partition = topic, partition


@dataclass(slots=True)
class TopicBatch:
    """Records of one topic. Arrays have one item a record, times are microseconds; `nexts` is the position
    behind them by partition; `timestamp_type` is Kafka's (1 the producer's time, 2 the broker's)."""

    values: list[bytes | None] = field(default_factory=list)
    partition: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    offset: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    broker_time: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    timestamp_type: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    nexts: dict[int, int] = field(default_factory=dict)


class Batches(Protocol):
    """Where a worker's micro-batches come from. `owned`: the places read; `held`: whether `restart` is due.

    A batch is the worker's from one `poll` to the next; after `restart`, which drops it, reading begins at the
    positions again.
    """

    owned: set[Place]
    held: bool

    def poll(self, most: int, wait: float) -> dict[str, TopicBatch]:
        """A batch of each topic that has one; at most `most` records, waiting up to `wait` seconds."""

    def ends_reached(self) -> dict[Place, int]:
        """Offsets past which there is no record, however few a poll gave; right when it gave nothing."""

    def restart(self) -> bool:
        """Read from the positions again; False where they are unknown."""

    def turn(self) -> None:
        """Called after a refusal, before `restart`."""

    def commit(self, nexts: Mapping[Place, int]) -> None:
        """Tell Kafka how far the rows are."""

    def close(self) -> None:
        """Leave the servers."""


class MicroBatches:
    """Polls micro-batches of the partitions that the group gives this worker.

    `starts` is asked for the offsets of newly assigned places and must not raise; where it gives None the
    places are held back until `restart` is called. `owned` is the set of places assigned now. `outages` is
    told when no broker answers; that one is back is for the caller to say, since records that were fetched
    before keep coming.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        group: str,
        topics: Sequence[str],
        starts: Callable[[Iterable[Place]], dict[Place, int] | None],
        *,
        outages: Outages | None = None,
        session_timeout_ms: int = 6_000,
    ) -> None:
        self.owned: set[Place] = set()
        self.held = False
        self._starts = starts
        self._outages = outages or Outages(_log)
        self._assigned = False
        self._ends: dict[Place, int] = {}
        self._consumer = Consumer(
            {
                "group.id": group, "session.timeout.ms": session_timeout_ms, "heartbeat.interval.ms": 1_000,
                "queued.min.messages": 200_000, "max.partition.fetch.bytes": 8 << 20, "fetch.wait.max.ms": 5,
                "fetch.min.bytes": 1, "partition.assignment.strategy": "range",
                "topic.metadata.refresh.interval.ms": 5_000,
                "reconnect.backoff.max.ms": 2_000, **kafka, "enable.auto.commit": False, "auto.offset.reset": "error",
                "isolation.level": "read_committed", "enable.partition.eof": True, "error_cb": self._on_error,
                "logger": _quiet(), "log_level": 3,
            }
        )  # fmt: skip
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_gone, on_lost=self._on_gone
        )

    def poll(self, most: int, wait: float) -> dict[str, TopicBatch]:
        """Up to `most` records that are there, waiting up to `wait` seconds for the first; empty where none came.

        Raises:
            BeforeLogStart: retention has taken a position.
            TopicChanged: a topic is gone.
        """
        messages: list[Message] = []
        self._assigned = False
        while len(messages) < most:
            more = self._consumer.consume(min(BLOCK, most - len(messages)), wait if not messages else 0)
            if not more:
                break
            messages += more
            if len(more) < BLOCK:
                wait = 0
        if self._assigned and messages:
            # The group gave partitions anew in the middle: records from before and after overlap or leave a
            # gap between them, so none of them counts and all are read again from the positions.
            self.restart()
            return {}
        good = [m for m in messages if m.error() is None]
        if len(good) < len(messages):
            self._examine([m for m in messages if m.error() is not None])
        return self._grouped(good)

    def ends_reached(self) -> dict[Place, int]:
        """Places read to their end since they were (re)started, and the next offset there: past aborted
        transactions and their markers too, where no record leads. Right only when a poll gave nothing.

        librdkafka's events of reaching an end say so in the order of the records. `consumer.position()`
        does not do here: for a while after `restart` it is still the position from before.
        """
        return {place: offset for place, offset in self._ends.items() if place in self.owned}

    def restart(self) -> bool:
        """Ask for the starts of all owned places again and read from there; False where they are still unknown."""
        starts = self._starts(self.owned) if self.owned else {}
        self._ends.clear()
        self.held = starts is None
        if starts:
            self._consumer.assign([TopicPartition(t, p, o) for (t, p), o in starts.items()])
        return not self.held

    def turn(self) -> None:
        """Let the group's news in, records set aside: what follows a refusal (stream.md, 1)."""
        self._consumer.poll(0)

    def commit(self, nexts: Mapping[Place, int]) -> None:
        """Tell Kafka how far the rows are; for the monitors only."""
        places = [TopicPartition(t, p, o) for (t, p), o in nexts.items() if (t, p) in self.owned]
        if places and "Kafka" not in self._outages:
            self._consumer.commit(offsets=places, asynchronous=True)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _grouped(self, messages: list[Message]) -> dict[str, TopicBatch]:
        by_topic: dict[str, list[Message]] = {}
        for m in messages:
            by_topic.setdefault(m.topic(), []).append(m)
        return {topic: self._batch(topic, ms) for topic, ms in by_topic.items()}

    def _batch(self, topic: str, messages: list[Message]) -> TopicBatch:
        n = len(messages)
        partition = np.fromiter(map(Message.partition, messages), np.int64, n)
        offset = np.fromiter(map(Message.offset, messages), np.int64, n)
        kinds, stamps = zip(*map(Message.timestamp, messages), strict=True)
        nexts = {}
        for p in np.unique(partition).tolist():
            nexts[p] = int(offset[partition == p].max()) + 1
        return TopicBatch(
            list(map(Message.value, messages)), partition, offset, np.array(stamps, np.int64) * 1000,
            np.array(kinds, np.int8), nexts,
        )  # fmt: skip

    def _on_assign(self, consumer: Any, places: list[TopicPartition]) -> None:
        self.owned = {(x.topic, x.partition) for x in places}
        self._assigned = True
        self._ends.clear()
        starts = self._starts(self.owned)
        self.held = starts is None
        if starts is None:
            consumer.assign([])
        else:
            consumer.assign([TopicPartition(t, p, o) for (t, p), o in starts.items()])

    def _on_gone(self, consumer: Any, places: list[TopicPartition]) -> None:
        self.owned -= {(x.topic, x.partition) for x in places}

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _AWAY:
            self._outages.away("Kafka", error.str())

    def _examine(self, messages: list[Message]) -> None:
        for m in messages:
            if m.error().code() == KafkaError._PARTITION_EOF:
                self._ends[m.topic(), m.partition()] = m.offset()
            elif passes(m.error()):
                self._on_error(m.error())
            else:
                raise failure_of(m)


def passes(error: KafkaError) -> bool:
    """Whether the consumer goes on by itself when what is wrong has passed."""
    return error.code() in (*_AWAY, KafkaError._TRANSPORT, KafkaError._TIMED_OUT)


def failure_of(message: Message) -> Exception:
    """What a message that is an error means for whoever reads its partition."""
    code, topic, partition = message.error().code(), message.topic(), message.partition()
    if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        return BeforeLogStart(topic, partition)
    # 103 is INCONSISTENT_TOPIC_ID, for which confluent-kafka has no name.
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID, 103):
        return TopicChanged(
            f"Topic {topic!r} is gone or was made anew. Its rows belong to the old one; "
            f"run 'headwater apply' and 'headwater backfill' when the topic is as it should be."
        )
    return Unreachable(f"Kafka: {message.error().str()} (topic {topic}, partition {partition}).")


def _quiet() -> logging.Logger:
    """librdkafka's own lines: errors reach us as events, so its log says them twice."""
    logger = logging.getLogger("headwater.librdkafka")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


__all__ = ["BeforeLogStart", "KafkaException", "MicroBatches", "Place", "TopicBatch"]
