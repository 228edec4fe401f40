"""Rule 5: what topics do under a worker: recreated, grown, cut by retention, transactional."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from headwater.errors import TopicChanged
from headwater.lake import Lake
from headwater.online.plan_store import all_positions, load_fill
from headwater.online.topic_facts import topic_facts
from pipelines.backfill import backfill
from tests.pipelines.stream_world import World, produce, random_events

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


@pytest.fixture
def world(redis_url: str, kafka: str) -> World:
    return World(redis_url, kafka)


def cut_log(world: World, partition: int, before: int) -> None:
    [done] = world.admin.delete_records([TopicPartition(world.topic, partition, before)]).values()
    done.result(20)


def test_events_become_rows_and_values_equal_the_slow_loop(world: World) -> None:
    world.publish()
    world.produce(random_events(1500))
    worker = world.catch_up(batch=400)
    assert worker.events == 1500
    world.assert_equal_to_the_slow_loop()


def test_a_recreated_topic_stops_the_worker(world: World) -> None:
    world.publish()
    world.produce(random_events(100))
    world.catch_up()
    before = world.rows()
    world.delete_topic()
    world.create_topic()
    world.produce(random_events(500))
    with pytest.raises(TopicChanged, match="deleted and made anew"):
        world.catch_up()
    assert world.rows() == before


def test_a_topic_recreated_under_a_running_worker_stops_it(world: World) -> None:
    world.publish()
    world.produce(random_events(100))
    worker = world.worker()
    ended: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except TopicChanged as changed:
            ended.append(changed)

    thread = threading.Thread(target=run)
    thread.start()
    world.wait_until_caught_up()
    world.delete_topic()
    world.create_topic()
    world.produce(random_events(500, seed=5))
    thread.join(30)
    worker.stop()
    thread.join()
    assert [type(e) for e in ended] == [TopicChanged]


def test_after_apply_and_backfill_a_recreated_topic_is_read_from_its_start(world: World, tmp_path) -> None:
    world.publish()
    world.produce(random_events(400))
    world.catch_up()
    world.delete_topic()
    world.create_topic()
    world.sent.clear()
    world.produce(random_events(80, seed=3))
    assert world.publish().filling == ["spend"]
    lake = Lake(str(tmp_path / "lake"))
    world.sink(lake)
    [filled] = backfill(lake, world.connection, world.kafka, world.project, ["spend"])
    assert filled.active
    world.produce(random_events(80, seed=4))
    world.catch_up()
    world.assert_equal_to_the_slow_loop()


def test_a_position_past_the_end_stops_the_worker(world: World) -> None:
    world.publish()
    world.produce(random_events(40))
    world.catch_up()
    fill = world.published().active["spend"].fill
    world.connection.command("SET", f"hw:pos:{world.project}:spend:{fill}:1", 5000)
    with pytest.raises(TopicChanged, match=r"is at \{1: 5000\}.*which ends at \{1: 10\}"):
        world.catch_up()


def test_a_position_that_another_worker_moved_meanwhile_is_not_past_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish()
    world.produce(random_events(40))
    faster: list[bool] = []

    def asked_then_overtaken(*args, **named):
        facts = topic_facts(*args, **named)
        if not faster:
            # Between the broker's answer and the look at the positions, events come and another worker reads them.
            faster.append(True)
            world.produce(random_events(40, seed=2))
            world.catch_up()
        return facts

    monkeypatch.setattr("pipelines.plan_feeds.topic_facts", asked_then_overtaken)
    world.catch_up()
    assert faster
    world.assert_equal_to_the_slow_loop()


def test_what_retention_took_unread_puts_the_view_back_to_filling_and_backfill_makes_it_right(
    world: World, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish()
    world.produce(random_events(200))
    world.catch_up()
    world.produce(random_events(200, seed=2))
    lake = Lake(str(tmp_path / "lake"))
    world.sink(lake)
    cut_log(world, 1, 80)
    old = world.published().active["spend"].fill
    with caplog.at_level(logging.WARNING, "headwater.stream"):
        world.catch_up()
    said = [r.getMessage() for r in caplog.records if "headwater backfill spend" in r.getMessage()]
    assert len(said) == 1
    assert "{1: 50}" in said[0]
    plan = world.published()
    assert plan.active["spend"].fill == old
    waiting = plan.filling["spend"].fill
    # Another start of a worker neither skips what is lost nor begins the filling again and again.
    world.catch_up()
    assert world.published().filling["spend"].fill == waiting
    assert [f.active for f in backfill(lake, world.connection, world.kafka, world.project, ["spend"])] == [True]
    world.produce(random_events(100, seed=3))
    world.catch_up()
    world.assert_equal_to_the_slow_loop()


def test_retention_under_a_running_worker_is_no_skip_either(world: World, tmp_path) -> None:
    world.publish()
    world.produce(random_events(200))
    world.catch_up()
    world.produce(random_events(200, seed=2))
    fill = world.published().active["spend"]
    worker = world.worker()
    started = threading.Event()
    cut = worker._fed._verify

    def verify_then_cut(*args) -> None:
        # Retention strikes between the look at the topic and the first fetch.
        cut(*args)
        if not started.is_set():
            started.set()
            cut_log(world, 2, 90)

    worker._fed._verify = verify_then_cut  # type: ignore[method-assign]
    with world.running_worker(worker):
        deadline = time.monotonic() + 120
        while "spend" not in world.published().filling:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert world.published().active["spend"].fill == fill.fill
    assert world.connection.command("GET", f"hw:pos:{world.project}:spend:{fill.fill}:2") == b"50"


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_transactions_catch_up_and_only_committed_events_count(world: World, end: str) -> None:
    world.publish()
    world.produce(random_events(50))
    producer = Producer({**world.kafka, "transactional.id": world.topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    placed = produce(producer, world.topic, random_events(60, seed=2), None, 4)
    producer.commit_transaction(20) if end == "commit" else producer.abort_transaction(20)
    if end == "commit":
        world.remember(placed)
    world.catch_up()
    world.assert_equal_to_the_slow_loop()
    fill = world.published().active["spend"].fill
    [at] = {world.connection.command("GET", f"hw:pos:{world.project}:spend:{fill}:{p}") for p in (0, 1)}
    # 13 events, 15 of the transaction, its marker: the position is behind all of them.
    assert at == b"29"
    world.produce(random_events(50, seed=3))
    world.catch_up()
    world.assert_equal_to_the_slow_loop()


def test_partitions_added_to_a_live_topic_are_read_from_their_start(world: World) -> None:
    world.publish()
    world.produce(random_events(100))
    world.catch_up()
    [done] = world.admin.create_partitions([NewPartitions(world.topic, 6)]).values()
    done.result(20)
    while world.partitions() < 6:
        time.sleep(0.05)
    world.new_producer()
    world.produce(random_events(120, seed=2))
    world.catch_up()
    world.assert_equal_to_the_slow_loop()
    assert world.published().filling == {}
    fill = load_fill(world.connection, world.project, "spend", world.published().active["spend"].fill)
    assert fill is not None
    assert fill.partitions == 4
    assert all_positions(world.connection, world.project, fill) == {0: 45, 1: 45, 2: 45, 3: 45, 4: 20, 5: 20}
