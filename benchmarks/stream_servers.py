"""The stream benchmark's own broker and Redis: started, filled, and asked for the rows that a run left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from benchmarks.stream_shop import PARTITIONS
from headwater.events.json_rows import json_rows, key_texts, typed
from headwater.plans.plan import CODEC_VERSION, Plan, Source, StreamView

FILL = "1"
Rows = dict[str, dict[bytes, bytes]]
"""Rows by view and entity key."""

HEAP = ("-Xms2g", "-Xmx2g", "-Xmn1500m", "-XX:+AlwaysPreTouch")
"""Of the broker, nearer to production. With a developer's 128 MB its collector stops it for 10 ms twice a second, and the first
collection of memory that was never touched takes half a second."""

NOBODYS = {"invoice_no": "0", "stock_code": "0", "quantity": -1, "unit_price": 0.0, "customer_id": 0}
"""The record at offset 0 of each partition: a return, so that it counts for no peer either."""


@dataclass(frozen=True)
class Servers:
    """Where this benchmark's own broker and Redis answer."""

    kafka: str
    redis: str


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """A broker and a Redis of our own, on free ports."""
    from headwater.embedded.kafka_broker import start_kafka
    from headwater.embedded.processes import free_port, stop
    from headwater.embedded.redis_server import start_redis

    started, port, redis_port = [], free_port(), free_port()
    try:
        started.append(start_redis(folder / "redis", redis_port))
        started.append(start_kafka(folder / "kafka", port, free_port(), jvm=HEAP))
        yield Servers(f"127.0.0.1:{port}", f"redis://127.0.0.1:{redis_port}/0")
    finally:
        stop(started)


def produce(own: Servers, source: Source, events: pl.DataFrame) -> None:
    """Create the topic with four partitions and send the events as JSON, keyed, in their order."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    settings = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
    admin = AdminClient({"bootstrap.servers": own.kafka})
    admin.create_topics([NewTopic(source.topic, PARTITIONS, 1, config=settings)])[source.topic].result(30)
    producer: Any = Producer({"bootstrap.servers": own.kafka, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    first = msgspec.json.encode({**NOBODYS, source.event_time: events[source.event_time][0].isoformat()})
    for p in range(PARTITIONS):
        producer.produce(source.topic, first, b"0", partition=p)
    assert producer.flush(60) == 0, "the broker did not take an event"
    frame = typed(events, source)
    for value, key, partition in zip(
        json_rows(frame), key_texts(frame, source), events["_partition"].to_list(), strict=True
    ):
        while True:
            try:
                producer.produce(source.topic, value, key, partition=partition)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0, "the broker did not take all events"


def install(own: Servers, plan: Plan, rows: Rows, *, append_only: bool = False) -> None:
    """Empty Redis and publish the plan with these rows by view, at offset 1 of each partition, as after a backfill."""
    from headwater.online.connection import Connection
    from headwater.online.keys import fill_key, plan_id_key, plan_key, position_key, row_prefix
    from headwater.online.published import Active, Fill, PublishedPlan
    from headwater.online.topic_facts import topic_facts

    views = plan.stream_views()
    topic = plan.source(views[0].source).topic
    facts = topic_facts({"bootstrap.servers": own.kafka}, [topic])[topic]
    published = PublishedPlan("1", plan, {view.name: Active(FILL, view) for view in views}, codec=CODEC_VERSION)
    with Connection(own.redis, timeout=120) as connection:
        connection.command("FLUSHALL")
        # Else it is made anew at each 270 MB of 100,000 rows: once a second or two (docs/scaling.md).
        connection.command("CONFIG", "SET", "auto-aof-rewrite-min-size", "8gb")
        connection.command("CONFIG", "SET", "appendonly", "yes" if append_only else "no")
        for view in views:
            prefix = row_prefix(plan.project, view.name, view.state_hash, FILL)
            items = list(rows[view.name].items())
            for i in range(0, len(items), 10_000):
                connection.pipeline([("SET", prefix + key, row) for key, row in items[i : i + 10_000]])
            fill = Fill(
                FILL, view.name, view.state_hash, topic, facts.id, PARTITIONS, "active", facts.retention_ms or -1
            )
            connection.pipeline(
                [("SET", fill_key(plan.project, view.name, FILL), msgspec.json.encode(fill)),
                 *(("SET", position_key(plan.project, view.name, FILL, p), 1) for p in range(PARTITIONS))]
            )  # fmt: skip
        connection.pipeline(
            [("SET", plan_key(plan.project), msgspec.json.encode(published)), ("SET", plan_id_key(plan.project), "1")]
        )


def rows_of(own: Servers, plan: Plan, view: StreamView) -> dict[bytes, bytes]:
    """All rows of the view by entity key."""
    from headwater.online.connection import Connection
    from headwater.online.keys import row_prefix

    prefix = row_prefix(plan.project, view.name, view.state_hash, FILL)
    with Connection(own.redis, timeout=120) as connection:
        keys: list[bytes] = []
        cursor = None
        while cursor != b"0":
            cursor, found = connection.command("SCAN", cursor or 0, "MATCH", prefix + b"*", "COUNT", 10_000)
            keys += found
        keys = list(dict.fromkeys(keys))
        rows: dict[bytes, bytes] = {}
        for i in range(0, len(keys), 10_000):
            some = keys[i : i + 10_000]
            values = connection.command("MGET", *some)
            rows.update((k[len(prefix) :], v) for k, v in zip(some, values, strict=True))
        return rows
