"""`stream --from`: a view's first rows begin at a place in the topic, once, whoever begins them; the check knows it."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from headwater.errors import Unavailable, UsageError
from headwater.lake import Lake
from headwater.online.connection import Connection
from headwater.online.first_fills import Start, begin_first_fill
from headwater.online.keys import entity_key, lock_key, row_prefix
from headwater.online.plan_store import all_positions, load_fill, switch
from headwater.serving.client import Client
from tests.conftest import feature_store_yaml
from tests.pipelines.stream_world import NOON, World, produce, random_events, view_of
from tests.validation.planted_world import run_cli

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
EARLIEST, LATEST = Start("earliest"), Start("latest")


@pytest.fixture
def world(redis_url: str, kafka: str) -> World:
    """A topic with 200 events, published first after they came: nothing of it was ever served."""
    world = World(redis_url, kafka, partitions=2)
    world.produce(random_events(200))
    assert world.publish().filling == ["spend"]
    return world


def record(world: World, view: str = "spend"):
    published = world.published()
    found = load_fill(world.connection, world.project, view, (published.active | published.filling)[view].fill)
    assert found is not None
    return found


def cli(world: World, root: Path, *args: str):
    bootstrap = world.kafka["bootstrap.servers"]
    (root / "feature_store.yaml").write_text(feature_store_yaml(world.project, world.redis_url, bootstrap, None))
    return run_cli("-C", str(root), *args)


def test_from_earliest_a_new_view_has_all_events_without_a_lake(world: World, caplog) -> None:
    with caplog.at_level(logging.INFO, "headwater.stream"):
        world.catch_up(start=EARLIEST)
    world.assert_equal_to_the_slow_loop()
    assert "View 'spend': its rows begin at the log's start" in caplog.text
    fill = record(world)
    assert (fill.state, fill.known_from.asked, fill.fed_from) == ("active", "earliest", {0: 0, 1: 0})


def test_without_from_the_view_waits(world: World) -> None:
    world.catch_up()
    assert list(world.published().filling) == ["spend"]


def test_from_latest_rows_count_what_comes_after_and_check_repair_and_status_know_it(
    world: World, tmp_path: Path
) -> None:
    world.catch_up(start=LATEST)
    older, world.sent = world.sent, []
    world.produce(random_events(60, seed=2, customers=8))
    world.catch_up()
    world.assert_equal_to_the_slow_loop()
    lake = Lake(str(tmp_path / ".headwater" / "lake"))
    world.sink(lake)
    assert {e["customer"] for e in older} - {e["customer"] for e in world.sent}, "keys that only the lake has"
    said = cli(world, tmp_path, "check", "--json")
    found = said.view("spend")
    assert (said.code, found["differences"]) == (0, {})
    assert found["recomputed"] == {"compared": len(world.rows()), "equal": len(world.rows())}
    assert found["notes"][0].startswith("Its rows begin at 20")
    assert "active, from 20" in cli(world, tmp_path, "status").out
    assert json.loads(cli(world, tmp_path, "status", "--json").out)["views"][0]["known_from"].startswith("20")
    # A row that is lost is a difference all the same, and comes back as it was, but for where it was born.
    view, fill, rows = world.views[0], record(world), world.rows()
    prefix, key = row_prefix(world.project, "spend", view.state_hash, fill.id), entity_key((1,))
    world.connection.command("DEL", prefix + key)
    assert cli(world, tmp_path, "check", "--json").view("spend")["differences"] == {"missing online": 1}
    assert cli(world, tmp_path, "repair", "spend", "--entity", "customer=1").code == 0
    assert rows == world.rows()
    world.assert_equal_to_the_slow_loop()
    assert cli(world, tmp_path, "check").code == 0


def test_from_a_time_rows_begin_at_the_first_event_of_that_time(redis_url: str, kafka: str) -> None:
    world = World(redis_url, kafka, partitions=2, config={"message.timestamp.type": "CreateTime"})
    producer, then = Producer(world.kafka), time.time_ns() // 1_000_000 - 3_600_000

    class At:
        """A producer whose records have times of their own, a second apart."""

        def __init__(self) -> None:
            self.sent = 0

        def produce(self, topic, value, partition, on_delivery) -> None:
            producer.produce(
                topic, value, partition=partition, on_delivery=on_delivery, timestamp=then + 1000 * self.sent
            )
            self.sent += 1

        def __getattr__(self, name: str):
            return getattr(producer, name)

    events = produce(At(), world.topic, random_events(100), None, 2)
    world.publish()
    # Of the time of the 40th event and one microsecond more: the 41st is the first.
    world.catch_up(start=Start("a time", (then + 39_000) * 1000 + 1))
    world.remember([e for e in events if e["_offset"] >= 20])
    world.assert_equal_to_the_slow_loop()
    assert record(world).known_from.offsets == {0: 20, 1: 20}


def test_readers_get_the_rows_when_they_have_come_to_where_the_topic_ended(world: World) -> None:
    fill = begin_first_fill(world.connection, world.kafka, world.project, "spend", EARLIEST)
    assert fill is not None
    assert not switch(world.connection, world.project, "spend")
    with Client(redis=world.redis_url, project=world.project) as client, pytest.raises(Unavailable):
        client.get(["spend"], entities={"customer": [1]})
    world.catch_up()
    assert world.published().active["spend"].fill == fill.id
    world.assert_equal_to_the_slow_loop()


def test_of_several_workers_one_begins_and_all_feed_the_same_fill(world: World) -> None:
    barrier, begun = threading.Barrier(4), []

    def begin() -> None:
        with Connection(world.redis_url) as connection:
            barrier.wait()
            begun.append(begin_first_fill(connection, world.kafka, world.project, "spend", EARLIEST))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [fill] = [f for f in begun if f is not None]
    assert world.published().filling["spend"].fill == fill.id
    with world.running_worker(world.worker(start=EARLIEST)), world.running_worker(world.worker(start=LATEST)):
        world.wait_until_caught_up()
    assert record(world).id == fill.id
    world.assert_equal_to_the_slow_loop()


def test_views_that_have_rows_are_left_alone_with_one_line(world: World, caplog) -> None:
    world.catch_up(start=EARLIEST)
    before = record(world)
    changed = view_of(where="quantity > 0")
    world.views = [world.hashed(changed)]
    assert world.publish().filling == ["spend"]
    with caplog.at_level(logging.INFO, "headwater.stream"):
        world.catch_up(start=LATEST)
    assert caplog.text.count("--from latest is for views that have never had rows") == 1
    published = world.published()
    assert published.active["spend"].fill == before.id
    waiting = load_fill(world.connection, world.project, "spend", published.filling["spend"].fill)
    assert waiting is not None
    assert (waiting.known_from, all_positions(world.connection, world.project, waiting)) == (None, {})


def test_a_fill_that_a_backfill_works_at_is_left_to_it(world: World) -> None:
    waiting = world.published().filling["spend"].fill
    world.connection.command("SET", lock_key(world.project, "spend", waiting), "token")
    assert begin_first_fill(world.connection, world.kafka, world.project, "spend", EARLIEST) is None
    world.connection.command("DEL", lock_key(world.project, "spend", waiting))
    assert begin_first_fill(world.connection, world.kafka, world.project, "spend", EARLIEST) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [("yesterday", "expected earliest, latest, or the broker's time"), ("2999-01-01", "has not come yet")],
)
def test_another_start_is_wrong_use(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Start.parse(text, NOON)


def test_a_start_is_a_word_or_a_time() -> None:
    assert Start.parse("latest", NOON) == LATEST
    assert Start.parse("2011-10-01", NOON) == Start("2011-10-01T00:00:00Z", 1_317_427_200_000_000)
    assert Start.parse("2011-10-01T02:00:00+02:00", NOON) == Start.parse("2011-10-01", NOON)


def test_the_command_begins_a_view_and_says_so(world: World, tmp_path: Path, headwater_cli) -> None:
    cli(world, tmp_path, "status")
    said = headwater_cli("stream", "--from", "earliest", "--until-caught-up", repo=tmp_path)
    assert "View 'spend': its rows begin at the log's start (partition: offset {0: 0, 1: 0})." in said.stderr
    assert said.stderr.count("its new definition is filled and active") == 1
    world.assert_equal_to_the_slow_loop()
    again = headwater_cli("stream", "--from", "latest", "--until-caught-up", repo=tmp_path)
    assert "These go on from their positions: spend." in again.stderr
    wrong = headwater_cli("stream", "--from", "tomorrow", repo=tmp_path, check=False)
    assert (wrong.returncode, "expected earliest, latest" in wrong.stderr) == (2, True)
