"""Rule 6: fills are begun, filled, switched to and given up so that readers never see half of one."""

from __future__ import annotations

import logging
import threading
import time

import msgspec
import pytest
from confluent_kafka import TopicPartition

from headwater.errors import HeadwaterError, Unavailable
from headwater.lake import Lake
from headwater.lake.event_log import EventSnapshot
from headwater.online import plan_store
from headwater.online.connection import Connection
from headwater.online.keys import fill_key, position_key, row_prefix
from headwater.online.plan_store import all_positions, load_fill, scan_rows, switch
from headwater.rows.codec import read_header
from headwater.serving.client import Client
from pipelines.backfill import _Backfill, backfill
from tests.history.log_factory import HOUR, MINUTE, make_feature
from tests.pipelines.stream_world import DAY, POSITIVE, World, random_events, read_rows, view_of

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
CHANGED = (make_feature("count", name="n_2h", window=2 * HOUR), make_feature("max", "price", window=None, name="most"))


@pytest.fixture
def world(redis_url: str, kafka: str) -> World:
    """A published view with 400 events that are in its rows and in the lake."""
    world = World(redis_url, kafka, config={"retention.ms": "604800000"})
    world.publish()
    world.produce(random_events(400))
    world.catch_up()
    return world


@pytest.fixture
def lake(world: World, tmp_path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    world.sink(lake)
    return lake


def change(world: World, **how) -> None:
    """Another definition of the view, published."""
    world.views = [world.hashed(view_of(**how))]
    world.publish()


def fill_of(world: World, view: str = "spend") -> str:
    return world.published().active[view].fill


def waiting(world: World, view: str = "spend") -> str:
    return world.published().filling[view].fill


def places(world: World, fill: str, view: str = "spend") -> dict[int, int]:
    record = load_fill(world.connection, world.project, view, fill)
    assert record is not None
    return all_positions(world.connection, world.project, record)


def run(world: World, lake: Lake, view: str = "spend"):
    [filled] = backfill(lake, world.connection, world.kafka, world.project, [view])
    return filled


def read(world: World, name: str, customer: int = 1):
    with Client(redis=world.redis_url, project=world.project) as client:
        return client.get([name], entities={"customer": [customer]})


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_new_view_on_a_topic_with_events_is_filled_and_then_goes_on_live(world: World, lake: Lake) -> None:
    world.views.append(world.hashed(view_of("demand", keys=("product",), where=POSITIVE[0])))
    result = world.publish()
    assert (result.unchanged, result.filling) == (["spend"], ["demand"])
    with Client(redis=world.redis_url, project=world.project) as client:
        with pytest.raises(Unavailable, match=r"'demand' is unavailable.*headwater backfill demand"):
            client.get(["demand"], entities={"product": ["p1"]})
        assert run(world, lake, "demand").active
        assert client.get(["demand:n"], entities={"product": ["p1"]}).rows()[0]["demand__n"] > 0
    filled = world.rows("demand")
    assert {born for row in filled.values() for _, born, _ in read_header(row).partitions} == {0}
    # Equal bytes from the lake and from the stream, but for where they were born.
    world.produce(random_events(200, seed=2))
    world.catch_up()
    assert {born for row in world.rows("demand").values() for _, born, _ in read_header(row).partitions} == {0}
    for view, where in (("spend", None), ("demand", POSITIVE[1])):
        world.assert_equal_to_the_slow_loop(view, where)


def test_events_without_a_key_are_counted_in_backfill_too(world: World, lake: Lake) -> None:
    world.produce([{"customer": None, "ts": e["ts"]} for e in random_events(7)])
    world.sink(lake)
    change(world, features=CHANGED)
    run(world, lake)
    world.produce([{"customer": None, "ts": e["ts"]} for e in random_events(5)])
    world.catch_up()
    assert world.counters() == {"null_keys": 12}
    world.assert_equal_to_the_slow_loop()


def test_rows_of_a_fill_expire_as_the_workers_do(world: World, lake: Lake) -> None:
    change(world, features=CHANGED[:1])
    seconds, micros = world.connection.command("TIME")
    assert run(world, lake).active
    fill = load_fill(world.connection, world.project, "spend", fill_of(world))
    # The window, its hop, the topic's retention (a week) and a week.
    stays = (2 * HOUR + 5 * MINUTE + 14 * DAY) // 1000
    prefix = row_prefix(world.project, "spend", fill.state_hash, fill.id)
    ends = {world.connection.command("PEXPIRETIME", k) for some in scan_rows(world.connection, prefix) for k in some}
    later, micros_later = world.connection.command("TIME")
    assert int(seconds) * 1000 + int(micros) // 1000 + stays <= min(ends)
    assert max(ends) <= int(later) * 1000 + int(micros_later) // 1000 + stays


def test_a_running_worker_takes_up_a_fill_that_a_backfill_left_behind_the_old_one(world: World, lake: Lake) -> None:
    with world.running_worker():
        world.wait_until_caught_up()
        change(world, features=CHANGED)
        new = waiting(world)
        # The lake ends before these, so the backfill cannot switch; nothing but the worker is left to do it.
        world.produce(random_events(100, seed=2))
        world.wait_until_caught_up()
        assert not run(world, lake).active
        wait_for(lambda: fill_of(world) == new, "the worker does not see that the fill has positions")
    world.assert_equal_to_the_slow_loop()


def test_a_changed_view_fills_beside_the_old_and_is_switched_to_when_it_is_not_behind(world: World, lake: Lake) -> None:
    old = fill_of(world)
    change(world, features=CHANGED)
    assert waiting(world) != fill_of(world) == old
    # The lake ends where the old fill was; by now that one is further.
    world.produce(random_events(300, seed=2))
    world.catch_up()
    before = places(world, old)
    assert not run(world, lake).active
    new = waiting(world)
    assert all(at < before[p] for p, at in places(world, new).items())
    assert not switch(world.connection, world.project, "spend")
    # One partition short of it is behind as well.
    for p in (0, 1, 2):
        world.connection.command("SET", position_key(world.project, "spend", new, p), before[p])
    assert not switch(world.connection, world.project, "spend")
    for p in (0, 1, 2):
        world.connection.command("SET", position_key(world.project, "spend", new, p), 100)
    assert fill_of(world) == old
    assert read(world, "spend:n").rows()[0]["spend__n"] == sum(e["customer"] == 1 for e in world.sent)
    with pytest.raises(Unavailable, match="its view was changed and the new fill is not complete yet"):
        read(world, "spend:n_2h")
    world.catch_up()
    assert fill_of(world) == new
    assert world.published().filling == {}
    assert read(world, "spend:most").statuses["spend"] == ["PRESENT"]
    world.assert_equal_to_the_slow_loop()
    # Of the old fill nothing is left.
    left = [k for some in scan_rows(world.connection, b"hw:") for k in some if old.encode() in k]
    assert left == []


def test_readers_change_fills_between_reads_and_never_see_half_of_one(world: World, lake: Lake) -> None:
    change(world, features=(*view_of().features, *CHANGED))
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        with Client(redis=world.redis_url, project=world.project) as client:
            while not over.is_set():
                rows = client.get(["spend:n"], entities={"customer": list(range(20))}).rows()
                seen.append(sum(row["spend__n"] for row in rows))

    reader = threading.Thread(target=look)
    reader.start()
    wait_for(lambda: len(seen) > 20, "no reads")
    assert run(world, lake).active
    count = len(seen)
    wait_for(lambda: len(seen) > count + 20, "no reads after the switch")
    over.set()
    reader.join()
    assert set(seen) == {400}


def test_no_worker_touches_a_fill_that_has_no_positions(
    world: World, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(world, features=CHANGED)

    def killed(*_) -> None:
        raise KeyboardInterrupt

    # Rows are written, positions are not.
    monkeypatch.setattr(_Backfill, "_place", killed)
    with pytest.raises(KeyboardInterrupt):
        run(world, lake)
    monkeypatch.undo()
    half = waiting(world)
    definition = world.published().filling["spend"].definition
    rows = read_rows(world.connection, world.project, definition, half)
    assert rows
    world.produce(random_events(200, seed=2))
    world.catch_up()
    assert read_rows(world.connection, world.project, definition, half) == rows
    assert places(world, half) == {}
    assert world.published().filling["spend"].fill == half
    run(world, lake)
    world.catch_up()
    assert fill_of(world) == half
    world.assert_equal_to_the_slow_loop()


@pytest.mark.parametrize("step", ["_write", "_place"])
def test_a_backfill_that_slept_past_its_lease_writes_nothing_over_another(
    world: World, lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    change(world, features=CHANGED)
    go_on = getattr(_Backfill, step)
    others: list = []

    def overtaken(self, *args) -> None:
        if not others:
            others.append(None)
            self.connection.command("DEL", self._lock)
            world.produce(random_events(100, seed=2))
            world.sink(lake)
            others.append(backfill(lake, Connection(world.redis_url), world.kafka, world.project, ["spend"]))
            others.append(world.rows())
        go_on(self, *args)

    monkeypatch.setattr(_Backfill, step, overtaken)
    with pytest.raises(HeadwaterError, match="another backfill or 'headwater apply' took this fill over"):
        run(world, lake)
    assert world.rows() == others[2]
    world.catch_up()
    world.assert_equal_to_the_slow_loop()


def test_of_two_backfills_at_once_one_is_refused(world: World, lake: Lake) -> None:
    change(world, features=CHANGED)
    lock = b"hw:lock:" + fill_key(world.project, "spend", waiting(world))
    world.connection.command("SET", lock, "another's")
    with pytest.raises(HeadwaterError, match="'spend' is being filled by another backfill"):
        run(world, lake)
    assert world.connection.command("GET", lock) == b"another's"


def test_rows_and_positions_of_a_fill_come_from_one_snapshot_though_the_sink_goes_on(
    world: World, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(world, features=CHANGED)
    take = EventSnapshot.read

    def meanwhile(self, *args, **how):
        world.produce(random_events(120, seed=2))
        world.sink(lake)
        events = take(self, *args, **how)
        world.produce(random_events(80, seed=3))
        world.sink(lake)
        return events

    monkeypatch.setattr(EventSnapshot, "read", meanwhile)
    assert run(world, lake).events == 400
    assert places(world, fill_of(world)) == {0: 100, 1: 100, 2: 100, 3: 100}
    world.catch_up()
    world.assert_equal_to_the_slow_loop()


def test_a_fill_that_is_given_up_loses_record_and_positions_before_its_rows(
    world: World, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, left = fill_of(world), []
    delete = plan_store.delete_rows

    def look_first(connection, prefix: bytes) -> int:
        names = [
            fill_key(world.project, "spend", old),
            *(position_key(world.project, "spend", old, p) for p in range(4)),
        ]
        left.append((connection.command("EXISTS", *names), len(scan_rows(connection, prefix)) > 0))
        return delete(connection, prefix)

    monkeypatch.setattr(plan_store, "delete_rows", look_first)
    change(world, features=CHANGED)
    assert run(world, lake).active
    assert left == [(0, True)]


def test_going_back_to_an_earlier_definition_is_a_new_fill(world: World, lake: Lake) -> None:
    first = fill_of(world)
    change(world, features=CHANGED)
    run(world, lake)
    second = fill_of(world)
    world.produce(random_events(200, seed=2))
    world.catch_up()
    change(world)
    third = waiting(world)
    assert len({first, second, third}) == 3
    assert fill_of(world) == second
    assert places(world, third) == {}
    world.sink(lake)
    assert run(world, lake).active
    assert fill_of(world) == third
    world.assert_equal_to_the_slow_loop()


def test_going_back_before_the_change_was_filled_gives_that_filling_up(world: World, lake: Lake) -> None:
    first = fill_of(world)
    change(world, features=CHANGED)
    given_up = waiting(world)
    change(world)
    assert (fill_of(world), world.published().filling) == (first, {})
    assert load_fill(world.connection, world.project, "spend", given_up) is None
    world.produce(random_events(100, seed=2))
    world.catch_up()
    world.assert_equal_to_the_slow_loop()


def test_a_fill_whose_record_is_gone_is_unavailable_and_filled_again(
    world: World, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    old = fill_of(world)
    with Client(redis=world.redis_url, project=world.project) as client:
        ask = {"entities": {"customer": [1, 999]}}
        assert client.get(["spend:n"], **ask).rows()[1]["spend__n"] == 0
        world.connection.command("DEL", fill_key(world.project, "spend", old))
        with pytest.raises(Unavailable):
            client.get(["spend:n"], **ask)
        with caplog.at_level(logging.WARNING, "headwater.stream"):
            world.catch_up()
        assert [r.getMessage() for r in caplog.records if "headwater backfill spend" in r.getMessage()]
        assert waiting(world) != old
        with pytest.raises(Unavailable):
            client.get(["spend:n"], **ask)
        run(world, lake)
        assert client.get(["spend:n"], **ask).rows()[1]["spend__n"] == 0
    world.assert_equal_to_the_slow_loop()


@pytest.mark.parametrize("lost", [[1], [0, 1, 2, 3]], ids=["one", "all"])
def test_a_position_lost_under_a_running_worker_puts_the_view_back_to_filling(
    world: World, lake: Lake, caplog: pytest.LogCaptureFixture, lost: list[int]
) -> None:
    old = fill_of(world)
    with caplog.at_level(logging.WARNING, "headwater.stream"), world.running_worker():
        world.wait_until_caught_up()
        before = world.rows()
        world.connection.command("DEL", *(position_key(world.project, "spend", old, p) for p in lost))
        world.produce(random_events(100, seed=2), partition=1)
        wait_for(lambda: "spend" in world.published().filling, "the loss is not noticed")
        begun = waiting(world)
        assert world.rows() == before
        world.sink(lake)
        run(world, lake)
        world.produce(random_events(50, seed=3))
        wait_for(lambda: fill_of(world) == begun, "the new fill is not switched to")
        world.wait_until_caught_up()
    said = [r.getMessage() for r in caplog.records if "headwater backfill spend" in r.getMessage()]
    assert len(said) == 1, said
    world.assert_equal_to_the_slow_loop()


def test_an_emptied_redis_waits_for_apply_which_publishes_though_nothing_changed(
    world: World, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "headwater.stream"), world.running_worker():
        world.wait_until_caught_up()
        keys = [k for some in scan_rows(world.connection, b"hw:") for k in some if world.project.encode() in k]
        world.connection.command("DEL", *keys)
        wait_for(lambda: any("waiting for 'headwater apply'" in r.getMessage() for r in caplog.records), "nothing said")
        world.produce(random_events(60, seed=2))
        assert world.publish().filling == ["spend"]
        with pytest.raises(Unavailable, match="headwater backfill spend"):
            read(world, "spend")
        run(world, lake)
        world.wait_until_caught_up()
    world.assert_equal_to_the_slow_loop()


def test_what_neither_lake_nor_topic_has_is_a_gap_that_a_person_accepts(world: World, lake: Lake) -> None:
    world.produce(random_events(80, seed=2))
    [done] = world.admin.delete_records([TopicPartition(world.topic, 2, 115)]).values()
    done.result(20)
    change(world, features=CHANGED)
    with pytest.raises(HeadwaterError, match=r"Events 100 to 114 of topic .*, partition 2, are neither.*--accept-gaps"):
        run(world, lake)
    assert lake.gaps(world.topic) == []
    assert fill_of(world) != waiting(world)
    backfill(lake, world.connection, world.kafka, world.project, ["spend"], accept_gaps=True)
    assert [(g.partition, g.start, g.end, g.accepted) for g in lake.gaps(world.topic)] == [(2, 100, 115, True)]
    world.catch_up()
    world.sent = [e for e in world.sent if not (e["_partition"] == 2 and 100 <= e["_offset"] < 115)]
    world.assert_equal_to_the_slow_loop()


def test_a_switch_to_a_fill_without_a_record_does_nothing(world: World) -> None:
    old = fill_of(world)
    change(world, features=CHANGED)
    record = load_fill(world.connection, world.project, "spend", waiting(world))
    world.connection.command("DEL", fill_key(world.project, "spend", record.id))
    for p in range(4):
        world.connection.command("SET", position_key(world.project, "spend", record.id, p), 10_000)
    assert not switch(world.connection, world.project, "spend")
    assert fill_of(world) == old
    world.connection.command("SET", fill_key(world.project, "spend", record.id), msgspec.json.encode(record))
    assert switch(world.connection, world.project, "spend")
