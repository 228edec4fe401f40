"""Keys of records are read again by place and value; whatever is not there is left out, and nobody waits for it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines.record_keys import Allowance, RecordKeys


@pytest.fixture
def topic(kafka: str) -> str:
    """4,000 records in partition 1, of which every fourth has no key, and none in partition 0."""
    name = f"keys-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka})
    [made] = admin.create_topics([NewTopic(name, 2, 1)]).values()
    made.result(20)
    producer = Producer({"bootstrap.servers": kafka})
    for i in range(4_000):
        producer.produce(name, b"v%d" % i, None if i % 4 == 0 else b"k%d" % i, partition=1)
        producer.poll(0)
    assert producer.flush(20) == 0
    return name


@pytest.fixture
def keys(kafka: str) -> Iterator[RecordKeys]:
    found = RecordKeys({"bootstrap.servers": kafka})
    yield found
    found.close()


def at(*offsets: int) -> dict[tuple[int, int], bytes | None]:
    return {(1, i): b"v%d" % i for i in offsets}


@pytest.mark.kafka
def test_keys_are_found_near_and_far_and_those_that_are_not_there_are_left_out(
    kafka: str, topic: str, keys: RecordKeys
) -> None:
    wanted = at(*range(3, 60, 7), 1_500, 3_998, 3_999, 4_000, 9_999) | {(0, 0): b"v0", (1, 5): b"another value"}
    there = [i for p, i in wanted if p == 1 and i < 4_000 and i % 4 and i != 5]
    assert keys.of(topic, wanted, 30) == {(1, i): b"k%d" % i for i in there}
    assert keys.of("there-is-no-such-topic", at(1), 30) == {}
    assert keys.of(topic, {}, 30) == {}
    admin = AdminClient({"bootstrap.servers": kafka})
    [cut] = admin.delete_records([TopicPartition(topic, 1, 30)]).values()
    cut.result(20)
    assert keys.of(topic, at(29, 31, 3_999), 30) == {(1, 31): b"k31", (1, 3_999): b"k3999"}


def test_a_broker_that_does_not_answer_is_not_waited_for_long() -> None:
    keys = RecordKeys({"bootstrap.servers": "127.0.0.1:1"})
    began = time.monotonic()
    assert keys.of("orders", at(1, 2), 0.3) == {}
    # Far below the default, on any machine: what is tested is that it ends.
    assert time.monotonic() - began < 60
    keys.close()


def test_a_flood_of_dead_letters_waits_for_keys_a_tenth_of_the_time() -> None:
    allowed, waited, now = Allowance(2.0, 0.1, 0.0), 0.0, 0.0
    for _ in range(1_000):
        # Each batch takes a second, and would wait for all that there is.
        begun, now = now, now + allowed.left(now)
        waited += now - begun
        allowed.took(begun, now)
        now += 1.0
    assert waited == pytest.approx(2.0 + 999 * 0.1)
    # After a quiet hour there are two seconds again, and no more.
    assert allowed.left(now + 3_600) == 2.0
    allowed.took(now + 3_600, now + 3_605)
    assert allowed.left(now + 3_605) == 0.0
