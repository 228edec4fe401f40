"""Dead letters: events that could not be taken, kept in the topic TOPIC.dead-letters with their reasons.

A dead letter is JSON, keyed by ``TOPIC/PARTITION/OFFSET`` of the event that it speaks of::

    {"topic": "orders", "partition": 0, "offset": 17, "kind": "dead-letter", "reason": "…",
     "raw": "{\\"at\\": 1",                      # or "raw_base64" where the bytes are not UTF-8, null for none
     "key": "17850"}                           # of the event's record; or "key_base64", in the same way

They are acknowledged before the position moves, so a crash may send one twice and loses none; whoever lists
them takes each place once.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from msgspec import structs

from headwater.errors import Unreachable
from headwater.events.admission import Rejected
from headwater.online.topic_facts import topic_facts
from pipelines.record_keys import Allowance, RecordKeys

SUFFIX = ".dead-letters"
TIMEOUT = 15.0
_MOST = 900_000
"""Bytes of a letter; Kafka takes a million by default. The lake keeps the whole event all the same."""
_KEPT = 100_000
_KEYS_MOST, _KEYS_SHARE = 2.0, 0.1
"""Seconds that a batch waits for keys (9 ms for a letter that lies alone), and the share of a worker's time that it may
cost where many events are none. A replay asks again for what was not found."""


class DeadLetter(msgspec.Struct, frozen=True):
    """One event that was not admitted. Either `raw` or `raw_base64` is set, or neither for a null payload.

    `key` and `key_base64` are the record's in the same way: neither where it has none, or the letter is an older one.
    """

    topic: str
    partition: int
    offset: int
    kind: str
    reason: str
    raw: str | None = None
    raw_base64: str | None = None
    key: str | None = None
    key_base64: str | None = None

    @property
    def key_bytes(self) -> bytes | None:
        """The key of the event's record, as it came."""
        return self.key.encode() if self.key is not None else base64.b64decode(self.key_base64 or "") or None

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset: what a dead letter is listed once for."""
        return self.topic, self.partition, self.offset

    @classmethod
    def of(cls, topic: str, rejected: Rejected, key: bytes | None = None) -> DeadLetter:
        """The dead letter of a rejected event."""
        x = rejected
        return cls(topic, x.partition, x.offset, x.kind, x.reason, *readable(x.raw), *readable(key))


_letter = msgspec.json.Decoder(DeadLetter)


class DeadLetters:
    """Sends dead letters and waits until the broker has them."""

    def __init__(self, kafka: Mapping[str, str]) -> None:
        self._failures: list[str] = []
        self._keys, self._time = RecordKeys(kafka), Allowance(_KEYS_MOST, _KEYS_SHARE, time.monotonic())
        self._producer = Producer(
            {**kafka, "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": int(TIMEOUT * 1000),
             "delivery.report.only.error": True, "log_level": 0}
        )  # fmt: skip

    def send(self, topic: str, rejected: Sequence[Rejected]) -> None:
        """Send the rejected events of a topic; returns when all of them are acknowledged.

        Raises:
            Unreachable: the broker did not take one; sending all of them again is safe.
        """
        self._failures.clear()
        keys = self._keys_of(topic, rejected)
        for one in rejected:
            value = _encoded(topic, one, keys.get((one.partition, one.offset)))
            self._queue(topic + SUFFIX, f"{topic}/{one.partition}/{one.offset}", value)
        left = self._producer.flush(TIMEOUT + 5)
        if left or self._failures:
            reason = self._failures[0] if self._failures else f"{left} are not acknowledged after {TIMEOUT:.0f} s"
            raise Unreachable(f"Dead letters of topic {topic!r} were not taken by {topic + SUFFIX!r}: {reason}.")

    def close(self) -> None:
        """Let go of the broker; nothing is pending after `send`."""
        self._producer.flush(0)
        self._keys.close()

    def _keys_of(self, topic: str, rejected: Sequence[Rejected]) -> dict[tuple[int, int], bytes]:
        begun = time.monotonic()
        keys = self._keys.of(topic, {(x.partition, x.offset): x.raw for x in rejected}, self._time.left(begun))
        self._time.took(begun, time.monotonic())
        return keys

    def _queue(self, topic: str, key: str, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error.str())


def _encoded(topic: str, rejected: Rejected, key: bytes | None) -> bytes:
    """The letter's JSON, with the beginning of the event alone where all of it would be too much for Kafka."""
    key = key if key is not None and len(key) <= _KEPT else None
    value = msgspec.json.encode(DeadLetter.of(topic, rejected, key))
    raw = rejected.raw or b""
    if len(value) <= _MOST:
        return value
    reason = f"{rejected.reason} ({len(raw)} bytes; here are the first {_KEPT}, the lake has all)"
    short = DeadLetter.of(topic, replace(rejected, reason=reason, raw=None), key)
    return msgspec.json.encode(structs.replace(short, raw_base64=base64.b64encode(raw[:_KEPT]).decode()))


