"""Replay of events that were not admitted: after a fix each counts once, whatever happens meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from headwater.errors import HeadwaterError, UsageError
from headwater.lake import Lake
from headwater.online.first_fills import Start
from headwater.online.plan_store import publish
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Expectation, Plan
from headwater.plans.topics import TopicSettings, create_topics
from pipelines.backfill import backfill
from pipelines.letters import parse_place
from pipelines.replays import Original, Replayer, make_ledger
from tests.conftest import feature_store_yaml
from tests.pipelines.stream_world import CHECKOUT, DAY, World, random_events
from tests.validation.planted_world import run_cli

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
POSITIVE = Expectation("between", "price", minimum=0.0)
BROKEN = [b"{", b"\xff\x00\x1b[31m"]


class Replays(World):
    """A world with a repository: 100 events, some of which an expectation withholds, and two that are none."""

    def __init__(self, redis_url: str, kafka: str, root: Path, **how: Any) -> None:
        super().__init__(redis_url, kafka, partitions=2, expect=[POSITIVE], **how)
        self.root, self.lake = root, Lake(str(root / ".headwater" / "lake"))
        (root / "feature_store.yaml").write_text(feature_store_yaml(self.project, redis_url, kafka, None))

    def begin(self) -> None:
        self.publish()
        self.produce([*random_events(100, seed=3), *BROKEN])
        self.withheld = [e for e in self.sent if e["price"] < 0]
        assert self.withheld
        self.catch_up()
        self.sink(self.lake)

    def fix(self, **source: Any) -> None:
        """Another definition of the source, published and filled."""
        self.source = msgspec.structs.replace(self.source, **source)
        self.views = [self.hashed(v) for v in self.views]
        self.publish()
        backfill(self.lake, self.connection, self.kafka, self.project, [v.name for v in self.views])
        self.catch_up()

    def cli(self, *args: str):
        return run_cli("-C", str(self.root), *args)

    def replay(self, *args: str) -> list[dict[str, Any]]:
        said = self.cli("dead-letters", "replay", "--json", *args)
        assert said.code == 0, said.err
        return json.loads(said.out)

    def take(self, replayed: Sequence[dict[str, Any]]) -> None:
        """The slow loop is told where the replayed events lie now."""
        places = {(x["partition"], x["offset"]): x["replayed_as"]["offset"] for x in replayed if x["replayed_as"]}
        for e in self.sent:
            e["_offset"] = places.get((e["_partition"], e["_offset"]), e["_offset"])

    def assert_each_counts_once(self) -> None:
        self.catch_up()
        self.sink(self.lake)
        self.assert_equal_to_the_slow_loop()
        said = self.cli("check", "--json")
        assert (said.code, said.view("spend")["differences"]) == (0, {})

    def ends(self) -> int:
        return sum(topic_facts(self.kafka, [self.topic])[self.topic].ends.values())


@pytest.fixture
def world(redis_url: str, kafka: str, tmp_path: Path) -> Replays:
    world = Replays(redis_url, kafka, tmp_path)
    world.begin()
    return world


def test_after_a_fix_each_event_that_fits_counts_once_however_often_it_is_replayed(world: Replays) -> None:
    world.fix(expectations=())
    done = world.replay()
    assert sorted((x["kind"], x["sent"]) for x in done) == [
        *[("dead-letter", False)] * 2,
        *[("quarantine", True)] * len(world.withheld),
    ]
    assert all(x["left"].startswith("still not admitted") for x in done if x["kind"] == "dead-letter")
    world.take(done)
    world.assert_each_counts_once()
    again = world.replay()
    assert [x["sent"] for x in again] == [False] * len(again)
    assert [x["replayed_as"] for x in again] == [x["replayed_as"] for x in done]
    world.assert_each_counts_once()
    listed = world.cli("dead-letters", "list", "--kind", "quarantine").out
    assert listed.count("(replayed as ") == len(world.withheld)
    # A backfill takes the replayed event, and not the one that was withheld.
    backfill(world.lake, world.connection, world.kafka, world.project, ["spend"])
    world.assert_each_counts_once()


def test_before_the_fix_nothing_fits_and_nothing_is_sent(world: Replays) -> None:
    before = world.ends()
    done = world.replay()
    assert len(done) == len(world.withheld) + 2
    assert all(x["left"].startswith("still not admitted") for x in done)
    assert world.ends() == before


def test_a_dry_run_and_filters_choose_what_is_sent(world: Replays) -> None:
    world.fix(expectations=())
    before, first = world.ends(), world.withheld[0]
    place = f"{world.topic}/{first['_partition']}/{first['_offset']}"
    assert sum(x["fits"] for x in world.replay("--dry-run")) == len(world.withheld)
    assert world.replay("--reason", "no such reason") == []
    assert "fits now" in world.cli("dead-letters", "replay", "--dry-run", "--place", place).out
    assert world.ends() == before
    [done] = world.replay("--place", place, "--reason", "EXPECTED A VALUE", "--kind", "quarantine")
    assert (done["partition"], done["offset"], done["sent"]) == (first["_partition"], first["_offset"], True)
    assert sum(x["sent"] for x in world.replay()) == len(world.withheld) - 1
    world.take(world.replay())
    world.assert_each_counts_once()


@pytest.mark.parametrize("after_commit", [False, True], ids=["before the commit", "after the commit"])
def test_a_replay_that_is_killed_counts_nothing_twice(world: Replays, after_commit: bool) -> None:
    world.fix(expectations=())
    # The first of several transactions goes through, and the process dies on either side of the second's commit.
    code = (
        "import os, sys\nimport pipelines.replays as r\nr.CHUNK = 2\ncommit, count = r.Replayer.commit, []\n"
        "def dying(self):\n    count.append(1)\n"
        f"    if len(count) == 2 and not {after_commit}: os._exit(9)\n    commit(self)\n"
        "    if len(count) == 2: os._exit(9)\n"
        "r.Replayer.commit = dying\nfrom headwater.cli import main\n"
        f"sys.argv = ['headwater', '-C', {str(world.root)!r}, 'dead-letters', 'replay']\nmain()\n"
    )
    assert len(world.withheld) > 4
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 9
    done = world.replay()
    assert sum(x["sent"] for x in done) == len(world.withheld) - (4 if after_commit else 2)
    world.take(done)
    world.assert_each_counts_once()


def test_a_second_replay_fences_the_first_and_sends_what_it_did_not_commit(world: Replays) -> None:
    topic_id = topic_facts(world.kafka, [world.topic])[world.topic].id
    make_ledger(world.kafka, world.topic, TopicSettings())
    originals = [Original(0, i, 1, b"%d" % i) for i in (1, 2, 3)]
    first = Replayer(world.kafka, world.topic, topic_id)
    assert len(list(first.send(originals[:1]))) == 1
    second = Replayer(world.kafka, world.topic, topic_id)
    with pytest.raises(HeadwaterError, match="has begun, so this one ended"):
        list(first.send(originals))
    assert [(e.offset, e.as_partition) for e in second.send(originals)] == [(2, 0), (3, 0)]
    first.close()
    second.close()


def test_the_future_is_decided_by_the_time_that_the_event_first_had(redis_url: str, kafka: str, tmp_path: Path) -> None:
    world = Replays(redis_url, kafka, tmp_path, config={"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    world.publish()
    then = (time.time_ns() // 1_000_000 - 10 * DAY // 1000) * 1000
    # Two days ahead of the broker, and by now in the past.
    event = {"customer": 1, "price": 5.0, "quantity": 1, "ts": then + 2 * DAY}
    producer = Producer(world.kafka)
    producer.produce(world.topic, json.dumps(event), partition=0, timestamp=then // 1000)
    assert producer.flush(20) == 0
    world.catch_up()
    world.sink(world.lake)
    [left] = world.replay()
    assert (left["sent"], "ahead of the broker's time" in left["left"]) == (False, True)
    world.fix(tolerance=3 * DAY)
    [done] = world.replay()
    assert done["sent"]
    record = read(world, 0, done["replayed_as"]["offset"])
    assert record.timestamp()[1] == then // 1000
    assert dict(record.headers()) == {
        "headwater-replay-of": f"{world.topic}/0/0".encode(),
        "headwater-broker-time": done["broker_time"].encode(),
    }
    world.sent = [{**event, "product": None, "_partition": 0, "_offset": done["replayed_as"]["offset"]}]
    world.assert_each_counts_once()


def test_a_replayed_event_has_the_key_and_the_partition_of_the_first(
    redis_url: str, kafka: str, tmp_path: Path
) -> None:
    world = Replays(redis_url, kafka, tmp_path, config={"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    world.publish()
    then = (time.time_ns() // 1_000_000 - 10 * DAY // 1000) * 1000
    keys = [b"7", b"\xff\x00", None, b"", b"11"]
    events = [{"customer": 7 + i, "product": None, "price": 5.0, "quantity": 1, "ts": then + 2 * DAY} for i in range(5)]
    # The first is withheld by an expectation, the others lie too far ahead of the broker.
    events[0] |= {"price": -1.0, "ts": then}
    producer = Producer(world.kafka)
    for key, event in zip(keys, events, strict=True):
        producer.produce(world.topic, json.dumps(event), key, partition=1, timestamp=then // 1000)
    # A letter from before there were keys in letters.
    old = {"topic": world.topic, "partition": 1, "offset": 4, "kind": "dead-letter", "reason": "ahead", "raw": "{"}
    producer.produce(f"{world.topic}.dead-letters", json.dumps(old))
    assert producer.flush(20) == 0
    world.catch_up()
    world.sink(world.lake)
    listed = json.loads(world.cli("dead-letters", "--json").out)
    assert [(x["key"], x["key_base64"]) for x in listed] == [
        (None, None), (None, "/wA="), (None, None), ("", None), (None, None),
    ]  # fmt: skip
    assert "key          /wA=\n" in world.cli("dead-letters", "show", "1/1").out
    world.fix(expectations=(), tolerance=3 * DAY)
    # Two whose keys the topic still has; then only the letters have them.
    done = world.replay("--place", "1/0", "--place", "1/4")
    [cut] = world.admin.delete_records([TopicPartition(world.topic, 1, 5)]).values()
    cut.result(20)
    done = sorted([*done, *(x for x in world.replay() if x["sent"])], key=lambda x: x["offset"])
    assert [x["offset"] for x in done] == [0, 1, 2, 3, 4]
    assert [read(world, 1, x["replayed_as"]["offset"]).key() for x in done] == keys
    world.sent = [
        {**e, "_partition": 1, "_offset": x["replayed_as"]["offset"]} for e, x in zip(events, done, strict=True)
    ]
    world.assert_each_counts_once()


def read(world: World, partition: int, offset: int):
    consumer = Consumer({**world.kafka, "group.id": "t", "auto.offset.reset": "error"})
    consumer.assign([TopicPartition(world.topic, partition, offset)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.error() is None
    return message


def test_what_a_worker_read_after_the_fix_counts_already_and_is_left(
    redis_url: str, kafka: str, tmp_path: Path
) -> None:
    world = Replays(redis_url, kafka, tmp_path)
    publish(world.connection, world.kafka, Plan(world.project, (world.source,), ()))
    world.produce(random_events(100, seed=3))
    world.sink(world.lake)
    world.source = msgspec.structs.replace(world.source, expectations=())
    world.views = [world.hashed(v) for v in world.views]
    world.publish()
    world.catch_up(start=Start("earliest"))
    world.assert_equal_to_the_slow_loop()
    done = world.replay()
    assert done
    assert {x["left"] for x in done} == {"spend read it after the fix, and counts it already"}
    world.catch_up()
    world.assert_equal_to_the_slow_loop()


def test_what_the_lake_does_not_have_yet_waits_for_the_sink(redis_url: str, kafka: str, tmp_path: Path) -> None:
    world = Replays(redis_url, kafka, tmp_path)
    world.publish()
    world.produce(BROKEN[:1])
    world.catch_up()
    [left] = world.replay()
    assert left["left"].startswith("the lake does not have it (yet)")


def test_a_ledger_that_forgets_is_refused(world: Replays) -> None:
    world.fix(expectations=())
    create_topics(world.kafka, [f"{world.topic}.replays"], TopicSettings(1, 1), {"retention.ms": "1000"})
    said = world.cli("dead-letters", "replay")
    assert (said.code, "Set cleanup.policy=compact on it" in said.err) == (1, True)


def test_show_prints_text_as_it_is_and_other_bytes_in_hexadecimal(world: Replays) -> None:
    listed = json.loads(world.cli("dead-letters", "--json").out)
    [binary] = [x for x in listed if x["raw_base64"]]
    [text] = [x for x in listed if x["raw"] == "{"]
    said = world.cli("dead-letters", "show", f"{world.topic}[{binary['partition']}]@{binary['offset']}").out
    assert "\x1b" not in said
    assert "00000000  ff 00 1b 5b 33 31 6d" in said
    assert "...[31m" in said
    assert "reason       invalid UTF-8 at byte 0" in said
    assert "bytes        7" in said
    assert "broker time  20" in said
    said = world.cli("dead-letters", "show", f"{text['partition']}/{text['offset']}").out
    assert said.splitlines()[-2] == "{"
    missing = world.cli("dead-letters", "show", "0/999")
    assert (missing.code, f"No dead letter or quarantined event at {world.topic}/0/999" in missing.err) == (2, True)


def test_places_are_written_as_they_are_printed() -> None:
    assert (
        parse_place("0/17", ["a"]) == parse_place("a/0/17", ["a", "b"]) == parse_place("a[0]@17", ["a"]) == ("a", 0, 17)
    )
    for text, said in (
        ("17", "expected PARTITION/OFFSET"),
        ("0/1", "name the topic, such as a/0/1"),
        ("c/0/1", "no source has"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_place(text, ["a", "b"])
