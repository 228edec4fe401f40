"""Rule 4 on the whole way: what is admitted depends on the event alone, and what is not is never lost from sight."""

from __future__ import annotations

import json
import logging
import time

import msgspec
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from headwater.errors import ReadError
from headwater.lake import Lake
from headwater.lake.event_rows import META
from headwater.lake.tables import read_files
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Expectation, Field, stream_state_hash
from headwater.rows.reader import ViewReader
from pipelines import dead_letters
from pipelines.dead_letters import read_dead_letters
from tests.history.log_factory import SOURCE, make_feature
from tests.pipelines.stream_world import DAY, NOON, POSITIVE, World, random_events, view_of

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
EXPECT = (
    Expectation("between", "quantity", None, 1000),
    # Reports, and withholds nothing.
    Expectation("between", "price", 0.0, None, mostly=0.5),
)
NEXT_YEAR = time.time_ns() // 1000 + 365 * DAY
LARGE = b'{"product": "' + b"\xc3\x28" * 475_000 + b'"}'
GARBAGE = [
    (b'{"customer": 1, "ts": 1320', "dead-letter", "truncated"),
    (b'{"customer": "one", "ts": %d}' % NOON, "dead-letter", "Expected `int | null`, got `str` - at `$.customer`"),
    (b'{"customer": 1, "ts": true}', "dead-letter", "got `bool` - at `$.ts`"),
    (b'{"customer": 1}', "dead-letter", "ts: the event time is missing"),
    (b'{"customer": 1, "ts": %d}' % NEXT_YEAR, "dead-letter", "ahead of the broker's time"),
    (b'{"customer": 1, "ts": %d, "quantity": 9223372036854775808}' % NOON, "dead-letter", "does not fit 64 bits"),
    (b'{"customer": 1, "ts": %d, "quantity": 1.5}' % NOON, "dead-letter", "got `float` - at `$.quantity`"),
    (b'{"customer": 1, "ts": %d, "price": 1e400}' % NOON, "dead-letter", "out of range - at `$.price`"),
    (b'{"ts": %d, "x": ' % NOON + b"[" * 50_000 + b"]" * 50_000 + b"}", "dead-letter", "deeper than 100 levels"),
    (b'{"ts": %d, "product": "\xff"}' % NOON, "dead-letter", "invalid UTF-8 at byte"),
    (b'{"ts": %d, "product": "\\ud800"}' % NOON, "dead-letter", ""),
    (LARGE, "dead-letter", "invalid UTF-8 at byte 13"),
    (b"", "dead-letter", "empty value"),
    (None, "dead-letter", "a tombstone"),
    (b"[]", "dead-letter", "Expected `object`"),
    (b'{"customer": 1, "ts": %d, "quantity": 1001}' % NOON, "quarantine", "quantity: expected a value at most 1000"),
]


def amid(events: list[dict]) -> tuple[list, dict[int, tuple]]:
    """Each piece of garbage between two events, and by offset what it is: all in one partition."""
    mixed: list = []
    places = {}
    for i, event in enumerate(events):
        mixed.append(event)
        if i < len(GARBAGE):
            places[len(mixed)] = GARBAGE[i]
            mixed.append(GARBAGE[i][0])
    return mixed, places


def check(found: dict[int, tuple[str, str]], expected: dict[int, tuple]) -> None:
    assert found.keys() == expected.keys()
    for offset, (_, kind, reason) in expected.items():
        assert found[offset][0] == kind
        assert reason in found[offset][1], found[offset]


def dead_only(places: dict[int, tuple]) -> dict[int, tuple]:
    return {offset: what for offset, what in places.items() if what[1] == "dead-letter"}


