"""Rows of a file as Avro events: by the topic's newest schema, and back through admission as they were."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastavro import parse_schema, schemaless_reader

from headwater.errors import RegistryUnreachable, UsageError
from headwater.events.admission import Admission
from headwater.events.formats import encoder_of
from headwater.events.schemas import Schemas
from headwater.plans.plan import Field, Source
from tests.schema_registry import SchemaRegistry

SOURCE = Source(
    name="orders", topic="orders", event_time="at", key=None, tolerance=1, format="avro",
    fields=(Field("at", "timestamp"), Field("customer", "int64"), Field("price", "float64"), Field("code", "string"),
            Field("paid", "bool"), Field("blob", "bytes")),
)  # fmt: skip
NOON = datetime(2023, 11, 14, 12, tzinfo=UTC)
FRAME = pl.DataFrame(
    {
        "at": pl.Series([NOON, NOON.replace(microsecond=1)], dtype=pl.Datetime("us", "UTC")), "customer": [2**40, None],
        "price": [0.1, None], "code": ["é", None], "paid": [False, None], "blob": [b"\0\xff", None],
    }
)  # fmt: skip


def encode(registry: SchemaRegistry, frame: pl.DataFrame, source: Source = SOURCE) -> list[bytes]:
    return encoder_of(source, Schemas({"url": registry.url}))(frame)


def record(*fields: tuple[Any, ...]) -> dict[str, Any]:
    named = [{"name": f[0], "type": f[1], **({"default": f[2]} if len(f) > 2 else {})} for f in fields]
    return {"type": "record", "name": "Order", "fields": named}


def read(registry: SchemaRegistry, value: bytes) -> Any:
    schema = json.loads(registry.schemas[int.from_bytes(value[1:5], "big")]["schema"])
    return schemaless_reader(io.BytesIO(value[5:]), parse_schema(schema), None)


def test_without_a_schema_the_sources_own_is_registered(own_registry: SchemaRegistry) -> None:
    values = encode(own_registry, FRAME)
    assert own_registry.subjects == {"orders-value": [1]}
    assert [read(own_registry, v) for v in values] == [
        {"at": NOON, "customer": 2**40, "price": 0.1, "code": "é", "paid": False, "blob": b"\0\xff"},
        {"at": NOON.replace(microsecond=1), "customer": None, "price": None, "code": None, "paid": None, "blob": None},
    ]
    encode(own_registry, FRAME)
    assert own_registry.subjects == {"orders-value": [1]}


def test_what_is_written_is_admitted_as_it_was(own_registry: SchemaRegistry) -> None:
    far = np.full(2, 2**60)
    admission = Admission(SOURCE, Schemas({"url": own_registry.url}))
    events = admission.admit(encode(own_registry, FRAME), np.zeros(2, np.int64), np.arange(2), far).events
    wanted = FRAME.with_columns(pl.col("at").to_physical())
    assert {n: c.to_list() for n, c in events.columns.items()} == wanted.to_dict(as_series=False)


def test_the_newest_schema_of_the_topic_is_used(own_registry: SchemaRegistry) -> None:
    own_registry.add("orders-value", record(("at", "string")))
    own_registry.add(
        "orders-value",
        record(("at", {"type": "long", "logicalType": "timestamp-millis"}), ("shop", "string", "web"),
               ("customer", ["null", "int"]), ("note", ["null", "string"])),
    )  # fmt: skip
    [value] = encode(own_registry, pl.DataFrame({"at": [NOON], "customer": [7]}))
    assert read(own_registry, value) == {"at": NOON, "shop": "web", "customer": 7, "note": None}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (record(("at", "long")), "has no field 'customer', which the file has"),
        (record(("at", "long"), ("customer", "string")), "field 'customer' is string; a column of int64 cannot be"),
        (record(("at", "long"), ("customer", "int")), "field 'customer' is int, which cannot hold 1099511627776"),
        (record(("at", "double"), ("customer", "long")), "field 'at' is double; a column of timestamp cannot be"),
        (record(("at", "long"), ("customer", "long"), ("shop", "string")), "cannot hold row 0 of these"),
        ("string", "is no record but string"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "at", "type": "nothing"}]},
            "cannot be used: it is no Avro",
        ),
    ],
)
def test_a_schema_that_does_not_fit_is_said_before_anything_is_lost(
    own_registry: SchemaRegistry, schema: Any, expected: str
) -> None:
    own_registry.add("orders-value", json.dumps(schema))
    with pytest.raises(UsageError, match=r"^Schema 1 of subject 'orders-value'") as error:
        encode(own_registry, pl.DataFrame({"at": [NOON], "customer": [2**40]}))
    assert expected in str(error.value)


def test_milliseconds_take_no_microseconds(own_registry: SchemaRegistry) -> None:
    own_registry.add("orders-value", record(("at", {"type": "long", "logicalType": "timestamp-millis"})))
    with pytest.raises(UsageError, match=r"long \(timestamp-millis\), which cannot hold 1699963200000001"):
        encode(own_registry, FRAME.select("at"))


def test_a_subject_that_takes_no_schema_and_a_registry_that_is_away(own_registry: SchemaRegistry) -> None:
    own_registry.closed.add("orders-value")
    with pytest.raises(UsageError, match="Subject 'orders-value' of the schema registry does not take the schema"):
        encode(own_registry, FRAME)
    own_registry.stop()
    with pytest.raises(RegistryUnreachable, match=rf"The schema registry {own_registry.url} gives no answer"):
        encode(own_registry, FRAME)
    own_registry.start()
