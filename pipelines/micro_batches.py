"""Micro-batches from Kafka: a consumer of the worker's group whose offsets come from elsewhere.

The positions of record lie in Redis, so this consumer never resets (`auto.offset.reset=error`),
reads only committed records, and takes each assigned partition's start from whoever uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from confluent_kafka import KafkaError

from headwater.errors import TopicChanged, Unreachable
from pipelines.consumers import Callbacks, ConfluentConsumer, Fault, GroupConsumer, Place, TopicBatch
from pipelines.librdkafka import LibrdkafkaConsumer, available
from pipelines.outages import Outages

_log = logging.getLogger("headwater.stream")
# One broker of several may be away without harm; librdkafka says so, too, when none is left.
_AWAY = {KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE}


class BeforeLogStart(Exception):
    """A position lies before the log's start: retention was faster than the worker."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic}[{partition}]")
        self.topic, self.partition = topic, partition


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
        settings = {
            "group.id": group, "session.timeout.ms": session_timeout_ms, "heartbeat.interval.ms": 1_000,
            # A full queue is asked again after 5 ms; librdkafka's own second is longer than a batch takes.
            "queued.min.messages": 200_000, "queued.max.messages.kbytes": 131_072, "fetch.queue.backoff.ms": 5,
            "max.partition.fetch.bytes": 8 << 20, "fetch.wait.max.ms": 5, "fetch.min.bytes": 1,
            "partition.assignment.strategy": "range", "topic.metadata.refresh.interval.ms": 5_000,
            "reconnect.backoff.max.ms": 2_000, **kafka, "enable.auto.commit": False, "auto.offset.reset": "error",
            "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 3,
        }  # fmt: skip
        kind = LibrdkafkaConsumer if available(settings) else ConfluentConsumer
        callbacks = Callbacks(self._on_assign, self._on_gone, self._on_error)
        self._consumer: GroupConsumer = kind(settings, topics, callbacks)

    def poll(self, most: int, wait: float) -> dict[str, TopicBatch]:
        """Up to `most` records that are there, waiting up to `wait` seconds for the first; empty where none came.

        Raises:
            BeforeLogStart: retention has taken a position.
            TopicChanged: a topic is gone.
        """
        self._assigned = False
        batches, faults = self._consumer.take(most, wait)
        if self._assigned and (batches or faults):
            # The group gave partitions anew in the middle: records from before and after overlap or leave a
            # gap between them, so none of them counts and all are read again from the positions.
            self.restart()
            return {}
        self._examine(faults)
        return batches

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
            self._consumer.assign(starts)
        return not self.held

    def turn(self) -> None:
        """Let the group's news in, records set aside: what follows a refusal (stream.md, 1)."""
        self._consumer.serve()

    def commit(self, nexts: Mapping[Place, int]) -> None:
        """Tell Kafka how far the rows are; for the monitors only."""
        mine = {place: offset for place, offset in nexts.items() if place in self.owned}
        if mine and "Kafka" not in self._outages:
            self._consumer.commit(mine)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _on_assign(self, places: set[Place]) -> None:
        self.owned = places
        self._assigned = True
        self._ends.clear()
        starts = self._starts(self.owned)
        self.held = starts is None
        self._consumer.assign(starts or {})

    def _on_gone(self, places: set[Place]) -> None:
        self.owned -= places

    def _on_error(self, code: int, text: str) -> None:
        if code in _AWAY:
            self._outages.away("Kafka", text)

    def _examine(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            if fault.code == KafkaError._PARTITION_EOF:
                self._ends[fault.topic, fault.partition] = fault.offset
            elif passes(fault.code):
                self._on_error(fault.code, fault.text)
            else:
                raise failure_of(fault)


def passes(code: int) -> bool:
    """Whether the consumer goes on by itself when what is wrong has passed."""
    return code in (*_AWAY, KafkaError._TRANSPORT, KafkaError._TIMED_OUT)


def failure_of(fault: Fault) -> Exception:
    """What a fault means for whoever reads its partition."""
    topic, partition = fault.topic, fault.partition
    if fault.code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        return BeforeLogStart(topic, partition)
    # 103 is INCONSISTENT_TOPIC_ID, for which confluent-kafka has no name.
    if fault.code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID, 103):
        return TopicChanged(
            f"Topic {topic!r} is gone or was made anew. Its rows belong to the old one; "
            f"run 'headwater apply' and 'headwater backfill' when the topic is as it should be."
        )
    return Unreachable(f"Kafka: {fault.text} (topic {topic}, partition {partition}).")
