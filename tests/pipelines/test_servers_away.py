"""Servers that go away under running workers, workers that are killed, and one that sleeps past its time.

Whatever happens, a worker says it once, goes on by itself, and the values equal the slow loop over all events.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater.online.connection import Connection
from headwater.online.plan_store import all_positions, load_fill, scan_rows
from headwater.online.topic_facts import topic_facts
from pipelines.feeds import ViewFeed
from pipelines.micro_batches import MicroBatches
from tests.pipelines.stream_world import World, random_events

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
SECONDS = [4, pytest.param(20, marks=pytest.mark.soak)]


def stop(worker: subprocess.Popen[str]) -> list[str]:
    """End a worker as an operator does; the lines that it wrote."""
    worker.terminate()
    text = worker.communicate(timeout=60)[1]
    assert worker.returncode == 0, text
    assert "Traceback" not in text, text
    return text.splitlines()


def outages(lines: list[str], server: str) -> list[str]:
    """What a worker said of a server that was away, in order: "away" or "back"."""
    return [
        "back" if f"{server} is back" in line else "away"
        for line in lines
        if f"{server} is back" in line or f"{server} does not answer" in line or f"{server} did not answer" in line
    ]


def positions(world: World) -> dict[int, int]:
    fill = load_fill(world.connection, world.project, "spend", world.published().active["spend"].fill)
    assert fill is not None
    return all_positions(world.connection, world.project, fill)


def wait_for(condition, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def events_flow(world: World, every: float = 0.03, count: int = 40) -> Iterator[None]:
    """Within, events come all the time."""
    over = threading.Event()

    def produce() -> None:
        seed = 100
        while not over.wait(every):
            seed += 1
            world.produce(random_events(count, seed=seed))

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("seconds", SECONDS)
def test_redis_stopped_under_a_worker_is_said_once_and_waited_for(own_redis, kafka: str, seconds: float) -> None:
    world = World(own_redis.url, kafka)
    world.publish()
    worker = world.start_worker(batch=50)
    for away in (seconds, 0.5):
        with events_flow(world):
            before = sum(positions(world).values())
            wait_for(lambda before=before: sum(positions(world).values()) > before, "the worker does not work")
            own_redis.stop()
            time.sleep(away)
            own_redis.restart()
            world.connection.reconnect()
    world.wait_until_caught_up()
    assert outages(stop(worker), "Redis") == ["away", "back"] * 2
    world.assert_equal_to_the_slow_loop()


def test_redis_cut_back_by_seconds_under_a_worker_loses_nothing(own_redis, kafka: str) -> None:
    world = World(own_redis.url, kafka)
    world.publish()
    worker = world.start_worker(batch=50)
    wait_for(lambda: positions(world), "no positions")
    with events_flow(world):
        wait_for(lambda: sum(positions(world).values()) > 500, "the worker does not work")
        [log] = (own_redis.data_dir / "appendonlydir").glob("*.incr.aof")
        kept, then = log.stat().st_size, positions(world)
        time.sleep(2)
        now = positions(world)
        own_redis.stop()
        # In the middle of a command, too: Redis drops what is left of it.
        os.truncate(log, kept + 7)
        own_redis.restart()
        world.connection.reconnect()
    assert sum(now.values()) > sum(then.values()) + 500
    world.wait_until_caught_up()
    lines = stop(worker)
    assert outages(lines, "Redis") == ["away", "back"]
    # It read the positions again before it went on, and was not refused first.
    assert not any("Redis holds another position" in line for line in lines), lines
    world.assert_equal_to_the_slow_loop()


def test_redis_rolled_back_behind_an_open_connection_is_read_again(redis_url: str, kafka: str) -> None:
    # A proxy hides a failover: no connection breaks, but the last seconds are gone.
    world = World(redis_url, kafka)
    world.publish()
    worker = world.start_worker(batch=50)
    world.produce(random_events(400))
    world.wait_until_caught_up()
    keys = [k for some in scan_rows(world.connection, b"hw:") for k in some if world.project.encode() in k]
    kept = [(k, world.connection.command("GET", k)) for k in keys if b":row:" in k or b":pos:" in k]
    world.produce(random_events(400, seed=2))
    world.wait_until_caught_up()
    lost = [k for some in scan_rows(world.connection, b"hw:row:%s:" % world.project.encode()) for k in some]
    commands = [("MULTI",), ("DEL", *lost), *(("SET", key, value) for key, value in kept), ("EXEC",)]
    world.connection.pipeline(commands)
    assert sum(positions(world).values()) == 400
    world.produce(random_events(100, seed=3))
    world.wait_until_caught_up()
    lines = stop(worker)
    assert len([line for line in lines if "Redis holds another position" in line]) == 1, lines
    world.assert_equal_to_the_slow_loop()


def test_a_redis_that_is_full_is_said_once_and_waited_for(own_redis, kafka: str) -> None:
    world = World(own_redis.url, kafka)
    world.publish()
    worker = world.start_worker()
    world.produce(random_events(300))
    world.wait_until_caught_up()
    admin = Connection(own_redis.url)
    admin.command("CONFIG", "SET", "maxmemory", "1mb")
    world.produce(random_events(300, seed=2))
    time.sleep(1)
    assert sum(positions(world).values()) == 300
    admin.command("CONFIG", "SET", "maxmemory", "0")
    world.wait_until_caught_up()
    lines = stop(worker)
    assert outages(lines, "Redis") == ["away", "back"]
    assert any("OOM" in line for line in lines)
    world.assert_equal_to_the_slow_loop()


@pytest.mark.parametrize(("seconds", "times"), [(4, 1), pytest.param(20, 3, marks=pytest.mark.soak)])
def test_kafka_stopped_under_a_worker_is_said_once_and_waited_for(
    redis_url: str, own_kafka, seconds: float, times: int
) -> None:
    world = World(redis_url, own_kafka.bootstrap)
    world.publish()
    worker = world.start_worker(batch=50)
    for round_ in range(times):
        before = sum(positions(world).values())
        world.produce(random_events(3000, seed=round_))
        wait_for(lambda before=before: sum(positions(world).values()) > before, "the worker does not work")
        own_kafka.stop()
        time.sleep(seconds)
        own_kafka.start()
        world.new_producer()
        world.produce(random_events(300, seed=10 + round_))
        world.wait_until_caught_up()
        # Nothing comes any more: that it is back is said all the same.
        time.sleep(2.5)
    assert outages(stop(worker), "Kafka") == ["away", "back"] * times
    world.assert_equal_to_the_slow_loop()


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.soak)])
def test_workers_killed_at_random_moments_count_every_event_once(redis_url: str, kafka: str, kills: int) -> None:
    world = World(redis_url, kafka)
    world.publish()
    pick = random.Random(kills)
    workers = [world.start_worker(batch=50) for _ in range(2)]
    with events_flow(world):
        wait_for(lambda: sum(positions(world).values()), "the workers do not work")
        for _ in range(kills):
            time.sleep(pick.uniform(0.2, 2))
            victim = workers.pop(pick.randrange(2))
            victim.kill()
            victim.communicate()
            workers.append(world.start_worker(batch=50))
    world.wait_until_caught_up()
    for worker in workers:
        stop(worker)
    assert positions(world) == topic_facts(world.kafka, [world.topic])[world.topic].ends
    world.assert_equal_to_the_slow_loop()


STOPS_ITSELF = """
import os, signal
from pipelines.feeds import ViewFeed
post, batches = ViewFeed._post, []
def stopped(self, *args, **named):
    batches.append(1)
    if len(batches) == 4:
        os.kill(os.getpid(), signal.SIGSTOP)
    return post(self, *args, **named)