def test_garbage_is_set_aside_with_its_reason_listed_and_the_rest_flows_on(
    redis_url: str, kafka: str, tmp_path, make_repository, headwater_here
) -> None:
    views = [view_of(), view_of("demand", keys=("product", "customer"), where=POSITIVE[0])]
    world, lake = World(redis_url, kafka, views=views, expect=EXPECT), Lake(str(tmp_path / "lake"))
    world.publish()
    mixed, places = amid(random_events(60))
    world.produce(mixed, partition=1)
    world.produce(random_events(40, seed=2), partition=0)
    world.catch_up(batch=7)
    world.sink(lake)
    world.assert_equal_to_the_slow_loop()
    world.assert_equal_to_the_slow_loop("demand", POSITIVE[1])

    letters = read_dead_letters(world.kafka, [world.topic])
    assert {(x.topic, x.partition) for x in letters} == {(world.topic, 1)}
    check({x.offset: (x.kind, x.reason) for x in letters}, dead_only(places))
    assert next(x for x in letters if places[x.offset][0] == LARGE).reason.endswith("the lake has all)")

    kept = lake.read_rejected(world.source).to_pylist()
    check({r["_offset"]: (r["_kind"], r["_reason"]) for r in kept}, places)
    assert {r["_offset"]: r["_raw"] for r in kept} == {offset: what[0] for offset, what in places.items()}
    admitted = lake.read_events(world.source).select(["_partition", "_offset"]).to_pylist()
    assert sorted((r["_partition"], r["_offset"]) for r in admitted) == sorted(
        (e["_partition"], e["_offset"]) for e in world.sent
    )

    repository = make_repository(project=world.project, definitions="", lake=lake.location)
    listed = json.loads(headwater_here("dead-letters", "list", "--json", repo=repository).stdout)
    assert [(x["topic"], x["partition"], x["offset"]) for x in listed] == [(world.topic, 1, o) for o in sorted(places)]
    check({x["offset"]: (x["kind"], x["reason"]) for x in listed}, places)


