"""What becomes of an Avro event: which schema fits which source, value by value."""

from __future__ import annotations

import io
import struct
import uuid
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from fastavro import parse_schema, schemaless_writer

from headwater.plans.plan import Field, Source
from tests.avro_schemas import AT, COLOUR, DECIMAL, MILLIS, framed, one, record
from tests.events.schema_orders import NOON, admit, orders, reason
from tests.schema_registry import SchemaRegistry

SOURCE = orders("avro")


def row(registry: SchemaRegistry, schema: Any, value: Any, source: Source = SOURCE) -> dict[str, Any]:
    admitted = admit(registry, source, framed(registry.add("s", schema), schema, value))
    assert admitted.rejected == []
    return {name: column.to_list()[0] for name, column in admitted.events.columns.items()}


def test_an_event_becomes_a_row_of_its_fields(registry: SchemaRegistry) -> None:
    schema = record(
        AT, {"name": "customer", "type": ["null", "long"]}, {"name": "price", "type": "double"},
        {"name": "unknown", "type": {"type": "map", "values": {"type": "array", "items": ["string", "null"]}}},
        {"name": "code", "type": "string"}, {"name": "paid", "type": "boolean"}, {"name": "blob", "type": "bytes"},
    )  # fmt: skip
    value = {
        "at": NOON, "customer": -5, "price": -0.0, "code": "é🙂", "paid": True, "blob": b"h\0\0",
        "unknown": {"a": ["x", None] * 50, "b": []},
    }  # fmt: skip
    found = row(registry, schema, value)
    assert found == {
        "at": NOON,
        "customer": -5,
        "price": 0.0,
        "code": "é🙂",
        "paid": True,
        "seen": None,
        "blob": b"h\0\0",
    }
    assert str(found["price"]) == "0.0"


def test_the_bytes_are_those_of_the_specification(registry: SchemaRegistry) -> None:
    # zigzag: -64 is 0x7f, 64 is 0x80 0x01; a string is its length and its bytes; a union begins with its branch.
    schema = record(AT, {"name": "customer", "type": "int"}, {"name": "code", "type": ["null", "string"]})
    number = struct.pack(">I", registry.add("s", schema))
    values = [b"\0" + number + b"\x02" + tail for tail in (b"\x7f\x02\x06foo", b"\x80\x01\x00")]
    events = admit(registry, SOURCE, *values).events
    assert events.columns["customer"].to_list() == [-64, 64]
    assert events.columns["code"].to_list() == ["foo", None]
    assert events.time.tolist() == [1, 1]


