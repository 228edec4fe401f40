"""Avro and Protobuf on the whole way, written by Confluent's serializers: stream, sink, backfill, check, dead letters."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from headwater.errors import UsageError
from headwater.lake import Lake
from headwater.plans.plan import Field, Plan, stream_state_hash
from headwater.plans.publishing import reach_servers
from headwater.repository import load_repository
from headwater.rows.reader import ViewReader
from headwater.serving.client import Client
from pipelines.caught_up import CaughtUp, LakeCaughtUp
from pipelines.dead_letters import read_dead_letters
from pipelines.letters import Wanted
from pipelines.replay_command import replay
from pipelines.sink import Sink
from pipelines.worker import Worker, WorkerSettings
from tests.conftest import feature_store_yaml
from tests.history.log_factory import SOURCE
from tests.pipelines.stream_world import DAY, NOON, World
from tests.protobuf_schemas import class_of, proto
from tests.schema_registry import SchemaRegistry

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
V1 = {
    "type": "record", "name": "Order",
    "fields": [AT, {"name": "customer_id", "type": "int"}, {"name": "price", "type": "float"},
               {"name": "code", "type": ["null", "string"]}],
}  # fmt: skip
V2 = {
    "type": "record", "name": "Order",
    "fields": [
        {"name": "shop", "type": {"type": "record", "name": "Shop", "fields": [{"name": "city", "type": "string"}]}},
        {"name": "customer_id", "type": "long"}, {"name": "code", "type": ["null", "string"], "default": None}, AT,
        {"name": "price", "type": ["null", "double"], "default": None},
        {"name": "country", "type": "string", "default": "FR"},
    ],
}  # fmt: skip
# A price in words is no price; a schema without a code gives null.
V3 = {"type": "record", "name": "Order",
      "fields": [AT, {"name": "customer_id", "type": "long"}, {"name": "price", "type": "string"}]}  # fmt: skip
V4 = {"type": "record", "name": "Order", "fields": [AT, {"name": "customer_id", "type": "long"}]}
DEFINITIONS = """
from feast import Entity, ValueType
from feast.types import Bool, Float64, Int64, String, UnixTimestamp
from headwater.definitions import Between, Count, Last, StreamSource, StreamView, Sum

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
orders = StreamSource(
    name="orders", topic="formats-orders", event_time="at", key="customer_id", tolerance="1d", format="avro",
    schema={"at": UnixTimestamp, "customer_id": Int64, "price": Float64, "code": String, "country": String},
    expect=[Between("price", 0, 1000)])
spend = StreamView(name="spend", entity=customer, source=orders,
                   features=[Count(), Count(over=["1h"]), Sum("price"), Last("code"), Last("country")])
visits = StreamSource(
    name="visits", topic="formats-visits", event_time="at", key="customer_id", tolerance="1d", format="protobuf",
    schema={"at": UnixTimestamp, "customer_id": Int64, "seconds": Float64, "page": String, "paid": Bool})
views = StreamView(name="views", entity=customer, source=visits,
                   features=[Count(), Sum("seconds"), Last("page"), Last("paid")])
