"""Replay: a rejected event that fits by now goes into its topic again, and counts once.

The record that is sent is an event of its own, with a place of its own; the ledger TOPIC.replays says which place it
stands for. Both are written in one Kafka transaction:

1. `init_transactions` by an id of the topic: whoever replayed this topic before is fenced, and what it had sent
   without a commit is aborted.
2. Read the ledger to its end: nobody else can write to it now.
3. Send the events that it does not name, and learn their places.
4. Write these to the ledger; commit. Readers take committed records alone, so event and entry are there together or
   not at all.

A kill anywhere leaves either. The ledger is compacted by place, so it is kept as long as the topic's letters may be listed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headwater.errors import HeadwaterError, Unreachable
from headwater.events.timestamps import format_timestamp
from headwater.online.topic_facts import topic_facts
from headwater.plans.topics import TopicSettings, create_topics
from pipelines.dead_letters import committed_values

SUFFIX = ".replays"
REPLAY_OF, BROKER_TIME = "headwater-replay-of", "headwater-broker-time"
"""Headers of a replayed record, for people and other readers: the place and the broker's time of the first one."""
CHUNK = 500
TIMEOUT = 20.0
_TRANSACTION_MS = 20_000


class Entry(msgspec.Struct, frozen=True):
    """One line of the ledger: the event at a place was sent again, and lies at another. `at`: microseconds."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    as_partition: int
    as_offset: int
    at: int


_entry = msgspec.json.Decoder(Entry)


@dataclass(frozen=True)
class Original:
    """An event to send again: its place, its broker's time (microseconds), its bytes and its record's key."""

    partition: int
    offset: int
    broker_time: int
    raw: bytes
    key: bytes | None = None


Places = dict[tuple[int, int], Entry]
"""(partition, offset) of the rejected event -> its entry."""


def read_ledger(kafka: Mapping[str, str], topic: str, topic_id: str) -> Places:
    """What was replayed of a topic; of an earlier topic of that name nothing.

    Raises:
        Unreachable: no broker answers.
    """
    found: Places = {}
    for _, value in committed_values(kafka, [topic + SUFFIX]):
        try:
            entry = _entry.decode(value or b"")
        except msgspec.DecodeError:
            continue
        if entry.topic_id == topic_id:
            found.setdefault((entry.partition, entry.offset), entry)
    return found


def make_ledger(kafka: Mapping[str, str], topic: str, settings: TopicSettings) -> None:
    """Create the ledger where there is none.

    Raises:
        HeadwaterError: there is one that forgets.
        Unreachable: no broker answers, or it refuses.
    """
    name = topic + SUFFIX
    if name not in topic_facts(kafka, [name], offsets=False):
        alone = TopicSettings(partitions=1, replication=settings.replication)
        create_topics(kafka, [name], alone, {"cleanup.policy": "compact"})
    facts = topic_facts(kafka, [name], offsets=False).get(name)
    if facts is not None and not facts.compacted and facts.retention_ms is not None:
        raise HeadwaterError(
            f"Topic {name!r} says what was replayed, and forgets it after {facts.retention_ms // 1000} s: an event could "
            f"count twice then. Set cleanup.policy=compact on it."
        )


class Replayer:
    """Replays events of one topic; only one of them does so at a time, and a later one ends an earlier one."""

    def __init__(self, kafka: Mapping[str, str], topic: str, topic_id: str) -> None:
        """Steps 1 and 2.

        Raises:
            Unreachable: the broker does not answer.
            HeadwaterError: it has no transactions.
        """
        self._topic, self._topic_id = topic, topic_id
        self._producer = Producer(
            {"linger.ms": 5, **kafka, "transactional.id": f"headwater-replay-{topic}", "log_level": 0,
             "transaction.timeout.ms": _TRANSACTION_MS, "message.timeout.ms": _TRANSACTION_MS}
        )  # fmt: skip
        with self._failing("begin"):
            self._producer.init_transactions(TIMEOUT)
        self.done = read_ledger(kafka, topic, topic_id)

    def send(self, originals: Sequence[Original]) -> Iterator[Entry]:
        """3, 4. Send what was never sent, some hundreds a transaction; the entries of each are given when it is committed.

        Raises:
            HeadwaterError: another replay of this topic has begun.
            Unreachable: the broker did not take it; what was committed is not sent again.
        """
        left = [x for x in originals if (x.partition, x.offset) not in self.done]
        for i in range(0, len(left), CHUNK):
            entries = self._send_together(left[i : i + CHUNK])
            self.done |= {(e.partition, e.offset): e for e in entries}
            yield from entries

    def close(self) -> None:
        """Let go of the broker."""
        self._producer.flush(0)

    def _send_together(self, originals: Sequence[Original]) -> list[Entry]:
        with self._failing("replay"):
            self._producer.begin_transaction()
            try:
                entries = self._sent(originals)
                for e in entries:
                    key = f"{self._topic_id}/{e.partition}/{e.offset}"
                    self._producer.produce(self._topic + SUFFIX, msgspec.json.encode(e), key, partition=0)
                self.commit()
            except Unreachable:
                self._producer.abort_transaction(TIMEOUT)
                raise
        return entries

    def commit(self) -> None:
        """Commit what is sent; a step of its own so that tests can end the process on either side of it."""
        self._producer.commit_transaction(TIMEOUT)

    def _sent(self, originals: Sequence[Original]) -> list[Entry]:
        offsets: dict[tuple[int, int], int] = {}
        failures: list[str] = []

        def delivered(error: KafkaError | None, message: Message, original: Original) -> None:
            if error is not None:
                failures.append(error.str())
            else:
                offsets[original.partition, original.offset] = message.offset()

        for x in originals:
            headers = {
                REPLAY_OF: f"{self._topic}/{x.partition}/{x.offset}",
                BROKER_TIME: format_timestamp(x.broker_time),
            }
            self._producer.produce(
                # The partition is where its key went, whichever partitioner the producer had. The broker's own time
                # replaces this one, where the topic is of that kind.
                self._topic, x.raw, x.key, partition=x.partition, headers=headers, timestamp=x.broker_time // 1000,
                on_delivery=lambda error, message, x=x: delivered(error, message, x),
            )  # fmt: skip
        left = self._producer.flush(TIMEOUT)
        if left or failures:
            reason = failures[0] if failures else f"{left} are not acknowledged after {TIMEOUT:.0f} s"
            raise Unreachable(f"Topic {self._topic!r} did not take events again: {reason}. None of them counts.")
        now = time.time_ns() // 1000
        return [
            Entry(self._topic, self._topic_id, x.partition, x.offset, x.partition, offsets[x.partition, x.offset], now)
            for x in originals
        ]

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise _meaning(error.args[0], self._topic, what) from error


def _meaning(error: Any, topic: str, what: str) -> HeadwaterError:
    if error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
        return HeadwaterError(
            f"Another replay of topic {topic!r} has begun, so this one ended. What is in its ledger counts, once; run "
            f"'headwater dead-letters replay' again to see what is left."
        )
    if error.code() in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
        return HeadwaterError(
            f"The broker of topic {topic!r} has no transactions ({error.str()}), and without them an event could count "
            f"twice. Nothing was sent."
        )
    return Unreachable(f"Kafka did not {what} on topic {topic!r}: {error.str()}. What is committed is not sent again.")