LONG = 2**53 + 1
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 16, "logicalType": "decimal", "precision": 38, "scale": 3}
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("dtype", "type_", "value", "expected"),
    [
        ("int64", "int", -(2**31), -(2**31)),
        ("int64", "long", 2**63 - 1, 2**63 - 1),
        ("int64", "long", -(2**63), -(2**63)),
        ("int64", MILLIS, 1_699_963_200_000, 1_699_963_200_000),
        ("int64", {"type": "int", "logicalType": "date"}, 19_000, 19_000),
        ("int64", {"type": "int", "logicalType": "time-millis"}, 5, 5),
        ("int64", {**DECIMAL, "scale": 0}, Decimal(2**63 - 1), 2**63 - 1),
        ("int64", DECIMAL, Decimal("-7.00"), -7),
        ("int64", ["null", "int", "long"], 2**40, 2**40),
        ("float64", "int", 7, 7.0),
        ("float64", "long", LONG, float(LONG)),
        ("float64", "float", 0.1, float(np.float32(0.1))),
        ("float64", "double", 0.1, 0.1),
        ("float64", "double", float("nan"), None),
        ("float64", "float", float("-inf"), None),
        ("float64", DECIMAL, Decimal("19.99"), 19.99),
        ("float64", FIXED_DECIMAL, Decimal("-0.001"), -0.001),
        ("string", "string", "", ""),
        ("string", "string", "\0x\0", "\0x\0"),
        ("string", "bytes", "é".encode(), "é"),
        ("string", COLOUR, "GREEN", "GREEN"),
        ("string", {"type": "string", "logicalType": "uuid"}, ID, str(ID)),
        ("string", DECIMAL, Decimal("-0.07"), "-0.07"),
        ("string", DECIMAL, Decimal("123456789012345678901234567.80"), "123456789012345678901234567.80"),
        ("bool", "boolean", False, False),
        ("bool", ["boolean", "null"], None, None),
        ("bytes", "bytes", b"a\0", b"a\0"),
        ("bytes", "string", "é", "é".encode()),
        ("bytes", {"type": "fixed", "name": "F", "size": 3}, b"\0\1\0", b"\0\1\0"),
        ("bytes", DECIMAL, Decimal("2.55"), b"\0\xff"),
        ("timestamp", "long", NOON, NOON),
        ("timestamp", MILLIS, 1_699_963_200_001, NOON + 1_000),
        ("timestamp", {"type": "long", "logicalType": "timestamp-micros"}, NOON + 1, NOON + 1),
        ("timestamp", {"type": "long", "logicalType": "timestamp-nanos"}, -1, -1),
        ("timestamp", {"type": "long", "logicalType": "timestamp-nanos"}, NOON * 1000 + 1999, NOON + 1),
        ("timestamp", {"type": "long", "logicalType": "local-timestamp-millis"}, -1, -1_000),
        ("timestamp", {"type": "int", "logicalType": "date"}, date(1969, 12, 31), -86_400_000_000),
        ("timestamp", "string", "2023-11-14T13:00:00+01:00", NOON),
    ],
)  # fmt: skip
def test_what_can_be_read_as_what(registry: SchemaRegistry, dtype: Any, type_: Any, value: Any, expected: Any) -> None:
    source = Source("s", "s", "at", None, 1, (Field("at", "timestamp"), Field("x", dtype)), format="avro")
    schema = record(AT, {"name": "x", "type": type_})
    found = row(registry, schema, {"at": NOON, "x": value}, source)["x"]
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("dtype", "type_", "value", "expected"),
    [
        ("int64", "double", 1.0, "double cannot be read as the source's int64"),
        ("int64", "string", "7", "string cannot be read as the source's int64"),
        ("int64", ["null", "string", "long"], "7", "string cannot be read as the source's int64"),
        ("int64", DECIMAL, Decimal("0.01"), "the decimal 0.01 is no integer of 64 bits"),
        ("int64", {**DECIMAL, "scale": 0}, Decimal(2**63), "the decimal 9223372036854775808 is no integer of 64 bits"),
        ("float64", DECIMAL, Decimal("90071992547409.93"), "the decimal 90071992547409.93 has more digits than a double"),
        ("float64", MILLIS, 1, "long (timestamp-millis) cannot be read as the source's float64"),
        ("string", "long", 1, "long cannot be read as the source's string"),
        ("string", "bytes", b"\xff", "bytes that are not UTF-8, for a column of texts"),
        ("string", {"type": "array", "items": "string"}, ["a"], "array cannot be read as the source's string"),
        ("string", {"type": "record", "name": "R", "fields": []}, {}, "R cannot be read as the source's string"),
        ("bool", "int", 1, "int cannot be read as the source's bool"),
        ("timestamp", "double", 1.0, "double cannot be read as the source's timestamp"),
        ("timestamp", {"type": "long", "logicalType": "time-micros"}, 1, "long (time-micros) cannot be read"),
        ("timestamp", "string", "noon", "'noon' is not an RFC 3339 timestamp"),
        ("timestamp", MILLIS, 253_402_300_800_000, "253402300800000 is no time of the years 1 to 9999"),
        ("timestamp", MILLIS, 2**63 - 1, "9223372036854775807 is no time of the years 1 to 9999"),
        ("timestamp", {"type": "int", "logicalType": "date"}, -(2**31), "-2147483648 is no time of the years"),
    ],
)  # fmt: skip
def test_what_cannot_is_a_dead_letter_that_names_schema_and_field(
    registry: SchemaRegistry, dtype: Any, type_: Any, value: Any, expected: str
) -> None:
    source = Source("s", "s", "at", None, 1, (Field("at", "timestamp"), Field("x", dtype)), format="avro")
    schema = record(AT, {"name": "x", "type": type_})
    number = registry.add("s", schema)
    good = record(AT)
    admitted = admit(
        registry, source, framed(number, schema, {"at": NOON, "x": value}),
        framed(registry.add("s", good), good, {"at": NOON}),
    )  # fmt: skip
    [rejected] = admitted.rejected
    assert rejected.reason.startswith(f"schema {number}: x: {expected}")
    assert len(admitted.events) == 1


