"""The world of a campaign: servers of its own, three views over two topics, workers, sinks, a server and its reader.

Beside it stands an operator who does what docs/operating.md says: `heal` publishes where Redis has lost the plan,
and backfills what waits for it.
"""

from __future__ import annotations

import math
import os
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from headwater.errors import HeadwaterError, Unreachable
from headwater.lake import Lake
from headwater.online.plan_store import all_positions, load_fill, load_published
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Plan, Source, StreamView
from headwater.repository import load_repository
from headwater.serving.client import Client
from headwater.testing.cases import Record
from headwater.testing.naive_loop import NaiveLoop
from pipelines.backfill import backfill
from pipelines.caught_up import CaughtUp
from tests.campaign.events import PRODUCTS, Flow
from tests.campaign.fleets import Fleet
from tests.conftest import OwnKafka, OwnRedis, feature_store_yaml
from tests.history.log_factory import HOUR, make_feature
from tests.pipelines.stream_world import DAY, FEATURES, World, view_of
from validation.kept_receipts import replay_kept
from validation.lake_side import LakeSide

CHANGED = (
    make_feature("count", name="n_2h", window=2 * HOUR),
    make_feature("max", "price", window=None, name="price_most"),
    make_feature("distinct", "product", window=DAY, hop=HOUR, limit=6, name="products_1d"),
)
BASKET = (
    make_feature("count", name="n_1d", window=DAY, hop=HOUR),
    make_feature("mean", "price", window=DAY, hop=HOUR, name="price_mean_1d"),
    make_feature("first", "quantity", window=None, name="quantity_first"),
    make_feature("last_n", "price", window=None, n=3, name="price_last_3"),
)
SEEN = (
    make_feature("count", name="n_1h"), make_feature("stddev", "price", window=DAY, hop=HOUR, name="price_stddev_1d"),
    make_feature("approx_distinct", "product", window=None, name="products"),
)  # fmt: skip
LONG = 600.0
"""Seconds that anything may take before the campaign gives up."""


