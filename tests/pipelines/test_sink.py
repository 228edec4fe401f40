"""The sink on a real broker, Redis and Delta tables: every record once, whatever is killed or restarted."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.errors import TopicChanged
from headwater.lake import Lake
from headwater.lake.event_log import EventWriter
from headwater.lake.event_rows import event_schema
from headwater.online.connection import Connection
from headwater.online.plan_store import publish
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Expectation, Field, Plan, Source
from headwater.repository import load_repository
from pipelines.caught_up import LakeCaughtUp
from pipelines.sink import Sink

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
T = 1_700_000_000_000_000


class Shop:
    """A repository with one published source over a topic of its own."""

    def __init__(self, make_repository: Callable[..., Path], kafka: str, partitions: int = 3) -> None:
        self.root = make_repository(definitions="", kafka=kafka)
        self.repository = load_repository(self.root)
        self.lake = Lake(self.repository.lake)
        self.topic = f"orders-{uuid.uuid4().hex[:8]}"
        self.admin = AdminClient({"bootstrap.servers": kafka})
        self.kafka = kafka
        self.create(partitions)
        self.source = Source(
            name="orders", topic=self.topic, event_time="at", key="customer", tolerance=86_400_000_000,
            fields=(Field("at", "timestamp"), Field("customer", "int64")),
            expectations=(Expectation("between", "customer", 0, None),),
        )  # fmt: skip
        with Connection(self.repository.need_redis()) as connection:
            publish(connection, self.repository.kafka, Plan(self.repository.project, sources=(self.source,)))

    def create(self, partitions: int) -> None:
        config = {"message.timestamp.type": "LogAppendTime"}
        [done] = self.admin.create_topics([NewTopic(self.topic, partitions, 1, config=config)]).values()
        done.result(20)

    def produce(self, customers: range, partition: int | None = None, transactional: str | None = None) -> None:
        producer = Producer(
            {"bootstrap.servers": self.kafka, "linger.ms": 5}
            | ({"transactional.id": transactional} if transactional else {})
        )
        if transactional:
            producer.init_transactions(20)
            producer.begin_transaction()
        for n in customers:
            value = json.dumps({"at": T + n, "customer": n})
            producer.produce(self.topic, value, str(n), partition=n % 3 if partition is None else partition)
        assert producer.flush(20) == 0
        if transactional and "abort" in transactional:
            producer.abort_transaction(20)
        elif transactional:
            producer.commit_transaction(20)

    def sink(self) -> None:
        """Run a sink in this process until the lake has all that is in the topic now."""
        kafka, redis = self.repository.kafka, self.repository.need_redis()
        caught_up = LakeCaughtUp(kafka, self.lake, [self.topic])
        Sink(redis, kafka, self.lake, self.repository.project).run(until=caught_up)

    def customers(self) -> list[int]:
        return sorted(self.lake.read_events(self.source)["customer"].to_pylist())

    def wait_for(self, count: int, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while self.lake.read_events(self.source).num_rows < count:
            assert time.monotonic() < deadline, f"{self.lake.read_events(self.source).num_rows} of {count} events"
            time.sleep(0.1)


@pytest.fixture
def shop(make_repository: Callable[..., Path], kafka: str) -> Shop:
    return Shop(make_repository, kafka)


def test_until_caught_up_keeps_every_record_once_and_again_adds_nothing(shop: Shop, headwater_here: Callable) -> None:
    shop.produce(range(1000))
    producer = Producer({"bootstrap.servers": shop.kafka})
    for value in (b"{", None, b'{"at": 1, "customer": -1}', b'{"at": "2999-01-01T00:00:00Z"}', b"\xff"):
        producer.produce(shop.topic, value, partition=1)
    producer.flush(20)
    for _ in range(2):
        headwater_here("sink", "--until-caught-up", repo=shop.root)
        assert shop.customers() == list(range(1000))
    snapshot = shop.lake.events(shop.topic)
    assert snapshot is not None
    assert snapshot.read_places().num_rows == 1005
    rejected = snapshot.read_rejected(shop.source).sort_by("_offset").to_pydict()
    assert rejected["_kind"] == ["dead-letter", "dead-letter", "quarantine", "dead-letter", "dead-letter"]
    assert rejected["_raw"][0] == b"{"
    assert "ahead of the broker's time" in rejected["_reason"][3]
    shop.produce(range(1000, 1010))
    headwater_here("sink", "--until-caught-up", repo=shop.root)
    assert shop.customers() == list(range(1010))


def test_transactions_are_read_committed_and_their_ends_are_reached(shop: Shop) -> None:
    shop.produce(range(10), transactional=f"{shop.topic}-commit")
    shop.produce(range(10, 20), transactional=f"{shop.topic}-abort")
    shop.sink()
    assert shop.customers() == list(range(10))
    shop.produce(range(20, 30), transactional=f"{shop.topic}-abort2")
    shop.sink()
    assert shop.customers() == list(range(10))


def test_two_sinks_killed_over_and_over_write_every_record_once(shop: Shop, start_headwater: Callable) -> None:
    def start() -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = start_headwater("sink", "--every", "0.1", repo=shop.root)
        return process

    sinks = [start(), start()]
    for round_ in range(6):
        shop.produce(range(round_ * 500, (round_ + 1) * 500))
        time.sleep(0.4 + 0.3 * round_)
        victim = sinks.pop(0)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        sinks.append(start())
    shop.wait_for(3000)
    for sink in sinks:
        sink.terminate()
        # -15: one that was started a moment ago, and had nothing in hand yet.
        assert sink.wait(20) in (0, -signal.SIGTERM)
    assert shop.customers() == list(range(3000))
    assert shop.lake.duplicates(shop.topic).num_rows == 0


def test_of_a_batch_that_another_sink_has_kept_in_part_only_the_rest_is_written(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, faster = EventWriter.append, list[int]()

    def overtaken(writer: EventWriter, rows, starts, ends) -> None:
        if not faster and ends.get(0, 0) > 1:
            faster.append(ends[0] // 2)
            other = shop.lake.writer(shop.source, writer.topic_id)
            append(other, rows.filter(pc.field("_offset") < faster[0]), {0: 0}, {0: faster[0]})
        append(writer, rows, starts, ends)

    monkeypatch.setattr(EventWriter, "append", overtaken)
    shop.produce(range(30), partition=0)
    shop.sink()
    assert faster
    assert shop.customers() == list(range(30))
    assert shop.lake.duplicates(shop.topic).num_rows == 0


def test_a_recreated_topic_stops_the_sink_and_nothing_of_it_is_written(shop: Shop) -> None:
    shop.produce(range(30))
    shop.sink()
    [done] = shop.admin.delete_topics([shop.topic]).values()
    done.result(20)
    while shop.topic in shop.admin.list_topics(timeout=10).topics:
        time.sleep(0.05)
    shop.create(3)
    shop.produce(range(100, 200))
    with pytest.raises(TopicChanged, match="was deleted and created again"):
        shop.sink()
    assert shop.customers() == list(range(30))


def test_a_topic_recreated_under_a_running_sink_stops_it(shop: Shop, start_headwater: Callable) -> None:
    sink = start_headwater("sink", "--every", "0.2", repo=shop.root)
    shop.produce(range(30))
    shop.wait_for(30)
    [done] = shop.admin.delete_topics([shop.topic]).values()
    done.result(20)
    while shop.topic in shop.admin.list_topics(timeout=10).topics:
        time.sleep(0.05)
    shop.create(3)
    shop.produce(range(100, 400))
    said = sink.communicate(timeout=60)[0]
    assert sink.returncode == 1, said
    # Which of both is said depends on whether the group moved the partitions before the next batch was there.
    assert re.search(rf"Error: Topic '{shop.topic}' (is not the one that the lake was filled from|has the id)", said), (
        said
    )
    assert shop.customers() == list(range(30))


def test_a_lake_that_is_past_the_end_of_its_topic_stops_the_sink(shop: Shop) -> None:
    shop.produce(range(3))
    topic_id = topic_facts(shop.repository.kafka, [shop.topic])[shop.topic].id
    writer = shop.lake.writer(shop.source, topic_id)
    writer.append(event_schema(shop.source).empty_table(), {0: 0}, {0: 2})
    with pytest.raises(TopicChanged, match="up to offset 2, but the topic ends at 1"):
        shop.sink()


def test_records_that_retention_took_are_a_written_gap(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.produce(range(10), partition=0)
    shop.sink()
    shop.produce(range(10, 20), partition=0)
    [done] = shop.admin.delete_records([TopicPartition(shop.topic, 0, 15)]).values()
    done.result(20)
    shop.sink()
    assert "offsets 10 to 14 are gone" in caplog.text
    assert shop.customers() == [*range(10), *range(15, 20)]
    assert [(g.partition, g.start, g.end) for g in shop.lake.gaps(shop.topic)] == [(0, 10, 15)]


def test_a_partition_that_is_added_later_is_read_from_its_start(shop: Shop) -> None:
    from confluent_kafka.admin import NewPartitions

    shop.produce(range(9))
    shop.sink()
    [done] = shop.admin.create_partitions([NewPartitions(shop.topic, 4)]).values()
    done.result(20)
    shop.produce(range(100, 105), partition=3)
    shop.sink()
    assert shop.customers() == [*range(9), *range(100, 105)]
    assert shop.lake.positions(shop.topic)[3] == 5


def test_without_a_broker_the_exit_code_is_3(
    make_repository: Callable, headwater_here: Callable, kafka: str, impatient: None
) -> None:
    shop = Shop(make_repository, kafka)
    text = (shop.root / "feature_store.yaml").read_text().replace(kafka, "127.0.0.1:1")
    (shop.root / "feature_store.yaml").write_text(text)
    answer = headwater_here("sink", "--until-caught-up", repo=shop.root, check=False)
    assert (answer.returncode, "Kafka did not answer" in answer.stderr) == (3, True)


def test_kafka_and_redis_may_go_away_and_come_back(
    make_repository: Callable[..., Path], own_kafka, own_redis, start_headwater: Callable
) -> None:  # type: ignore[no-untyped-def]
    shop = Shop(lambda **k: make_repository(**k, redis=own_redis.url), own_kafka.bootstrap)
    sink = start_headwater("sink", "--every", "0.2", repo=shop.root)
    shop.produce(range(30))
    shop.wait_for(30)
    own_redis.kill()
    shop.produce(range(30, 60))
    shop.wait_for(60)
    own_kafka.stop()
    time.sleep(3)
    own_redis.restart()
    own_kafka.start()
    shop.produce(range(60, 90))
    shop.wait_for(90)
    sink.terminate()
    said = sink.communicate(timeout=120)[0]
    assert sink.returncode == 0, said
    assert shop.customers() == list(range(90))
    assert said.count("Kafka does not answer") <= 1, said
    assert "Traceback" not in said


def test_a_full_disk_is_said_once_and_waited_for(shop: Shop, start_headwater: Callable) -> None:
    sink = start_headwater("sink", "--every", "0.2", repo=shop.root)
    shop.produce(range(30))
    shop.wait_for(30)
    # No file may grow past so many bytes: as on a disk that is full, a data file ends in the middle.
    hard = resource.prlimit(sink.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(sink.pid, resource.RLIMIT_FSIZE, (600, hard))
    shop.produce(range(30, 90))
    time.sleep(3)
    assert shop.customers() == list(range(30))
    resource.prlimit(sink.pid, resource.RLIMIT_FSIZE, (hard, hard))
    shop.produce(range(90, 120))
    shop.wait_for(120)
    sink.terminate()
    said = sink.communicate(timeout=120)[0]
    assert sink.returncode == 0, said
    assert (said.count("The lake does not answer"), said.count("The lake is back.")) == (1, 1), said
    assert "cannot be written" in said
    assert "Traceback" not in said
    assert shop.customers() == list(range(120))
    assert shop.lake.duplicates(shop.topic).num_rows == 0
