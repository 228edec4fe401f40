"""A table's changes from Debezium's topic to Redis and the lake, with updates counted and with inserts alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from confluent_kafka import Producer

from headwater.cli import cli
from headwater.definitions.repositories import repository_plan
from headwater.events.admission import Rejected
from headwater.lake import Lake
from headwater.repository import load_repository
from headwater.serving.client import Client
from pipelines.dead_letters import read_dead_letters
from pipelines.outages import Outages
from pipelines.sink_metrics import SinkMetrics
from pipelines.stream_metrics import StreamMetrics

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

DEFINITIONS = """
from feast import Entity, ValueType
from feast.types import Int64, String, UnixTimestamp
from headwater.definitions import Count, StreamSource, StreamView

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
columns = {"user_id": Int64, "changed_at": UnixTimestamp, "plan": String}
accounts = StreamSource(name="accounts", topic="changes-accounts", event_time="changed_at", tolerance="1d",
                        schema=columns, envelope="debezium", updates="count")
orders = StreamSource(name="orders", topic="changes-orders", event_time="changed_at", tolerance="1d",
                      schema=columns, envelope="debezium")
account = StreamView(name="account", entity=user, source=accounts, features=["plan"])
bought = StreamView(name="bought", entity=user, source=orders, features=[Count(), "plan"])
"""
NOW = int(datetime.now(UTC).timestamp()) * 1_000_000


def change(op: str, user: int, at: int, plan: str | None) -> bytes:
    row = {"user_id": user, "changed_at": NOW - 1000 + at, "plan": plan}
    envelope = {"before": row if op == "d" else None, "after": None if op == "d" else row, "op": op, "ts_ms": at}
    return json.dumps(envelope if at % 2 else {"schema": {"type": "struct"}, "payload": envelope}).encode()


CHANGES = [
    change("r", 1, 0, "free"), change("c", 2, 1, "free"), change("u", 1, 2, "gold"), change("c", 3, 3, "free"),
    change("d", 3, 4, None), None, change("u", 2, 5, None), b"no envelope", change("c", 1, 1, "late"),
]  # fmt: skip


def run(repository: Path, *args: Any) -> None:
    cli.main(["-C", str(repository), *map(str, args)], prog_name="headwater", standalone_mode=False)


def test_a_tables_changes_become_events_by_the_sources_rule(
    make_repository: Callable[..., Path], kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(definitions=DEFINITIONS)
    run(root, "apply")
    producer = Producer({"bootstrap.servers": kafka})
    for topic in ("changes-accounts", "changes-orders"):
        for value in CHANGES:
            producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0
    run(root, "stream", "--until-caught-up")
    run(root, "sink", "--until-caught-up")

    with Client(root) as client:
        found = client.get(["account", "bought"], entities={"user_id": [1, 2, 3]}).to_dict()
    # Of updates counted, the newest row wins, with its null; a deletion takes nothing back.
    assert found == {
        "user_id": [1, 2, 3], "account__plan": ["gold", None, "free"], "bought__count": [2, 1, 1],
        "bought__plan": ["late", "free", "free"],
    }  # fmt: skip

    repository = load_repository(root)
    lake, plan = Lake(repository.lake), repository_plan(repository)
    kept = {s.name: lake.read_rejected(s) for s in plan.sources}
    kinds = {name: {c["values"]: c["counts"] for c in pc.value_counts(rows["_kind"]).to_pylist()}
             for name, rows in kept.items()}  # fmt: skip
    assert kinds == {"accounts": {"ignored": 2, "dead-letter": 1}, "orders": {"ignored": 4, "dead-letter": 1}}
    letters = read_dead_letters({"bootstrap.servers": kafka}, ["changes-accounts", "changes-orders"])
    assert [x.raw for x in letters] == ["no envelope"] * 2
    run(root, "check")
    capsys.readouterr()
    run(root, "dead-letters", "--json")
    assert [x["raw"] for x in json.loads(capsys.readouterr().out)] == ["no envelope"] * 2
    assert counted(kept["orders"]) == {"ignored": 4.0, "dead_letters": 1.0, "quarantined": 0.0}


def counted(rows: pa.Table) -> dict[str, float]:
    """What the metrics of worker and sink say of rejected records; both say the same."""
    outages = Outages(logging.getLogger("test"))
    worker, sink = StreamMetrics({}, outages, {}), SinkMetrics({}, outages)
    worker.admitted("t", [Rejected(0, 0, 0, kind, "", None) for kind in rows["_kind"].to_pylist()])
    sink.committed("t", rows, 0.0, 0.0)
    found = []
    for prefix, metrics in (("headwater_stream_", worker), ("headwater_sink_", sink)):
        samples = {f.name.removeprefix(prefix): f.samples[0].value for f in metrics.collect() if f.samples}
        found.append({name: samples[name] for name in ("ignored", "dead_letters", "quarantined")})
    assert found[0] == found[1]
    return found[0]