DIES = """
import os, signal
from {module} import {owner}
{owner}.{method} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_killed_beside_dead_letters_lose_none_and_each_is_listed_once(redis_url: str, kafka: str) -> None:
    #             killed where                                    so many copies are sent in the end
    deaths = [(DIES.format(module="pipelines.dead_letters", owner="DeadLetters", method="send"), 1),
              (DIES.format(module="pipelines.feeds", owner="ViewFeed", method="start"), 2)]  # fmt: skip
    mixed, places = amid([*random_events(30), {"customer": None, "ts": NOON}])
    worlds, workers = [], []
    for code, _ in deaths:
        world = World(redis_url, kafka, partitions=2, expect=EXPECT)
        world.publish()
        world.produce(mixed, partition=1)
        workers.append(world.start_worker(batch=10_000, before=code))
        worlds.append(world)
    for worker in workers:
        said = worker.communicate(timeout=60)[1]
        assert worker.returncode == -9, said
    for world, (_, copies) in zip(worlds, deaths, strict=True):
        world.catch_up()
        world.assert_equal_to_the_slow_loop()
        assert world.counters() == {"null_keys": 1}
        name = f"{world.topic}.dead-letters"
        assert topic_facts(world.kafka, [name])[name].ends == {0: copies * len(dead_only(places))}
        letters = read_dead_letters(world.kafka, [world.topic])
        assert [x.offset for x in letters] == sorted(dead_only(places))


def test_a_position_waits_until_the_broker_has_the_dead_letters(
    redis_url: str, kafka: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "TIMEOUT", 0.5)
    world = World(redis_url, kafka, partitions=1)
    world.publish()
    name = f"{world.topic}.dead-letters"
    [done] = world.admin.delete_topics([name]).values()
    done.result(20)
    while topic_facts(world.kafka, [name]):
        time.sleep(0.02)
    world.produce([*random_events(5), b"{", *random_events(5, seed=2)])
    with caplog.at_level(logging.WARNING, "headwater.stream"), world.running_worker():
        while not caplog.records:
            time.sleep(0.05)
        time.sleep(1)
        fill = world.published().active["spend"].fill
        assert world.connection.command("GET", f"hw:pos:{world.project}:spend:{fill}:0") == b"0"
        assert world.rows() == {}
        [done] = world.admin.create_topics([NewTopic(name, 1, 1)]).values()
        done.result(20)
        world.wait_until_caught_up()
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1, said
    assert f"Dead letters of topic '{world.topic}' were not taken by '{name}'" in said[0]
    world.assert_equal_to_the_slow_loop()
    assert [x.offset for x in read_dead_letters(world.kafka, [world.topic])] == [5]


def test_a_null_join_key_adds_to_no_row_and_a_counter_says_so(
    redis_url: str, kafka: str, make_repository, headwater_here
) -> None:
    views = [
        view_of(where=POSITIVE[0]),
        view_of("demand", keys=("product", "customer")),
        view_of("all", keys=("paid",)),
    ]
    world = World(redis_url, kafka, views=views)
    world.publish()
    events = random_events(90)
    for i, event in enumerate(events):
        event["paid"] = True
        if i % 3 == 0:
            event["customer"] = None
        if i % 5 == 0:
            event["product"] = None
    world.produce(events)
    world.catch_up(batch=20)
    world.assert_equal_to_the_slow_loop(where=POSITIVE[1])
    world.assert_equal_to_the_slow_loop("demand")
    world.assert_equal_to_the_slow_loop("all")
    lost = sum(POSITIVE[1](e) and e["customer"] is None for e in events)
    repository = make_repository(project=world.project, definitions="")
    status = json.loads(headwater_here("status", "--json", repo=repository).stdout)
    assert {v["view"]: (v["state"], v["lag"], v["counters"]) for v in status["views"]} == {
        "spend": ("active", 0, {"null_keys": lost}),
        "demand": ("active", 0, {"null_keys": 42}),
        "all": ("active", 0, {}),
    }
    said = headwater_here("status", repo=repository).stdout
    assert f"null_keys {lost}\n" in said
    assert "null_keys 42\n" in said


def test_the_future_begins_at_the_records_own_time_and_never_at_the_clocks(
    redis_url: str, kafka: str, tmp_path
) -> None:
    config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    world, lake = World(redis_url, kafka, partitions=1, config=config), Lake(str(tmp_path / "lake"))
    world.publish()
    producer = Producer(world.kafka)
    #        event time           the record's time     (tolerance: a day)
    times = [(NOON, NOON), (NOON + DAY, NOON), (NOON + DAY + 1, NOON), (NOON + DAY + 1, NOON + 1000)]
    for at, record in times:
        value = json.dumps({"customer": 1, "ts": at, "quantity": 1})
        producer.produce(world.topic, value, partition=0, timestamp=record // 1000)
    assert producer.flush(20) == 0
    world.remember({"customer": 1, "ts": times[i][0], "quantity": 1, "_partition": 0, "_offset": i} for i in (0, 1, 3))
    world.catch_up()
    world.sink(lake)
    world.assert_equal_to_the_slow_loop()
    [letter] = read_dead_letters(world.kafka, [world.topic])
    assert (letter.offset, "tolerance 1d" in letter.reason) == (2, True)
    [rejected] = lake.read_rejected(world.source).to_pylist()
    assert (rejected["_offset"], rejected["_reason"]) == (2, letter.reason)
    kept = lake.events(world.topic)
    names = ["_offset", "_broker_time", "_timestamp_type"]
    rows = read_files(kept.table, kept.files, pa.schema(META), names).sort_by("_offset").to_pydict()
    assert rows["_timestamp_type"] == [1] * 4
    assert [t.timestamp() * 1_000_000 for t in rows["_broker_time"]] == [record for _, record in times]


def test_what_fits_no_64_bits_is_null_and_counted_and_a_sum_past_them_is_the_reads_error(
    redis_url: str, kafka: str
) -> None:
    features = (
        make_feature("count", window=None, name="n"),
        make_feature("sum", "price", window=None, name="price"),
        make_feature("sum", "tenfold", window=None, name="tenfold", dtypes={"tenfold": "int64"}),
        make_feature("sum", "quantity", window=None, name="quantity"),
    )
    view = view_of(features=features, derive={"tenfold": "quantity * 10"})
    world = World(redis_url, kafka, partitions=1, views=[view])
    world.publish()
    most = 2**63 - 1
    rows = [(1, 2.5, 3), (1, 1e300, 4), (2, -1e13, most), (2, 1.0, most), (3, 9e12, None), (None, 1e300, most)]
    world.produce([{"customer": c, "ts": NOON, "price": p, "quantity": q} for c, p, q in rows])
    world.catch_up()
    assert world.counters() == {"null_keys": 1, "derived_nulls": 3, "scaled_nulls": 2}
    found = world.rows()
    with pytest.raises(ReadError, match="View 'spend': The sum 'quantity' needs more than 64 bits"):
        ViewReader(world.views[0]).read([found[b"2"]], NOON)
    assert ViewReader(world.views[0]).read([found[b"2"]], NOON, ["n", "price", "tenfold"]).values == {
        "n": [2], "price": [1.0], "tenfold": [None]
    }  # fmt: skip
    assert ViewReader(world.views[0]).read([found[b"1"], found[b"3"]], NOON).values == {
        "n": [2, 1], "price": [2.5, 9e12], "tenfold": [70, None], "quantity": [7, None]
    }  # fmt: skip


def test_what_admission_asks_belongs_to_the_state_hash_and_what_only_reports_does_not() -> None:
    def hash_with(**changes) -> str:
        return stream_state_hash(view_of(), msgspec.structs.replace(SOURCE, **changes))

    plain = hash_with()
    assert hash_with(description="x", owner="y", expectations=(EXPECT[1],)) == plain
    changed = [
        hash_with(tolerance=DAY), hash_with(expectations=EXPECT[:1]), hash_with(event_time="other"),
        hash_with(fields=(*SOURCE.fields, Field("x", "int64"))), hash_with(topic="other"),
    ]  # fmt: skip
    assert len({plain, *changed}) == 6
