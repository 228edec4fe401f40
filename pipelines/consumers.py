"""A consumer of a group, as micro-batches need it: records as arrays, faults as plain data; and the one of confluent-kafka.

Apart from micro_batches.py because there are two: this one makes an object a record, and librdkafka.py, where the
compiled library is there, does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition
from numpy.typing import NDArray

Place = tuple[str, int]
"""A topic and a partition."""

_BLOCK = 2_000


@dataclass(slots=True)
class TopicBatch:
    """Records of one topic. Arrays have one item a record, times are microseconds; `nexts` is the position
    behind them by partition; `timestamp_type` is Kafka's (1 the producer's time, 2 the broker's)."""

    values: Sequence[bytes | None] = field(default_factory=list)
    partition: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    offset: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    broker_time: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    timestamp_type: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    nexts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """What stands in a partition's place of a record: an error (librdkafka's code), or that its end is reached."""

    code: int
    text: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Callbacks:
    """Whom a consumer tells what: called within `take`, `serve` and `close`, and must not raise."""

    assigned: Callable[[set[Place]], None]
    gone: Callable[[set[Place]], None]
    failed: Callable[[int, str], None]


class GroupConsumer(Protocol):
    """Reads the partitions that a group gives it, from wherever `assign` says."""

    def take(self, most: int, wait: float) -> tuple[dict[str, TopicBatch], list[Fault]]:
        """What is there, at most `most` records and faults, waiting up to `wait` seconds for the first."""

    def assign(self, places: Mapping[Place, int]) -> None:
        """Read these places from these offsets on, and no others."""

    def serve(self) -> None:
        """Let the group's news in, records set aside."""

    def commit(self, nexts: Mapping[Place, int]) -> None:
        """Tell Kafka these offsets, without waiting."""

    def close(self) -> None:
        """Leave the group."""


class ConfluentConsumer:
    """The consumer of confluent-kafka."""

    def __init__(self, settings: Mapping[str, Any], topics: Sequence[str], callbacks: Callbacks) -> None:
        self._consumer = Consumer(
            {**settings, "error_cb": lambda error: callbacks.failed(error.code(), error.str()), "logger": _quiet()}
        )
        self._consumer.subscribe(
            list(topics),
            on_assign=lambda _, places: callbacks.assigned(_places(places)),
            on_revoke=lambda _, places: callbacks.gone(_places(places)),
            on_lost=lambda _, places: callbacks.gone(_places(places)),
        )

    def take(self, most: int, wait: float) -> tuple[dict[str, TopicBatch], list[Fault]]:
        """As `GroupConsumer`."""
        # `consume` waits until it has all that it was asked for: so for one record, then for what is there.
        messages: list[Message] = self._consumer.consume(1, wait) if wait else []
        while len(messages) < most:
            more = self._consumer.consume(min(_BLOCK, most - len(messages)), 0)
            messages += more
            if len(more) < _BLOCK:
                break
        good = [m for m in messages if m.error() is None]
        return _grouped(good), [] if len(good) == len(messages) else [fault_of(m) for m in messages if m.error()]

    def assign(self, places: Mapping[Place, int]) -> None:
        """As `GroupConsumer`."""
        self._consumer.assign([TopicPartition(t, p, o) for (t, p), o in places.items()])

    def serve(self) -> None:
        """As `GroupConsumer`."""
        self._consumer.poll(0)

    def commit(self, nexts: Mapping[Place, int]) -> None:
        """As `GroupConsumer`."""
        self._consumer.commit(offsets=[TopicPartition(t, p, o) for (t, p), o in nexts.items()], asynchronous=True)

    def close(self) -> None:
        """As `GroupConsumer`."""
        self._consumer.close()


def batch_of(
    values: Sequence[bytes | None], partition: NDArray[np.int64], offset: NDArray[np.int64],
    time: NDArray[np.int64], kinds: NDArray[np.int8],
) -> TopicBatch:  # fmt: skip
    """A batch of records; `time` in Kafka's milliseconds."""
    last = np.full(int(partition.max(initial=0)) + 1, -1)
    np.maximum.at(last, partition, offset)
    nexts = {p: int(last[p]) + 1 for p in np.flatnonzero(last >= 0).tolist()}
    return TopicBatch(values, partition, offset, time * 1000, kinds, nexts)


def _places(places: Iterable[TopicPartition]) -> set[Place]:
    return {(x.topic, x.partition) for x in places}


def fault_of(m: Message) -> Fault:
    """What a message that is an error says."""
    return Fault(m.error().code(), m.error().str(), m.topic() or "", m.partition(), m.offset())


def _grouped(messages: list[Message]) -> dict[str, TopicBatch]:
    by_topic: dict[str, list[Message]] = {}
    for m in messages:
        by_topic.setdefault(m.topic(), []).append(m)
    return {topic: _batch(of) for topic, of in by_topic.items()}


def _batch(messages: list[Message]) -> TopicBatch:
    n = len(messages)
    kinds, stamps = zip(*map(Message.timestamp, messages), strict=True)
    return batch_of(
        list(map(Message.value, messages)),
        np.fromiter(map(Message.partition, messages), np.int64, n),
        np.fromiter(map(Message.offset, messages), np.int64, n),
        np.array(stamps, np.int64), np.array(kinds, np.int8),
    )  # fmt: skip


def _quiet() -> logging.Logger:
    """librdkafka's own lines: errors reach us as events, so its log says them twice."""
    logger = logging.getLogger("headwater.librdkafka")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
