"""What is said in time, before something is lost: a Redis that would lose rows, and lag that retention will overtake."""

from __future__ import annotations

import json
import logging
import time

import pytest
from confluent_kafka import Producer

from headwater.lake import Lake
from headwater.online.connection import Connection
from pipelines.lag_alarms import LagAlarms
from tests.pipelines.stream_world import DAY, World, random_events

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
RIGHT = {"maxmemory-policy": "noeviction", "appendonly": "yes", "save": ""}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"maxmemory-policy": "allkeys-lru"}, ["deletes rows without a word"]),
        # It eats rows with an expiry alone: all windowed ones.
        ({"maxmemory-policy": "volatile-ttl"}, ["deletes rows without a word"]),
        ({"appendonly": "no"}, ["a restart loses all rows and positions"]),
        ({"appendonly": "no", "save": "60 1000"}, []),
        ({"appendonly": "no", "maxmemory-policy": "volatile-lru"}, ["maxmemory-policy noeviction", "appendonly yes"]),
    ],
    ids=lambda x: " ".join(f"{k}={v}" for k, v in x.items()) or "right" if isinstance(x, dict) else "",
)
def test_a_worker_says_at_its_start_what_redis_may_lose(
    own_redis, kafka: str, caplog: pytest.LogCaptureFixture, settings: dict[str, str], expected: list[str]
) -> None:
    with Connection(own_redis.url) as connection:
        for name, value in (RIGHT | settings).items():
            connection.command("CONFIG", "SET", name, value)
    world = World(own_redis.url, kafka, partitions=1)
    world.publish()
    with caplog.at_level(logging.WARNING, "headwater.stream"):
        world.catch_up()
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == len(expected), said
    assert all(part in text for part, text in zip(expected, said, strict=True)), said


@pytest.mark.parametrize("age_days", [2, 5])
def test_worker_and_sink_warn_once_when_their_lag_passes_half_of_the_retention(
    redis_url: str, kafka: str, tmp_path, caplog: pytest.LogCaptureFixture, age_days: int
) -> None:
    config = {"message.timestamp.type": "CreateTime", "retention.ms": str(7 * DAY // 1000)}
    world, lake = World(redis_url, kafka, partitions=1, config=config), Lake(str(tmp_path / "lake"))
    world.publish()
    producer, then = Producer(world.kafka), time.time_ns() // 1_000_000 - age_days * DAY // 1000
    for i, event in enumerate(random_events(30)):
        producer.produce(world.topic, json.dumps(event), partition=0, timestamp=then + i)
    assert producer.flush(20) == 0
    with caplog.at_level(logging.WARNING, "headwater"):
        world.catch_up(batch=10)
        world.sink(lake)
    said = [r.getMessage() for r in caplog.records if "lengthen retention.ms" in r.getMessage()]
    assert [("the worker reads" in s, "the sink reads" in s) for s in said] == (
        [(True, False), (False, True)] if age_days == 5 else []
    )
    assert all(f"'{world.topic}'" in s and "the topic keeps 604800 s" in s for s in said)


def test_a_lag_is_warned_of_again_only_after_it_was_caught_up(caplog: pytest.LogCaptureFixture) -> None:
    alarms = LagAlarms(logging.getLogger("headwater.stream"), "the worker")
    with caplog.at_level(logging.WARNING, "headwater.stream"):
        #                   kept: 10 s        late       on time    late again
        for topic, age in [("a", 5), ("a", 6), ("a", 7), ("a", 1), ("a", 8), ("b", 9)]:
            alarms.look(topic, 0, age * 1_000_000, 10_000)
        for kept in (None, -1):
            alarms.look("c", 0, 100 * DAY, kept)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["Topic 'a'", "Topic 'a'", "Topic 'b'"]