"""
TIMESTAMP = ".google.protobuf.Timestamp"
P1 = proto("Visit", at=TIMESTAMP, customer_id="int32", seconds="float", page="string")
P2 = proto("Visit", at=TIMESTAMP, customer_id="int64", seconds="optional double", page="optional string", paid="bool",
           tags="repeated string")  # fmt: skip
P3 = proto("Visit", at=TIMESTAMP, customer_id="int64", seconds="string")


FIELDS = (Field("at", "timestamp"), Field("customer_id", "int64"), Field("price", "float64"), Field("code", "string"),
          Field("country", "string"))  # fmt: skip


def orders_of_a_file() -> pa.Table:
    return pa.table({
        "at": pa.array([1_699_963_200_000_000 + n for n in range(200)], pa.timestamp("us", "UTC")),
        "customer_id": [10**6 + n for n in range(200)], "price": [None if n % 7 == 0 else n / 3 for n in range(200)],
        "code": [None if n % 5 == 0 else f"é{n}" for n in range(200)],
    })  # fmt: skip


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    server = SchemaRegistry(account="worker:secret")
    yield server
    server.stop()


class Shop:
    """Sends orders as a producer does that knows nothing of Headwater."""

    def __init__(self, kafka: str, registry: SchemaRegistry, topic: str) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient
        from confluent_kafka.serialization import MessageField, SerializationContext

        self.topic = topic
        self._producer = Producer({"bootstrap.servers": kafka})
        settings: dict[str, Any] = {"url": registry.url}
        if registry.account is not None:
            settings["basic.auth.user.info"] = registry.account
        self._client = SchemaRegistryClient(settings)
        self._context = SerializationContext(topic, MessageField.VALUE)

    def send(self, schema: dict[str, Any], *orders: dict[str, Any]) -> None:
        from confluent_kafka.schema_registry.avro import AvroSerializer

        write = AvroSerializer(self._client, json.dumps(schema))
        self.send_bytes(*(write(o, self._context) for o in orders))

    def send_messages(self, made: FileDescriptorProto, *visits: dict[str, Any]) -> None:
        from confluent_kafka.schema_registry.protobuf import ProtobufSerializer

        visit = class_of(made, "Visit")
        write = ProtobufSerializer(visit, self._client, {"use.deprecated.format": False})
        self.send_bytes(*(write(visit(**v), self._context) for v in visits))

    def send_bytes(self, *values: bytes) -> None:
        for value in values:
            self._producer.produce(self.topic, value)
        assert self._producer.flush(20) == 0


def test_schemas_change_under_a_running_worker_and_check_finds_nothing(
    make_repository: Callable, headwater_here: Callable, start_headwater: Callable, kafka: str, registry: SchemaRegistry,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("HEADWATER_SCHEMA_REGISTRY_URL", registry.url)
    monkeypatch.setenv("HEADWATER_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO", "worker:secret")
    repo = make_repository(definitions=DEFINITIONS)
    headwater_here("apply", repo=repo)
    # The first schema of the topic is the source's own, by which a file's rows are written.
    sent = orders_of_a_file()
    pq.write_table(sent, tmp_path / "orders.parquet")
    headwater_here("produce", "formats-orders", tmp_path / "orders.parquet", repo=repo)
    assert registry.subjects == {"formats-orders-value": [1]}
    shop, site = Shop(kafka, registry, "formats-orders"), Shop(kafka, registry, "formats-visits")
    now = datetime.now(UTC).replace(microsecond=0)
    order = {"at": now, "customer_id": 1, "price": 0.5, "code": "a"}
    shop.send(V1, order, {**order, "customer_id": 2, "code": None})
    visit = {"at": {"seconds": int(now.timestamp())}, "customer_id": 1, "seconds": 1.5, "page": "/"}
    site.send_messages(P1, visit)
    start_headwater("stream", repo=repo)
    client = Client(repo)

    def read(view: str, customer: int, *names: str) -> list[Any]:
        row = client.get(features=[view], entities={"customer_id": [customer]}).to_dict()
        return [row[f"{view}__{name}"][0] for name in names]

    def features(customer: int) -> list[Any]:
        return read("spend", customer, "count", "count_1h", "price_sum", "code_last", "country_last")

    def visits(customer: int) -> list[Any]:
        return read("views", customer, "count", "seconds_sum", "page_last", "paid_last")

    wait_for(lambda: features(1) == [1, 1, 0.5, "a", None])
    wait_for(lambda: visits(1) == [1, 1.5, "/", None])
    later = {"at": {"seconds": int(now.timestamp()), "nanos": 1000}}
    site.send_messages(
        P2, {**visit, **later, "seconds": 0.25, "paid": True, "tags": ["x"]}, {**later, "customer_id": 2**40}
    )
    site.send_messages(P3, {"at": visit["at"], "customer_id": 1, "seconds": "long"})
    site.send_bytes(b"\0\0\0\0\3\0\xff", b"\0\0\0\0\3\6\2\2\2")
    after = {**order, "at": now.replace(microsecond=1000), "price": 0.25, "shop": {"city": "Lyon"}}
    shop.send(V2, {**after, "code": "b", "country": "DE"}, {**after, "customer_id": 2**40, "price": None})
    shop.send(V3, {**order, "price": "a lot"})
    shop.send_bytes(b"", b'{"at": 1}', b"\0\0\0\0\1", b"\0\xff\xff\xff\xff" + b"x" * 9)
    shop.send(V2, {**after, "price": 1000.5})
    shop.send(V4, {**after, "at": now.replace(microsecond=2000)})
    wait_for(lambda: features(1) == [3, 3, 0.75, "b", "DE"])
    wait_for(lambda: features(2**40) == [1, 1, None, "a", "FR"])
    wait_for(lambda: visits(1) == [2, 1.75, "/", True])
    wait_for(lambda: visits(2**40) == [1, None, None, False])

    headwater_here("sink", "--until-caught-up", repo=repo)
    headwater_here("check", repo=repo)
    letters = read_dead_letters({"bootstrap.servers": kafka}, ["formats-orders", "formats-visits"])
    assert sorted(letter.reason for letter in letters) == [
        "empty value: expected a schema's id and a record",
        "no schema id: expected the first byte to be 0, got 0x7b",
        "schema 1: at: the value ends too early",
        "schema 3: it has no message of the path [1, 1, 1]",
        "schema 3: the bytes are no message shop.Visit",
        "schema 4294967295: the schema registry has no schema of that id",
        "schema 5: seconds: string cannot be read as the source's float64",
        "schema 7: price: string cannot be read as the source's float64",
    ]
    lake = Lake(load_repository(repo).lake)
    source = msgspec.structs.replace(SOURCE, topic="formats-orders", fields=FIELDS)
    assert [r for r in lake.read_rejected(source)["_reason"].to_pylist() if r.startswith("price")] == [
        "price: expected a value between 0 and 1000, got 1000.5"
    ]
    kept = (
        lake.read_events(source)
        .filter((pc.field("customer_id") >= 10**6) & (pc.field("customer_id") < 10**7))
        .sort_by("customer_id")
    )
    assert kept.select(sent.column_names).cast(sent.schema).equals(sent)

    before = [features(c) for c in (1, 2, 2**40)]
    headwater_here("backfill", "spend", repo=repo)
    assert [features(c) for c in (1, 2, 2**40)] == before
    client.close()


def test_without_a_registrys_address_nothing_is_applied(make_repository: Callable) -> None:
    repository = load_repository(make_repository(definitions=""))
    plan = Plan(repository.project, (msgspec.structs.replace(SOURCE, format="avro"),))
    with pytest.raises(UsageError, match=r"schema\.registry\.url: .*HEADWATER_SCHEMA_REGISTRY_URL"):
        reach_servers(repository, plan)


class AvroWorld(World):
    """A world whose events are Avro, and a second topic of the same project in JSON."""

    def __init__(self, redis_url: str, kafka: str, registry: SchemaRegistry) -> None:
        super().__init__(redis_url, kafka, partitions=2)
        self.registry = {"url": registry.url}
        self.json = World(redis_url, kafka, partitions=2)
        self.json.project = self.project
        self.json.source = msgspec.structs.replace(self.json.source, name="others")
        [view] = self.json.views
        view = msgspec.structs.replace(view, name="others", source="others")
        self.json.views = [self.json.hashed(view)]
        self.source = msgspec.structs.replace(self.source, format="avro")
        self.views = [msgspec.structs.replace(v, state_hash=stream_state_hash(v, self.source)) for v in self.views]
        self.shop = Shop(kafka, registry, self.topic)

    @property
    def plan(self) -> Plan:
        return Plan(self.project, (self.source, self.json.source), (*self.views, *self.json.views))

    def worker(self, **settings: Any) -> Worker:
        chosen = WorkerSettings(plan_every=0.1, commit_every=0.1, retry_every=0.05)
        return Worker(self.redis_url, self.kafka, self.project, chosen, self.registry)

    def sink_of(self, lake: Lake) -> Sink:
        return Sink(self.redis_url, self.kafka, lake, self.project, None, self.registry)


@pytest.fixture
def world(redis_url: str, kafka: str) -> Iterator[tuple[AvroWorld, SchemaRegistry]]:
    server = SchemaRegistry()
    yield AvroWorld(redis_url, kafka, server), server
    server.stop()


LINE = {
    "type": "record", "name": "Line",
    "fields": [{"name": "customer", "type": "long"}, {"name": "product", "type": "string"}, {"name": "ts", "type": "long"},
               {"name": "price", "type": "double"}, {"name": "quantity", "type": "long"}],
}  # fmt: skip
EVENT = {"customer": 1, "product": "p", "ts": 1_320_000_000_000_000, "price": 1.5, "quantity": 2}


def test_a_worker_waits_for_an_unreachable_registry_and_says_so_once(
    world: tuple[AvroWorld, SchemaRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    there, registry = world
    there.publish()
    there.shop.send(LINE, EVENT)
    registry.stop()
    there.json.produce([EVENT] * 5)
    worker, caught_up = there.worker(), CaughtUp(there.redis_url, there.kafka, there.project)
    with caplog.at_level(logging.WARNING, "headwater.stream"):
        thread = threading.Thread(target=worker.run)
        thread.start()
        # The other topic goes on, also with what comes while this one waits.
        wait_for(lambda: len(there.rows("others")) == 1)
        there.json.produce([{**EVENT, "customer": 2}])
        wait_for(lambda: len(there.rows("others")) == 2)
        time.sleep(0.5)
        assert there.rows() == {}
        registry.start()
        wait_for(caught_up)
        wait_for(lambda: "is back" in caplog.text)
        worker.stop()
        thread.join(20)
    assert len(there.rows()) == 1
    assert read_dead_letters(there.kafka, [there.topic]) == []
    said = [r.getMessage() for r in caplog.records if "registry" in r.getMessage()]
    assert [line.split(" (")[0] for line in said] == [
        "The schema registry does not answer",
        "The schema registry is back.",
    ]
    assert registry.url in said[0]


def test_a_sink_waits_for_an_unreachable_registry_and_keeps_the_other_topics(
    world: tuple[AvroWorld, SchemaRegistry], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there, registry = world
    there.publish()
    there.shop.send(LINE, *[EVENT] * 3)
    there.json.produce([EVENT] * 5)
    registry.stop()
    lake = Lake(str(tmp_path / "lake"))
    sink = there.sink_of(lake)
    other = LakeCaughtUp(there.kafka, lake, [there.json.topic])
    both = LakeCaughtUp(there.kafka, lake, [there.topic, there.json.topic])
    with caplog.at_level(logging.WARNING, "headwater.sink"):
        thread = threading.Thread(target=sink.run)
        thread.start()
        wait_for(other)
        time.sleep(0.5)
        assert not both()
        registry.start()
        wait_for(both)
        sink.stop()
        thread.join(20)
    kept = lake.read_events(there.source)
    assert (kept["price"].to_pylist(), lake.read_rejected(there.source).num_rows) == ([1.5] * 3, 0)
    assert lake.read_events(there.json.source).num_rows == 5
    assert len([r for r in caplog.records if "does not answer" in r.getMessage()]) == 1


def wait_for(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_event_whose_schema_is_registered_late_counts_once_by_a_replay(
    world: tuple[AvroWorld, SchemaRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, registry = world
    monkeypatch.setenv("HEADWATER_SCHEMA_REGISTRY_URL", registry.url)
    monkeypatch.setattr("headwater.events.schemas.MISSING_FOR", 0.5)
    config = feature_store_yaml(there.project, there.redis_url, there.kafka["bootstrap.servers"], None)
    (tmp_path / "feature_store.yaml").write_text(config)
    repository = load_repository(tmp_path)
    lake = Lake(repository.lake)
    there.publish()
    payload = io.BytesIO()
    fastavro.schemaless_writer(payload, fastavro.parse_schema(LINE), EVENT)
    there.shop.send_bytes(b"\0" + (77).to_bytes(4, "big") + payload.getvalue())
    with there.running_worker(there.worker()):
        wait_for(lambda: len(read_dead_letters(there.kafka, [there.topic])) == 1)
        there.sink_of(lake).run(until=LakeCaughtUp(there.kafka, lake, [there.topic]))
        [left] = replay(repository, Wanted(there.topic), dry_run=False)
        assert left.left == "still not admitted: schema 77: the schema registry has no schema of that id"
        registry.schemas[77] = {"schema": json.dumps(LINE), "schemaType": "AVRO", "references": []}
        time.sleep(0.5)
        # The worker that refused it reads it now.
        assert [o.sent for o in replay(repository, Wanted(there.topic), dry_run=False)] == [True]
        wait_for(lambda: len(there.rows()) == 1)
        assert [o.sent for o in replay(repository, Wanted(there.topic), dry_run=False)] == [False]
    [row] = there.rows().values()
    assert ViewReader(there.published().active["spend"].definition).read([row], NOON + DAY).values["n"] == [1]