ViewFeed._post = stopped
"""


def test_a_worker_frozen_past_its_session_wakes_as_a_zombie_and_writes_nothing(redis_url: str, kafka: str) -> None:
    world = World(redis_url, kafka)
    world.publish()
    world.produce(random_events(1200))
    # It sleeps with a batch that is computed and not yet sent.
    zombie = world.start_worker(batch=50, before=STOPS_ITSELF)
    wait_for(lambda: state_of(zombie) == "T", "the worker did not stop itself")
    owner = world.start_worker()
    world.wait_until_caught_up()
    world.produce(random_events(200, seed=2))
    world.wait_until_caught_up()
    before = world.rows()
    os.kill(zombie.pid, signal.SIGCONT)
    wait_for(lambda: state_of(zombie) != "T", "the worker did not wake")
    time.sleep(0.3)
    assert world.rows() == before
    world.produce(random_events(200, seed=3))
    world.wait_until_caught_up()
    lines = stop(zombie)
    stop(owner)
    assert len([line for line in lines if "Redis holds another position" in line]) == 1, lines
    assert positions(world) == topic_facts(world.kafka, [world.topic])[world.topic].ends
    world.assert_equal_to_the_slow_loop()


def test_a_refused_worker_asks_the_group_before_it_reads_positions_again(
    redis_url: str, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(redis_url, kafka)
    world.kafka["max.poll.interval.ms"] = "6000"
    world.publish()
    world.produce(random_events(600))
    worker = world.worker(batch=100)
    sleeps, wakes, then = threading.Event(), threading.Event(), list[str]()
    start, begin, gone = ViewFeed.start, ViewFeed.begin, MicroBatches._on_gone

    def slow_start(feed: ViewFeed, *args) -> None:
        if feed.connection is worker.connection and sum(feed.positions.values()) and not sleeps.is_set():
            # It sleeps with a batch in hand, for longer than the group waits for it.
            sleeps.set()
            assert wakes.wait(150)
        start(feed, *args)

    def noted_begin(feed: ViewFeed, partitions) -> dict[int, int]:
        if wakes.is_set() and feed.connection is worker.connection:
            then.append("reads positions")
        return begin(feed, partitions)

    def noted_gone(batches: MicroBatches, places) -> None:
        if wakes.is_set():
            then.append("hears that its partitions are gone")
        gone(batches, places)

    monkeypatch.setattr(ViewFeed, "start", slow_start)
    monkeypatch.setattr(ViewFeed, "begin", noted_begin)
    monkeypatch.setattr(MicroBatches, "_on_gone", noted_gone)
    with world.running_worker(worker):
        assert sleeps.wait(60)
        owner = world.start_worker()
        world.wait_until_caught_up(120)
        wakes.set()
        wait_for(lambda: then, "the worker did not go on")
    stop(owner)
    assert then[0] == "hears that its partitions are gone"
    world.assert_equal_to_the_slow_loop()


def state_of(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