def test_an_empty_batch_is_fine(registry: SchemaRegistry) -> None:
    assert len(admit(registry, SOURCE).events) == 0


# ---- evolution


V1 = record(AT, {"name": "customer", "type": "int"}, {"name": "price", "type": "float"})


def test_schemas_change_in_the_middle_of_a_batch(registry: SchemaRegistry) -> None:
    v2 = record(
        AT, {"name": "code", "type": "string", "default": "none"}, {"name": "customer", "type": "long"},
        {"name": "price", "type": ["null", "double"], "default": None}, {"name": "new", "type": "string"},
    )  # fmt: skip
    first, second = registry.add("e", V1), registry.add("e", v2)
    new = {"at": NOON + 1, "customer": 2**40, "price": 0.1, "code": "x", "new": "y"}
    values = [framed(first, V1, {"at": NOON, "customer": 1, "price": 0.5}), framed(second, v2, new)] * 3
    columns = admit(registry, SOURCE, *values).events.columns
    assert columns["customer"].to_list() == [1, 2**40] * 3
    assert columns["price"].to_list() == [0.5, 0.1] * 3
    # What the first schema did not have is null, whatever default a later one gives.
    assert columns["code"].to_list() == [None, "x"] * 3


def test_without_the_event_time_a_schema_does_not_fit(registry: SchemaRegistry) -> None:
    schema = record({"name": "customer", "type": "int"})
    number = registry.add("e", schema)
    assert reason(registry, SOURCE, framed(number, schema, {"customer": 1})) == (
        f"dead-letter: schema {number}: it has no field 'at', which is the event time"
    )


def test_references_and_recursive_types_are_followed(registry: SchemaRegistry) -> None:
    money = record({"name": "amount", "type": "double"}, name="shop.Money")
    registry.add("money", money)
    tree = {"type": "record", "name": "Tree", "fields": [{"name": "kids", "type": {"type": "array", "items": "Tree"}}]}
    schema = record(
        AT, {"name": "m", "type": "shop.Money"}, {"name": "t", "type": tree}, {"name": "code", "type": "string"}
    )
    number = registry.add("r", schema, references=[{"name": "shop.Money", "subject": "money", "version": 1}])
    leaf: dict[str, Any] = {"kids": []}
    named: dict[str, Any] = {}
    parse_schema(money, named)
    out = io.BytesIO()
    value = {"at": NOON, "m": {"amount": 1.0}, "t": {"kids": [leaf, {"kids": [leaf] * 100}]}, "code": "after"}
    schemaless_writer(out, parse_schema(schema, named), value)
    admitted = admit(registry, SOURCE, struct.pack(">bI", 0, number) + out.getvalue())
    assert admitted.events.columns["code"].to_list() == ["after"]


def test_a_union_of_records_is_read_by_each_events_own(registry: SchemaRegistry) -> None:
    paid = record(AT, {"name": "price", "type": "double"}, name="Paid")
    seen = record({"name": "code", "type": "string"}, AT, name="Seen")
    schema = [paid, "null", seen]
    number = registry.add("u", schema)
    head = struct.pack(">bI", 0, number)
    values = [
        head + b"\x00" + one(paid, {"at": NOON, "price": 2.5}),
        head + b"\x04" + one(seen, {"at": NOON, "code": "x"}),
        head + b"\x02", head + b"\x06",
    ]  # fmt: skip
    admitted = admit(registry, SOURCE, *values)
    assert admitted.events.columns["price"].to_list() == [2.5, None]
    assert admitted.events.columns["code"].to_list() == [None, "x"]
    assert [r.reason for r in admitted.rejected] == [
        f"schema {number}: expected a record, the schema has null",
        f"schema {number}: a union has no branch of that number",
    ]
