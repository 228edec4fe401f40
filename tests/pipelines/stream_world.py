"""A small stream of its own for each test: a plan from literals, a topic, feeds and workers, and the slow loop."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.events.admission import Admission
from headwater.expressions.parse import parse
from headwater.lake import Lake
from headwater.online.connection import Connection
from headwater.online.keys import counter_key, entity_key, fill_key, position_key, row_prefix
from headwater.online.plan_store import load_published, publish, scan_rows
from headwater.online.published import Fill
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Expectation, Plan, StreamView, stream_state_hash
from headwater.rows.reader import ViewReader
from pipelines.caught_up import CaughtUp, LakeCaughtUp
from pipelines.feeds import ViewFeed
from pipelines.sink import Sink
from pipelines.worker import Worker, WorkerSettings
from tests.history.log_factory import FIELDS, HOUR, SOURCE, make_feature, make_view
from tests.history.naive import naive_answers, spec_of

NOON = 1_320_000_000_000_000 // HOUR * HOUR
DAY = 24 * HOUR
CHECKOUT = Path(__file__).resolve().parents[2]
FEATURES = (
    make_feature("count", window=None, name="n"),
    make_feature("count", name="n_1h"),
    make_feature("sum", "price", name="price_1h"),
    make_feature("sum", "quantity", 30 * DAY, DAY, name="quantity_30d"),
    make_feature("last", "product", window=None, name="product_last"),
)
POSITIVE = ("quantity > 0", lambda e: None if e["quantity"] is None else e["quantity"] > 0)


def view_of(
    name="spend", features=FEATURES, keys=("customer",), where: str | None = None, derive: dict[str, str] | None = None
) -> StreamView:
    condition = parse(where, FIELDS, place="where") if where else None
    derived = [(column, parse(text, FIELDS, place=column)) for column, text in (derive or {}).items()]
    return msgspec.structs.replace(make_view(*features, keys=keys, where=condition, derive=derived), name=name)


def random_events(count: int, seed: int = 1, customers: int = 20) -> list[dict[str, Any]]:
    """Dicts of events within two hours, some of them days late."""
    pick = random.Random(seed)
    return [
        {
            "customer": pick.randrange(customers), "product": f"p{pick.randrange(9)}",
            "ts": NOON + pick.randrange(2 * HOUR) - pick.choice([0, 0, 0, 0, 3 * DAY]),
            "price": round(pick.uniform(-5, 50), 2), "quantity": pick.randrange(-1, 5),
        }
        for _ in range(count)
    ]  # fmt: skip


class Stream:
    """What a test of feeds needs: Redis, a view, and events in partitions, without a broker."""

    def __init__(
        self, redis_url: str, *, partitions: int = 4, view: StreamView | None = None, retention_ms=DAY // 1000
    ):
        self.redis_url, self.project = redis_url, f"t{uuid.uuid4().hex[:8]}"
        self.connection = Connection(redis_url)
        self.source = msgspec.structs.replace(SOURCE, topic=f"lines-{self.project}", tolerance=DAY)
        self.view = self.hashed(view or view_of())
        self.admission = Admission(self.source)
        self.log: dict[int, list[dict[str, Any]]] = {p: [] for p in range(partitions)}
        self.fill = Fill("f1", self.view.name, self.view.state_hash, self.source.topic, "id", partitions, "active",
                         retention_ms)  # fmt: skip
        self.begin_fill()

    def hashed(self, view: StreamView) -> StreamView:
        return msgspec.structs.replace(view, state_hash=stream_state_hash(view, self.source))

    def begin_fill(self) -> None:
        record = fill_key(self.project, self.view.name, self.fill.id)
        self.connection.command("SET", record, msgspec.json.encode(self.fill))
        for p in range(self.fill.partitions):
            self.connection.command("SET", self.position_key(p), 0)

    def position_key(self, partition: int) -> bytes:
        return position_key(self.project, self.view.name, self.fill.id, partition)

    def positions(self) -> list[bytes]:
        return self.connection.command("MGET", *(self.position_key(p) for p in self.log))

    def append(self, partition: int, events: Iterable[dict[str, Any]]) -> None:
        log = self.log.setdefault(partition, [])
        for event in events:
            log.append({**dict.fromkeys(FIELDS), **event, "_partition": partition, "_offset": len(log)})

    def feed(self, partitions: Sequence[int] | None = None, connection: Connection | None = None) -> ViewFeed:
        """A feed that has begun on these partitions."""
        feed = ViewFeed(connection or self.connection, self.project, self.view, self.fill)
        feed.begin(self.log if partitions is None else partitions)
        return feed

    def batch(self, partition: int, first: int, end: int):
        """Admitted events of a range of offsets, and the position behind them."""
        values = [json.dumps(e).encode() for e in self.log[partition][first:end]]
        offsets = np.arange(first, first + len(values))
        there = np.full(len(values), partition, np.int64)
        return self.admission.admit(values, there, offsets, np.full(len(values), NOON)).events, {partition: end}

    def apply(self, feed: ViewFeed, partition: int, end: int | None = None) -> None:
        """Bring a feed's partition to a position."""
        end = len(self.log[partition]) if end is None else end
        feed.apply(*self.batch(partition, feed.positions[partition], end))

    def rows(self) -> dict[bytes, bytes]:
        return read_rows(self.connection, self.project, self.view, self.fill.id)

    def assert_equal_to_the_slow_loop(self, where=None) -> None:
        events = [e for log in self.log.values() for e in log]
        assert_values(self.view, self.rows(), events, where)


