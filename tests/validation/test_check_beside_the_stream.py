"""While events flow, workers and sinks run, stand still or die, the check names nothing that is not wrong."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.pipelines.stream_world import CHECKOUT, NOON, random_events
from tests.validation.planted_world import PlantedWorld

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
CUSTOMERS = 1_200
"""More rows than one script writes, so that positions are met in the middle of a batch."""


@pytest.fixture
def world(redis_url: str, kafka: str, tmp_path: Path) -> Iterator[PlantedWorld]:
    world = PlantedWorld(redis_url, kafka, tmp_path / "flowing", events=0)
    yield world
    world.close()


class Flow:
    """A thread that sends events of many customers, in bursts, until it is stopped."""

    def __init__(self, world: PlantedWorld) -> None:
        self._producer = Producer({**world.kafka, "linger.ms": 5, "log_level": 0})
        self._topic, self._stopping = world.topic, threading.Event()
        self._values = [json.dumps(e).encode() for e in random_events(5_000, seed=3, customers=CUSTOMERS)]
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        assert self._producer.flush(20) == 0

    def _run(self) -> None:
        while not self._stopping.wait(1.0):
            for value in random.sample(self._values, 1_500):
                self._producer.produce(self._topic, value, partition=random.randrange(2))
                self.sent += 1
            self._producer.poll(0)


@pytest.fixture
def start() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def run(command: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running.append(process)
        return process

    yield run
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def headwater(world: PlantedWorld, *args: str) -> list[str]:
    return [sys.executable, "-m", "headwater", "-C", str(world.root), *args]


def assert_nothing_named(world: PlantedWorld) -> dict[str, int]:
    """No difference in any view; how many rows were compared, equal and waiting, in all."""
    said = world.check("--json")
    views = json.loads(said.out)["views"]
    assert said.code == 0, views
    assert [v["differences"] for v in views] == [{}, {}, {}], views
    assert all(v["receipts"]["drawn"] == v["receipts"]["equal"] for v in views), views
    assert all(v["recomputed"]["compared"] == v["recomputed"]["equal"] for v in views), views
    return {
        "compared": sum(v["recomputed"]["compared"] for v in views), "waiting": sum(v["waiting"] for v in views),
    }  # fmt: skip


def most_are_proven(world: PlantedWorld) -> bool:
    found = assert_nothing_named(world)
    return found["compared"] > found["waiting"]


def wait_for(condition: Callable[[], bool], seconds: float = 200) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_nothing_is_named_while_events_flow_and_either_side_stands_still_or_dies(
    world: PlantedWorld, start: Callable[[list[str]], subprocess.Popen[bytes]]
) -> None:
    worker, sink = start(headwater(world, "stream")), start(headwater(world, "sink"))
    with Flow(world):
        wait_for(lambda: len(world.rows()) > 500 and bool(world.lake.positions(world.topic)))
        for _ in range(3):
            # The sink runs, so most rows are proven; not each time on a machine that gives it no time.
            wait_for(lambda: most_are_proven(world))
        # The worker stands still in the middle of whatever it does, and the sink goes on.
        worker.send_signal(signal.SIGSTOP)
        assert assert_nothing_named(world)["waiting"] == 0
        worker.send_signal(signal.SIGCONT)
        # The sink stands still: rows whose last events it has not kept are not compared.
        sink.send_signal(signal.SIGSTOP)
        at = world.lake.positions(world.topic)
        wait_for(lambda: all(world.applied(p) > at[p] for p in at))
        found = assert_nothing_named(world)
        assert found["waiting"] > 0
        sink.send_signal(signal.SIGCONT)
        # Workers are killed wherever they are; the next one begins the batch again.
        for _ in range(2):
            worker.kill()
            worker.wait()
            assert_nothing_named(world)
            worker = start(headwater(world, "stream"))
            assert_nothing_named(world)
    world.wait_until_caught_up()
    wait_for(lambda: assert_nothing_named(world)["waiting"] == 0)
    assert assert_nothing_named(world)["compared"] > CUSTOMERS


def test_a_fault_is_named_while_events_flow(
    world: PlantedWorld, start: Callable[[list[str]], subprocess.Popen[bytes]]
) -> None:
    quiet = {"customer": CUSTOMERS + 1, "product": "p", "ts": NOON, "quantity": 1}
    world.produce([quiet] * 3, 0)
    start(headwater(world, "stream"))
    start(headwater(world, "sink"))
    with Flow(world):
        key = str(CUSTOMERS + 1)
        wait_for(lambda: key.encode() in world.rows() and bool(world.lake.positions(world.topic)))
        with world.row(key.encode(), None):
            said = world.check("--json")
            assert (said.code, said.view("spend")["differences"]) == (1, {"missing online": 1})
            assert [e["key"] for e in said.view("spend")["examples"]] == [key]
        assert_nothing_named(world)