class CampaignWorld(World):
    """Views `spend` (by customer) and `basket` (by customer and product) over one topic, `seen` over another."""

    def __init__(self, folder: Path, lake: Path, *, customers: int, rate: int, workers: int, seed: int) -> None:
        self.own_redis, self.own_kafka = OwnRedis(folder / "redis"), OwnKafka(folder / "kafka")
        spend = view_of(features=FEATURES)
        basket = msgspec.structs.replace(
            view_of("basket", BASKET, ("customer", "product"), where="quantity > 0"), name="basket"
        )
        super().__init__(self.own_redis.url, self.own_kafka.bootstrap, views=[spend, basket])
        self.visits = msgspec.structs.replace(self.source, name="visits", topic=f"visits-{self.project}")
        self.create_visits()
        self.root, self.pick = folder / "repo", random.Random(seed)
        self.root.mkdir()
        yaml = feature_store_yaml(self.project, self.own_redis.url, self.own_kafka.bootstrap, lake)
        (self.root / "feature_store.yaml").write_text(yaml)
        self.lake = Lake(str(lake))
        self.publish()
        self.customers, self.problems, self.moved_away = customers, list[str](), list[Path]()
        self.flow = Flow(self.kafka, [self.topic, self.visits.topic], customers, rate, seed)
        self.workers = Fleet(self.root, "stream", "--batch", "500", size=workers)
        self.sinks = Fleet(self.root, "sink", "--every", "0.5", size=1)
        self.server = Fleet(self.root, "serve", "--port", "0", "--receipts", "1", size=1)

    @property
    def plan(self) -> Plan:
        seen = msgspec.structs.replace(view_of("seen", SEEN), source="visits")
        from headwater.plans.plan import stream_state_hash

        seen = msgspec.structs.replace(seen, state_hash=stream_state_hash(seen, self.visits))
        return Plan(self.project, (self.source, self.visits), (*self.views, seen))

    def define_spend(self, changed: bool) -> None:
        """Another definition of spend; to be published."""
        spend = self.hashed(view_of(features=CHANGED if changed else FEATURES))
        self.views = [spend, *self.views[1:]]

    def create_visits(self) -> None:
        """The second topic, with its place for dead letters."""
        from confluent_kafka.admin import NewTopic

        names = [self.visits.topic, f"{self.visits.topic}.dead-letters"]
        there = self.admin.list_topics(timeout=10).topics
        new = [NewTopic(n, 4, 1, config=self.config) for n in names if n not in there]
        for done in self.admin.create_topics(new).values():
            done.result(30)
        self.wait(lambda: len(topic_facts(self.kafka, names)) == 2, "the topic is not there")

    def address(self) -> str | None:
        """Where the server that runs now listens."""
        for process in self.server.running:
            for line in process.lines:
                if "http://" in line:
                    return "http://" + line.split("http://")[1].split()[0]
        return None

    # -- the operator -------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = LONG) -> None:
        """Until it holds; servers may be away meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if not self.connection.connected:
                    self.connection.reconnect()
                if condition():
                    return
            except Unreachable:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} after {seconds:.0f} s")
            time.sleep(0.1)

    def heal(self) -> None:
        """Until every view has the fill of its definition, and can be read."""
        self.wait(self._healed, "a view is not filled")

    def _healed(self) -> bool:
        published = load_published(self.connection, self.project)
        facts = topic_facts(self.kafka, [self.topic, self.visits.topic], offsets=False)
        if published is None or published.plan != self.plan or self._old_topic(published, facts):
            self.publish()
            return False
        for name, filling in published.filling.items():
            fill = load_fill(self.connection, self.project, name, filling.fill)
            if fill is not None and all_positions(self.connection, self.project, fill):
                continue
            try:
                backfill(self.lake, self.connection, self.kafka, self.project, [name])
            except Unreachable:
                raise
            except HeadwaterError as error:
                if "being filled by another" not in str(error) and "too" not in str(error):
                    self.said(f"backfill {name}: {error}")
        return not published.filling and len(published.active) == 3

    def _old_topic(self, published, facts) -> bool:
        for name, active in published.active.items():
            fill = load_fill(self.connection, self.project, name, active.fill)
            topic = facts.get(published.plan.source(active.definition.source).topic)
            if name not in published.filling and fill is not None and topic is not None and fill.topic_id != topic.id:
                return True
        return False

    def said(self, text: str) -> None:
        """Something that a person should look at."""
        if text not in self.problems:
            self.problems.append(text)

    def settle(self) -> float:
        """Healed, and the workers are where the topics end now; the seconds that it took."""
        began, deadline = time.monotonic(), time.monotonic() + LONG
        while True:
            self.heal()
            caught_up = CaughtUp(self.redis_url, self.kafka, self.project)
            until = time.monotonic() + 30
            try:
                while not (reached := caught_up()) and time.monotonic() < until:
                    time.sleep(0.05)
                published = load_published(self.connection, self.project)
                if reached and published is not None and not published.filling and self._healed():
                    return time.monotonic() - began
            except HeadwaterError:
                pass  # the plan is gone again, or a server away: heal once more
            assert time.monotonic() < deadline, f"{caught_up.remaining} events are left after {LONG:.0f} s"

    def lake_covers(self) -> None:
        """The sinks have come to where the topics end now."""
        ends = {t: f.ends for t, f in topic_facts(self.kafka, [self.topic, self.visits.topic]).items()}

        def covers() -> bool:
            return all(
                self.lake.positions(t).get(p, 0) >= end for t, mine in ends.items() for p, end in mine.items() if end
            )

        self.wait(covers, "the sinks do not catch up")

    # -- comparing ----------------------------------------------------------------------------------------------

    def differences(self, customers: list[int]) -> tuple[int, int]:
        """(values compared, values that differ) of these customers, read online, against the naive loop; now and
        just behind each row's newest event."""
        compared = differ = 0
        plan = self.plan
        for view in plan.stream_views():
            source = plan.source(view.source)
            known = self.flow.records[source.topic]
            records = [r for c in customers for r in known.get(c, ())]
            naive = NaiveLoop(view, source, records)
            keys: list[tuple[Any, ...]] = [(c,) for c in customers]
            if len(view.keys) > 1:
                keys = [(c, f"p{i}") for c in customers for i in range(PRODUCTS)]
            entities = {k.name: [key[i] for key in keys] for i, k in enumerate(view.keys)}
            with Client(redis=self.redis_url, project=self.project) as client:
                for as_of in (None, 0):
                    rows = client.get([view.name], entities=entities, as_of=as_of)
                    for i, (key, at) in enumerate(zip(keys, rows.as_of[view.name], strict=True)):
                        expected = naive.answer(key, at)
                        for column, values in zip(rows.shape.columns, rows.values, strict=True):
                            compared += 1
                            if not same(values[i], expected[column.feature]):
                                differ += 1
                                if differ <= 3:
                                    self.said(self._events_of(view, source, key, records))
                                    self.said(f"{view.name} {key} at {at} {column.feature}: online {values[i]!r}, "
                                              f"naive loop {expected[column.feature]!r}")  # fmt: skip
        return compared, differ

    def _events_of(self, view: StreamView, source: Source, key: tuple[Any, ...], records: list[Record]) -> str:
        """What the producer and the lake know of a key, where they do not know the same."""
        names = [k.name for k in view.keys]
        sent = {(r.partition, r.offset): r.values for r in records if tuple(r.values[n] for n in names) == key}
        kept = self.lake.read_events(source, where_keys={n: [v] for n, v in zip(names, key, strict=True)}).to_pylist()
        places = {(e["_partition"], e["_offset"]): e for e in kept}
        return (
            f"{view.name} {key}: only the producer has { {p: sent[p] for p in sent.keys() - places.keys()} }, only the "
            f"lake has { {p: places[p] for p in places.keys() - sent.keys()} }"
        )

    def replay_what_was_moved_away(self) -> tuple[int, int]:
        """Receipts (kept, equal) of the topics that were deleted: their tables are put back for a moment."""
        now = Path(self.lake.events_table(self.visits.topic).uri.removeprefix("file://"))
        kept = equal = 0
        for table in self.moved_away:
            aside = now.with_name(f"{now.name}-now")
            now.rename(aside)
            table.rename(now)
            try:
                side = LakeSide(load_repository(self.root), self.lake)
                found = replay_kept(self.root / ".headwater" / "receipts", side, ["seen"])["seen"]
                kept, equal = kept + found.kept - found.elsewhere, equal + found.equal
            finally:
                now.rename(table)
                aside.rename(now)
        return kept, equal

    # -- a full disk --------------------------------------------------------------------------------------------

    def fill_disk(self, ballast: Path) -> bool:
        """Take what is left of a small file system; False where the lake lies on another one."""
        if Path(self.lake.location).stat().st_dev == self.root.stat().st_dev:
            return False
        with ballast.open("wb") as file:
            while (left := shutil.disk_usage(ballast.parent).free) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), left)
                    file.seek(left, os.SEEK_CUR)
                except OSError:
                    return True  # the sink has taken some of it meanwhile: the rest is too little for a file
        return True

    def limit_sinks(self, size: int) -> None:
        """The most bytes of a file that sinks write (EFBIG past it); -1 for no limit."""
        for process in self.sinks.running:
            hard = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (size, hard))

    def end(self) -> None:
        """Stop everything."""
        self.flow.stop()
        for fleet in (self.workers, self.sinks, self.server):
            fleet.stop()
        self.connection.close()
        self.own_kafka.kill()
        self.own_redis.kill()


def same(a: Any, b: Any) -> bool:
    """Bit for bit; an int is not a float."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return repr(a) == repr(b)