def read_rows(connection: Connection, project: str, view: StreamView, fill: str) -> dict[bytes, bytes]:
    prefix = row_prefix(project, view.name, view.state_hash, fill)
    keys = [k for some in scan_rows(connection, prefix) for k in some]
    return {k[len(prefix) :]: connection.command("GET", k) for k in keys}


def assert_values(
    view: StreamView, rows: dict[bytes, bytes], events: list[dict[str, Any]], where=None, derive=None
) -> None:
    """Every row equals the slow loop over all events, and every key that counts has one."""
    names = [k.name for k in view.keys]
    counted = [e for e in events if where is None or where(e) is True]
    keys = {tuple(e[n] for n in names) for e in counted}
    keys = sorted(k for k in keys if None not in k)
    assert sorted(rows) == sorted(entity_key(k) for k in keys)
    read = ViewReader(view).read([rows[entity_key(k)] for k in keys], NOON + 2 * HOUR)
    questions = list(zip(keys, read.effective, strict=True))
    expected = naive_answers(events, spec_of(view, "ts", where, derive), questions)
    found = [dict(zip(read.values, v, strict=True)) for v in zip(*read.values.values(), strict=True)]
    assert found == expected


class World:
    """A project with a topic of its own on a real broker; remembers what was sent, and where it lies."""

    def __init__(
        self, redis_url: str, bootstrap: str, *, partitions: int = 4, views: Sequence[StreamView] | None = None,
        expect: Sequence[Expectation] = (), config: dict[str, str] | None = None, kafka: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.redis_url, self.kafka = redis_url, {"bootstrap.servers": bootstrap, **(kafka or {})}
        self.project = f"t{uuid.uuid4().hex[:8]}"
        self.connection = Connection(redis_url)
        self.source = msgspec.structs.replace(
            SOURCE, topic=f"lines-{self.project}", tolerance=DAY, expectations=tuple(expect)
        )
        self.topic, self.config = self.source.topic, {"message.timestamp.type": "LogAppendTime", **(config or {})}
        self.views = [self.hashed(v) for v in views or [view_of()]]
        self.sent: list[dict[str, Any]] = []
        self.admin = AdminClient(self.kafka)
        self.new_producer()
        self.create_topic(partitions)

    def hashed(self, view: StreamView) -> StreamView:
        return msgspec.structs.replace(view, state_hash=stream_state_hash(view, self.source))

    @property
    def plan(self) -> Plan:
        return Plan(self.project, (self.source,), tuple(self.views))

    def create_topic(self, partitions: int = 4) -> None:
        new = [NewTopic(self.topic, partitions, 1, config=self.config), NewTopic(f"{self.topic}.dead-letters", 1, 1)]
        for name, done in self.admin.create_topics(new).items():
            try:
                done.result(20)
            except Exception:
                assert name.endswith("dead-letters"), name
        # The controller answers before its broker knows of a topic.
        self.partitions()

    def delete_topic(self) -> None:
        [done] = self.admin.delete_topics([self.topic]).values()
        done.result(20)
        while topic_facts(self.kafka, [self.topic]):
            time.sleep(0.02)
        self.new_producer()

    def new_producer(self) -> None:
        """A producer caches what it knows of a topic."""
        self._producer = Producer({**self.kafka, "linger.ms": 2, "log_level": 0})

    def publish(self):
        return publish(self.connection, self.kafka, self.plan)

    def produce(self, events: Iterable[Any], partition: int | None = None, producer: Producer | None = None) -> None:
        """Send dicts (remembered with their places) or bytes (not), spread over partitions unless one is named."""
        self.remember(produce(producer or self._producer, self.topic, events, partition, self.partitions()))

    def remember(self, events: Iterable[dict[str, Any]]) -> None:
        self.sent += [{**dict.fromkeys(FIELDS), **e} for e in events]

    def partitions(self) -> int:
        while (facts := topic_facts(self.kafka, [self.topic]).get(self.topic)) is None:
            time.sleep(0.02)
        return facts.partitions

    def worker(self, **settings: Any) -> Worker:
        chosen = {"plan_every": 0.1, "commit_every": 0.1, "retry_every": 0.1} | settings
        return Worker(self.redis_url, self.kafka, self.project, WorkerSettings(**chosen))

    def catch_up(self, **settings: Any) -> Worker:
        """One worker in this process, until all positions reach the ends of now."""
        worker = self.worker(**settings)
        deadline, caught_up = time.monotonic() + 120, CaughtUp(self.redis_url, self.kafka, self.project)
        # A worker that goes from error to error never asks `until`.
        limit = threading.Timer(45, worker.stop)
        limit.start()
        try:
            worker.run(until=lambda: caught_up() or time.monotonic() > deadline)
        finally:
            limit.cancel()
        assert time.monotonic() < deadline, f"{caught_up.remaining} events are left"
        return worker

    @contextmanager
    def running_worker(self, worker: Worker | None = None) -> Iterator[Worker]:
        """Within, a worker runs in a thread of this process."""
        worker = worker or self.worker()
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join()

    def start_worker(self, batch: int = 200, before: str = "") -> subprocess.Popen[str]:
        """A worker in a process of its own, which may be killed; `before` is code that it runs first."""
        settings = f"WorkerSettings(batch={batch}, plan_every=0.2, commit_every=0.2, retry_every=0.1)"
        code = (
            f"{before}\n"
            "from pipelines.worker import Worker, WorkerSettings\nfrom pipelines.foreground import *\nlog_to_stderr()\n"
            f"w = Worker({self.redis_url!r}, {self.kafka!r}, {self.project!r}, {settings})\n"
            "with stopped_by_signals(w.stop): w.run()\n"
        )
        return subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, text=True, stderr=subprocess.PIPE)

    def wait_until_caught_up(self, seconds: float = 60) -> None:
        caught_up, deadline = CaughtUp(self.redis_url, self.kafka, self.project), time.monotonic() + seconds
        while not caught_up():
            assert time.monotonic() < deadline, f"{caught_up.remaining} events are left"
            time.sleep(0.05)

    def published(self):
        found = load_published(self.connection, self.project)
        assert found is not None
        return found

    def rows(self, view: str = "spend") -> dict[bytes, bytes]:
        active = self.published().active[view]
        return read_rows(self.connection, self.project, active.definition, active.fill)

    def sink(self, lake: Lake) -> None:
        """One sink in this process, until the lake holds all that is in the topic now."""
        caught_up = LakeCaughtUp(self.kafka, lake, [self.topic])
        Sink(self.redis_url, self.kafka, lake, self.project).run(until=caught_up)

    def counters(self, view: str = "spend") -> dict[str, int]:
        fill = self.published().active[view].fill
        pairs = self.connection.command("HGETALL", counter_key(self.project, view, fill))
        return {pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)}

    def assert_equal_to_the_slow_loop(self, view: str = "spend", where=None, derive=None) -> None:
        assert_values(self.published().active[view].definition, self.rows(view), self.sent, where, derive)


def produce(producer: Producer, topic: str, events: Iterable[Any], partition: int | None, partitions: int):
    """Send, and return the dicts with the places that the broker gave them."""
    placed: list[dict[str, Any]] = []

    def remember(event):
        def delivered(error, message):
            assert error is None, error
            if isinstance(event, dict):
                placed.append({**event, "_partition": message.partition(), "_offset": message.offset()})

        return delivered

    for i, event in enumerate(events):
        value = json.dumps(event).encode() if isinstance(event, dict) else event
        where = i % partitions if partition is None else partition
        producer.produce(topic, value, partition=where, on_delivery=remember(event))
        producer.poll(0)
    assert producer.flush(20) == 0
    return placed