def read_dead_letters(kafka: Mapping[str, str], topics: Sequence[str]) -> list[DeadLetter]:
    """All dead letters of the topics, each place once, by topic, partition and offset.

    Raises:
        Unreachable: no broker answers.
    """
    return [letter for letter, _ in read_letter_times(kafka, topics)]


def read_letter_times(kafka: Mapping[str, str], topics: Sequence[str]) -> list[tuple[DeadLetter, int]]:
    """As `read_dead_letters`, each with the broker's time (microseconds) of the last worker that sent it.

    Raises:
        Unreachable: no broker answers.
    """
    letters: dict[tuple[str, int, int], tuple[DeadLetter, int]] = {}
    for at, value in committed_values(kafka, [t + SUFFIX for t in topics]):
        letter = _parsed(value)
        if letter is not None:
            first, before = letters.get(letter.place, (letter, at))
            letters[letter.place] = first, max(at, before)
    return [letters[place] for place in sorted(letters)]


def committed_values(kafka: Mapping[str, str], topics: Sequence[str]) -> Iterable[tuple[int, bytes | None]]:
    """Broker time (microseconds) and value of every committed record of the topics that exist, up to their ends of now.

    Raises:
        Unreachable: no broker answers.
    """
    facts = topic_facts(kafka, topics)
    ends = {(f.name, p): end for f in facts.values() for p, end in f.ends.items() if end > f.starts[p]}
    return _values(kafka, [TopicPartition(t, p, facts[t].starts[p]) for t, p in ends], ends) if ends else ()


def _values(
    kafka: Mapping[str, str], starts: list[TopicPartition], ends: Mapping[tuple[str, int], int]
) -> Iterable[tuple[int, bytes | None]]:
    consumer = Consumer(
        {"group.id": "headwater-dead-letters", **kafka, "enable.auto.commit": False, "auto.offset.reset": "error",
         "isolation.level": "read_committed", "log_level": 0}
    )  # fmt: skip
    try:
        consumer.assign(starts)
        while any(x.offset < ends[x.topic, x.partition] for x in _positions(consumer, starts)):
            messages = consumer.consume(1_000, timeout=0.2)
            for message in messages:
                if message.error() is not None:
                    raise Unreachable(f"Kafka: {message.error().str()} (topic {message.topic()}).")
                yield message.timestamp()[1] * 1000, message.value()
    except KafkaException as error:
        raise Unreachable(f"Kafka did not give the dead letters: {error.args[0].str()}.") from error
    finally:
        consumer.close()


def _positions(consumer: Any, starts: list[TopicPartition]) -> list[TopicPartition]:
    """The consumer's positions: with transactions, the last record's offset plus one never catches up."""
    places = consumer.position([TopicPartition(x.topic, x.partition) for x in starts])
    return [x if x.offset >= 0 else start for x, start in zip(places, starts, strict=True)]


def _parsed(value: bytes | None) -> DeadLetter | None:
    """A dead letter, None for a record that somebody else put into the topic."""
    try:
        return _letter.decode(value or b"")
    except msgspec.DecodeError:
        return None


def readable(raw: bytes | None) -> tuple[str | None, str | None]:
    """Bytes as text, or as base64 where they are not UTF-8."""
    if raw is None:
        return None, None
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, base64.b64encode(raw).decode()


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """The letter as plain data, for people's scripts."""
    plain: dict[str, Any] = msgspec.to_builtins(letter)
    return plain
