"""Rows are computed again from the lake behind the worker's back, and every event counts once all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headwater.errors import HeadwaterError, LakeDamaged
from headwater.events.admission import Admission
from headwater.online import scripts
from headwater.online.connection import Connection
from headwater.online.plan_store import load_fill
from headwater.rows.codec import HEADER
from pipelines.feeds import Held, Refused, ViewFeed
from pipelines.repair import _Repair, repair
from tests.in_process import Said, run_cli
from tests.pipelines.stream_world import NOON
from tests.validation.planted_world import PlantedWorld, flipped, with_digest, with_word

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
KEY = b"3"


@pytest.fixture(scope="module")
def world(redis_url: str, kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedWorld]:
    world = PlantedWorld(redis_url, kafka, tmp_path_factory.mktemp("repaired"))
    yield world
    world.close()


@pytest.fixture
def worker(world: PlantedWorld) -> Iterator[None]:
    """A worker that runs beside the test, in a thread."""
    running = world.worker()
    thread = threading.Thread(target=running.run)
    thread.start()
    yield
    running.stop()
    thread.join()


def run_repair(world: PlantedWorld, *args: str) -> Said:
    return run_cli("-C", str(world.root), "repair", *args)


def put(world: PlantedWorld, key: bytes, row: bytes | None, view: str = "spend") -> None:
    at = world.row_key(key, view)
    world.connection.command("DEL", at) if row is None else world.connection.command("SET", at, row)


def event(customer: int, product: str = "p1|a", quantity: int = 1) -> dict:
    return {"customer": customer, "product": product, "ts": NOON, "price": 1.5, "quantity": quantity}


def assert_all_counted_once(world: PlantedWorld) -> None:
    """Further events of every key come, and rows equal the slow loop over all events that were ever sent."""
    world.produce([event(c) for c in (3, 3, 5)])
    world.wait_until_caught_up()
    world.keep()
    world.assert_equal_to_the_slow_loop()
    world.assert_clean()


FAULTS: dict[str, Callable[[PlantedWorld], bytes | None]] = {
    "older bytes": lambda world: world.older[KEY],
    "deleted": lambda world: None,
    "a byte of a tile flipped": lambda world: flipped(world.rows()[KEY], -9),
    "the digest flipped": lambda world: flipped(world.rows()[KEY], 3),
    "the applied offset flipped": lambda world: flipped(world.rows()[KEY], 8 * HEADER + 16),
    "cut short": lambda world: world.rows()[KEY][:40],
    "empty": lambda world: b"",
    "another definition": lambda world: with_word(world.rows()[KEY], 2, 0x1234),
    "an unknown codec version": lambda world: with_digest(b"\0" * 8 + b"\x09" + world.rows()[KEY][9:]),
    "other values, a digest that fits": lambda world: world.miscounted(KEY),
    "an event that only the row has": lambda world: with_word(world.rows()[KEY], HEADER + 2, 10**6),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_row_is_repaired_beside_the_worker(world: PlantedWorld, worker: None, fault: str) -> None:
    was = world.rows()[KEY]
    put(world, KEY, FAULTS[fault](world))
    assert world.check("spend").code == 1
    said = run_repair(world, "spend", "--entity", "customer=3")
    assert (said.code, said.out, said.err) == (0, "spend: 1 repaired.\n", "")
    assert values_of(world.rows()[KEY]) == values_of(was)
    world.assert_clean()
    assert_all_counted_once(world)


def values_of(row: bytes) -> bytes:
    """A row without digest and born offsets: a row that is filled knows all its events, whoever saw the first."""
    words = [row[i : i + 8] for i in range(8, len(row), 8)]
    partitions = int.from_bytes(row[10:12], "little")
    return b"".join(
        w for i, w in enumerate(words, 1) if not (HEADER <= i < HEADER + 3 * partitions and (i - HEADER) % 3 == 1)
    )


def test_a_row_that_no_event_stands_behind_is_taken_away(world: PlantedWorld, worker: None) -> None:
    put(world, b"99", world.rows()[KEY])
    put(world, b"no number", world.rows()[KEY])
    said = run_repair(world, "spend", "--from-check")
    assert (said.code, said.out) == (0, "spend: 0 repaired, 2 taken away, because no event stands behind them.\n")
    assert not {b"99", b"no number"} & world.rows().keys()
    assert_all_counted_once(world)


def test_from_check_repairs_all_that_differs_and_nothing_else(world: PlantedWorld, worker: None) -> None:
    rows = world.rows("recent")
    chosen = sorted(rows)[:5]
    for key in chosen:
        put(world, key, None, "recent")
    said = run_repair(world, "recent", "--from-check", "--json")
    assert msgspec.json.decode(said.out) == {
        "view": "recent", "repaired": 5, "taken_away": 0, "right": 0, "positions": {}, "left": [],
    }  # fmt: skip
    assert {k for k, row in world.rows("recent").items() if row != rows[k]} <= set(chosen)
    assert world.connection.command("PTTL", world.row_key(chosen[0], "recent")) > 10**9
    assert_all_counted_once(world)


def test_a_right_row_stays_as_it_is(world: PlantedWorld) -> None:
    was = world.rows()[KEY]
    said = run_repair(world, "spend", "--entity", "customer=3", "--entity", "customer=4")
    assert (said.code, said.out) == (0, "spend: 0 repaired, 2 right already.\n")
    assert world.rows()[KEY] == was


def test_a_row_that_began_anew_after_it_was_lost_gets_its_past_back(world: PlantedWorld, worker: None) -> None:
    put(world, KEY, None)
    world.produce([event(3)])
    world.wait_until_caught_up()
    world.keep()
    assert world.check("spend", "--json").view("spend")["differences"] == {"missing online": 1}
    assert run_repair(world, "spend", "--entity", "customer=3").code == 0
    assert_all_counted_once(world)


def test_a_row_that_changes_faster_than_the_lake_follows_is_met_by_a_hold(
    world: PlantedWorld, worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.repair.FREE_ATTEMPTS", 0)
    stop = threading.Event()

    def flow() -> None:
        while not stop.wait(0.02):
            world.produce([event(3)] * 5, 0)

    def keep() -> None:
        while not stop.wait(0.5):
            world.keep()

    put(world, KEY, flipped(world.rows()[KEY], -9))
    threads = [threading.Thread(target=flow), threading.Thread(target=keep)]
    for thread in threads:
        thread.start()
    try:
        done = repair(world.repository, "spend", [{"customer": 3}])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (done.repaired, done.left) == (1, {})
    assert_all_counted_once(world)


def test_a_position_past_the_topic_and_one_past_events_are_set_back(world: PlantedWorld) -> None:
    at = world.applied(0)
    world.produce([event(3), event(71)], 0)
    world.keep()
    for moved in (at + 2, at + 1000):
        world.connection.command("SET", world.position_key(0), moved)
        assert world.check("spend").code == 1
        said = run_repair(world, "spend", "--from-check", "--json")
        assert said.code == 0, said
        assert msgspec.json.decode(said.out)["positions"] == {"0": at}
        world.catch_up()
        world.assert_equal_to_the_slow_loop()
        world.assert_clean()
        at = world.applied(0)
        world.produce([event(3), event(72)], 0)
        world.keep()
    world.catch_up()


# -- what the fence is for ----------------------------------------------------------------------------------------


class InterruptedFeed(ViewFeed):
    """Does something else once, between the first script of a batch and the others."""

    meanwhile: Callable[[], None] | None = None

    def _post(self, flight: Any, i: int, *, last: bool) -> Any:
        posted = super()._post(flight, i, last=last)
        if (meanwhile := self.meanwhile) is not None and not last:
            self.meanwhile = None
            with Connection(self.connection.url) as other:
                while b"/1" not in other.command("GET", self._position_key(0)):
                    time.sleep(0.01)
            meanwhile()
        return posted


def feed_of(world: PlantedWorld) -> InterruptedFeed:
    active = world.published().active["spend"]
    fill = load_fill(world.connection, world.project, "spend", active.fill)
    assert fill is not None
    connection = Connection(world.redis_url)
    return InterruptedFeed(connection, world.project, world.views[0], fill)


@pytest.mark.parametrize("fault", [None, "older"])
def test_a_row_lost_in_the_middle_of_a_batch_gets_the_batchs_event_once(
    world: PlantedWorld, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    """Its script was done and the position not moved yet: only because repair makes the batch begin again."""
    monkeypatch.setattr("pipelines.feeds.ROWS_A_SCRIPT", 1)
    feed = feed_of(world)
    first = feed.begin([0])[0]
    events = [event(3), event(4), event(5)]
    world.produce(events, 0)
    world.keep()

    def lose_and_repair() -> None:
        put(world, KEY, world.older[KEY] if fault == "older" else None)
        done = repair(world.repository, "spend", [{"customer": 3}])
        assert done.left == {}

    feed.meanwhile = lose_and_repair
    values = [msgspec.json.encode(e) for e in world.sent[-3:]]
    offsets, partition = np.arange(first, first + 3), np.zeros(3, np.int64)
    admitted = Admission(world.source).admit(values, partition, offsets, np.full(3, NOON)).events
    with pytest.raises(Refused):
        feed.apply(admitted, {0: first + 3})
    feed.begin([0])
    feed.apply(admitted, {0: first + 3})
    world.catch_up()
    world.assert_equal_to_the_slow_loop()
    world.assert_clean()


def test_a_row_that_the_worker_wrote_meanwhile_is_not_overwritten(
    world: PlantedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, meanwhile = _Repair._wait_for_lake, [lambda: (world.produce([event(3)], 0), world.catch_up())]

    def wait_for_lake(self: _Repair, need: dict[int, int]) -> None:
        waiting(self, need)
        if meanwhile:
            meanwhile.pop()()
            world.keep()

    monkeypatch.setattr(_Repair, "_wait_for_lake", wait_for_lake)
    put(world, KEY, flipped(world.rows()[KEY], -9))
    done = repair(world.repository, "spend", [{"customer": 3}])
    assert (done.repaired, done.left, meanwhile) == (1, {}, [])
    world.assert_equal_to_the_slow_loop()
    world.assert_clean()


def test_a_hold_keeps_workers_waiting_and_expires_by_itself(world: PlantedWorld) -> None:
    key, token = world.position_key(0), "ab12"
    at = world.applied(0)
    feed = feed_of(world)
    assert scripts.hold.run(world.connection, [key], [token, 60_000]) == [b"%d" % at]
    with pytest.raises(Held):
        feed.begin([0])
    assert scripts.hold.run(world.connection, [key], ["cd34", 60_000]) == b"HELD"
    scripts.end_hold.run(world.connection, [key], ["cd34"])
    with pytest.raises(Held):
        feed.begin([0])
    scripts.hold.run(world.connection, [key], [token, 200])
    time.sleep(0.3)
    assert feed.begin([0]) == {0: at}
    assert world.connection.command("GET", key) == b"%d" % at
    scripts.end_hold.run(world.connection, [key], [token])
    assert world.applied(0) == at


# -- what is refused ----------------------------------------------------------------------------------------------


def test_nothing_is_computed_from_a_lake_whose_files_are_gone(world: PlantedWorld) -> None:
    older = world.older[KEY]
    with world.row(KEY, flipped(older, -9)), world.table(f"events/{world.topic}") as folder:
        sorted(folder.glob("*.parquet"))[0].unlink()
        with pytest.raises(LakeDamaged, match="lacks 1 of its"):
            repair(world.repository, "spend", [{"customer": 3}])
        assert world.rows()[KEY] == flipped(older, -9)
    with world.table(f"events/{world.topic}") as folder:
        for file in folder.glob("*.parquet"):
            file.unlink()
        said = run_repair(world, "spend", "--entity", "customer=3")
        assert said.code == 1
        assert "3: missing in lake: a data file of the lake is gone" in said.out
        assert said.err == "Error: 1 row of 'spend' still differs.\n"
    world.assert_clean()


def test_a_lake_that_does_not_come_so_far_is_an_error_and_changes_nothing(world: PlantedWorld) -> None:
    world.produce([event(3)], 0)
    world.catch_up()
    broken = flipped(world.rows()[KEY], -9)
    put(world, KEY, broken)
    with pytest.raises(HeadwaterError, match=r"needs? partition 0 .* Run 'headwater sink'"):
        repair(world.repository, "spend", [{"customer": 3}], wait=0.3)
    assert world.rows()[KEY] == broken
    world.keep()
    assert run_repair(world, "spend", "--entity", "customer=3").code == 0
    world.assert_clean()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("spent", "--from-check"), "No view 'spent' to repair. Did you mean 'spend'?"),
        (("spent", "--entity", "customer=1"), "No view 'spent' to repair. Did you mean 'spend'?"),
        (("spend",), "Say which rows"),
        (("spend", "--from-check", "--entity", "customer=1"), "Say which rows"),
        (("profile", "--from-check"), "publish its rows again with 'headwater materialize profile'"),
        (("spend", "--entity", "customer=x"), "expected a whole number"),
        (("spend", "--entity", "product=x"), "no join key 'product'"),
        (("recent", "--entity", "customer=1"), "is keyed by customer, product; got customer"),
    ],
)
def test_wrong_use_is_exit_code_2(world: PlantedWorld, args: tuple[str, ...], words: str) -> None:
    said = run_repair(world, *args)
    assert (said.code, said.out) == (2, "")
    assert words in said.err


def test_nothing_is_published_or_redis_is_away(world: PlantedWorld, redis_url: str, tmp_path: Path) -> None:
    from headwater.embedded.processes import free_port
    from tests.conftest import feature_store_yaml

    for project, url, code, words in (
        ("nobody", redis_url, 1, "has no plan in Redis"),
        (world.project, f"redis://127.0.0.1:{free_port()}/0", 3, "does not answer"),
    ):
        text = feature_store_yaml(project, url, world.kafka["bootstrap.servers"], None)
        (tmp_path / "feature_store.yaml").write_text(text)
        said = run_cli("-C", str(tmp_path), "repair", "spend", "--from-check")
        assert said.code == code
        assert words in said.err
