"""What becomes of an Avro event: which schema fits which source, value by value, alone or in a batch."""

from __future__ import annotations

import io
import struct
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import cache
from typing import Any

import numpy as np
import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.events.admission import Admission, Admitted
from headwater.events.conversions import Decimals, conversion
from headwater.events.schemas import Schemas
from headwater.plans.plan import Expectation, Field, Source
from tests.schema_registry import SchemaRegistry

SOURCE = Source(
    name="orders", topic="orders", event_time="at", key="customer", tolerance=86_400_000_000, format="avro",
    fields=(Field("at", "timestamp"), Field("customer", "int64"), Field("price", "float64"), Field("code", "string"),
            Field("paid", "bool"), Field("seen", "timestamp"), Field("blob", "bytes")),
    expectations=(Expectation("between", "price", 0, 100),),
)  # fmt: skip
DTYPES = ("int64", "float64", "string", "bool", "timestamp", "bytes")
BROKER = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
NOON = 1_699_963_200_000_000  # 2023-11-14T12:00:00Z


@pytest.fixture(scope="module")
def registry() -> Iterator[SchemaRegistry]:
    server = SchemaRegistry()
    yield server
    server.stop()


def record(*fields: Any, name: str = "Order") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def framed(schema_id: int, schema: Any, value: Any) -> bytes:
    """The wire format, written by fastavro."""
    out = io.BytesIO()
    out.write(struct.pack(">bI", 0, schema_id))
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


def one(schema: Any, value: Any) -> bytes:
    """The value's bytes alone."""
    return framed(0, schema, value)[5:]


@cache
def schemas_at(url: str) -> Schemas:
    return Schemas({"url": url})


def admit(registry: SchemaRegistry, *values: bytes | None, source: Source = SOURCE) -> Admitted:
    n = len(values)
    admission = Admission(source, schemas_at(registry.url))
    return admission.admit(values, np.zeros(n, np.int64), np.arange(n) + 10, np.full(n, BROKER))


def row(registry: SchemaRegistry, schema: Any, value: Any, source: Source = SOURCE) -> dict[str, Any]:
    admitted = admit(registry, framed(registry.add("s", schema), schema, value), source=source)
    assert admitted.rejected == []
    return {name: column.to_list()[0] for name, column in admitted.events.columns.items()}


def reason(registry: SchemaRegistry, value: bytes | None) -> str:
    [rejected] = admit(registry, value).rejected
    return f"{rejected.kind}: {rejected.reason}"


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
    events = admit(registry, *values).events
    assert events.columns["customer"].to_list() == [-64, 64]
    assert events.columns["code"].to_list() == ["foo", None]
    assert events.time.tolist() == [1, 1]


LONG = 2**53 + 1
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 16, "logicalType": "decimal", "precision": 38, "scale": 3}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}
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
        registry, framed(number, schema, {"at": NOON, "x": value}), framed(registry.add("s", good), good, {"at": NOON}),
        source=source,
    )  # fmt: skip
    [rejected] = admitted.rejected
    assert rejected.reason.startswith(f"schema {number}: x: {expected}")
    assert len(admitted.events) == 1


@given(st.integers(-(10**40), 10**40), st.integers(0, 30))
def test_a_double_takes_exactly_the_decimals_that_can_be_had_back(unscaled: int, scale: int) -> None:
    decimal = Decimal(unscaled).scaleb(-scale, Context(prec=100))
    convert = conversion("decimal", "float64")
    assert convert is not None
    [found], bad, _ = convert.convert(Decimals([unscaled], [scale]))
    # The nearest double, read back with so many digits.
    nearest = float(decimal)
    had_back = Decimal(nearest).quantize(Decimal(1).scaleb(-scale), context=Context(prec=400))
    assert bool(bad is not None and bad[0]) == (had_back != decimal)
    assert found == (nearest if had_back == decimal else 0.0)


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
    columns = admit(registry, *values).events.columns
    assert columns["customer"].to_list() == [1, 2**40] * 3
    assert columns["price"].to_list() == [0.5, 0.1] * 3
    # What the first schema did not have is null, whatever default a later one gives.
    assert columns["code"].to_list() == [None, "x"] * 3


def test_without_the_event_time_a_schema_does_not_fit(registry: SchemaRegistry) -> None:
    schema = record({"name": "customer", "type": "int"})
    number = registry.add("e", schema)
    assert reason(registry, framed(number, schema, {"customer": 1})) == (
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
    admitted = admit(registry, struct.pack(">bI", 0, number) + out.getvalue())
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
    admitted = admit(registry, *values)
    assert admitted.events.columns["price"].to_list() == [2.5, None]
    assert admitted.events.columns["code"].to_list() == [None, "x"]
    assert [r.reason for r in admitted.rejected] == [
        f"schema {number}: expected a record, the schema has null",
        f"schema {number}: a union has no branch of that number",
    ]


# ---- bytes that are no events

PLAIN = record(AT, {"name": "customer", "type": ["null", "long"]}, {"name": "code", "type": "string"},
               {"name": "list", "type": {"type": "array", "items": "string"}})  # fmt: skip


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b"", "at: the value ends too early"),
        (b"\x02", "customer: the value ends too early"),
        (b"\x02\x04", "customer: a union has no branch of that number"),
        (b"\x02\x01", "customer: a union has no branch of that number"),
        (b"\x02\x00\x06ab", "code: a length reaches past the end of the value"),
        (b"\x02\x00\x01ab", "code: a length reaches past the end of the value"),
        (b"\x02\x00" + b"\xfe" + b"\xff" * 8 + b"\x01" + b"ab", "code: a length reaches past the end of the value"),
        (b"\x02\x00\x02\xff\x00", "code: a text is not UTF-8"),
        (b"\x02\x00\x06\xed\xa0\x80\x00", "code: a text is not UTF-8"),
        (b"\x02\x00\x00\x00\x00", "1 bytes are left behind the record"),
        (b"\x02\x00\x00\x02", "list: the value ends too early"),
        (b"\x02\x00\x00\xc8\x01" + b"\x00" * 40 + b"\x08", "list: the value ends too early"),
        (b"\x02\x00\x00\x50" + b"\x00" * 39 + b"\x08" + b"\x00", "list: a length reaches past the end of the value"),
        (b"\x02\x00\x00\x01\x10\x00", "list: a length reaches past the end of the value"),
        (b"\x80" * 9 + b"\x02", "at: a number of more than 64 bits"),
        (b"\x80" * 10 + b"\x01", "at: a number of more than 64 bits"),
        (b"\x80" * 9, "at: the value ends too early"),
    ],
)
def test_broken_records_are_dead_letters_whatever_their_neighbours(
    registry: SchemaRegistry, tail: bytes, expected: str
) -> None:
    number = registry.add("plain", PLAIN)
    head = struct.pack(">bI", 0, number)
    good = head + one(PLAIN, {"at": NOON, "customer": 1, "code": "é", "list": ["a"] * 50})
    wanted = f"schema {number}: {expected}"
    assert reason(registry, head + tail) == f"dead-letter: {wanted}"
    # What follows in memory begins with bytes that would lengthen a number.
    admitted = admit(registry, good, head + tail, b"\xff" * 20, good)
    assert next(r.reason for r in admitted.rejected) == wanted
    assert admitted.events.columns["code"].to_list() == ["é", "é"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty value: expected a schema's id and a record (a tombstone)"),
        (b"", "empty value: expected a schema's id and a record"),
        (b"\0\0\0\0", "no schema id: the value has less than 5 bytes"),
        (b'{"at": 1}', "no schema id: expected the first byte to be 0, got 0x7b"),
        (b"\0\0\1\0\0", "schema 65536: the schema registry has no schema of that id"),
        (b"\0\xff\xff\xff\xff", "schema 4294967295: the schema registry has no schema of that id"),
    ],
)
def test_what_names_no_schema_is_a_dead_letter(registry: SchemaRegistry, value: bytes | None, expected: str) -> None:
    assert reason(registry, value) == f"dead-letter: {expected}"


def test_schemas_that_are_none_for_avro_are_dead_letters(registry: SchemaRegistry) -> None:
    texts = {
        '{"type": "record", "name": "R", "fields": [{"name": "at", "type": "nothing"}]}': "it is no Avro schema (UnknownType",
        "{": "it is no Avro schema (DecodeError",
        '"string"': "expected a record, the schema has string",
    }
    for text, expected in texts.items():
        number = registry.add("broken", text)
        assert reason(registry, struct.pack(">bI", 0, number) + b"\0").startswith(
            f"dead-letter: schema {number}: {expected}"
        )
    other = registry.add("json", "{}", kind="JSON")
    assert reason(registry, struct.pack(">bI", 0, other) + b"\0") == (
        f"dead-letter: schema {other}: expected a schema of type AVRO, got JSON"
    )


def test_a_boolean_and_an_enum_are_what_the_specification_allows(registry: SchemaRegistry) -> None:
    number = registry.add("b", record(AT, {"name": "paid", "type": "boolean"}, {"name": "code", "type": COLOUR}))
    head = struct.pack(">bI", 0, number) + b"\x02"
    assert admit(registry, head + b"\x01\x02").events.columns["paid"].to_list() == [True]
    for tail, said in {b"\x02\x00": "paid: a boolean is neither 0 nor 1",
                       b"\x01\x04": "code: the enum has no symbol of the number 2",
                       b"\x01\x01": "code: the enum has no symbol of the number -1"}.items():  # fmt: skip
        assert reason(registry, head + tail) == f"dead-letter: schema {number}: {said}"


def test_nesting_has_an_end(registry: SchemaRegistry) -> None:
    schema = record(
        AT, {"name": "next", "type": ["null", record({"name": "next", "type": ["null", "Node"]}, name="Node")]}
    )
    number = registry.add("deep", schema)
    head = struct.pack(">bI", 0, number) + b"\x02"
    assert len(admit(registry, head + b"\x02" * 100 + b"\x00").events) == 1
    assert reason(registry, head + b"\x02" * 101 + b"\x00") == (
        f"dead-letter: schema {number}: next: nested deeper than 100 levels"
    )
    assert "nested deeper" in reason(registry, head + b"\x02" * 100_000)


def test_a_list_of_nothing_takes_no_time(registry: SchemaRegistry) -> None:
    schema = record(AT, {"name": "x", "type": {"type": "array", "items": "null"}}, {"name": "code", "type": "string"})
    head = struct.pack(">bI", 0, registry.add("nothing", schema))
    count = b"\xfe" + b"\xff" * 8 + b"\x01"  # 2**63 - 1
    assert admit(registry, head + b"\x02" + count + b"\0\x02x").events.columns["code"].to_list() == ["x"]


# ---- properties


def types(depth: int = 2) -> st.SearchStrategy[Any]:
    """Types without names, so that they may occur more than once."""
    plain: list[Any] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string", MILLIS, DECIMAL,
             {"type": "int", "logicalType": "date"}]  # fmt: skip
    leaf = st.sampled_from(plain)
    if not depth:
        return leaf
    inner = types(depth - 1)
    return st.one_of(
        leaf,
        inner.map(lambda t: {"type": "array", "items": t}),
        inner.map(lambda t: {"type": "map", "values": t}),
        # fastavro writes an integer as a double where a union has that first: one of both is enough.
        st.lists(
            st.sampled_from(["null", "boolean", "long", "double", "string", "bytes"]), min_size=1, unique=True
        ).filter(lambda branches: not {"long", "double"} <= set(branches)),
    )


def values_of(type_: Any) -> st.SearchStrategy[Any]:
    if isinstance(type_, list):
        return st.one_of([values_of(t) for t in type_])
    if isinstance(type_, dict) and type_["type"] == "array":
        return st.lists(values_of(type_["items"]), max_size=3)
    if isinstance(type_, dict) and type_["type"] == "map":
        return st.dictionaries(st.text(max_size=2), values_of(type_["values"]), max_size=3)
    if type_ == MILLIS:
        return st.integers(-(2**63), 2**63 - 1)
    if type_ == DECIMAL:
        return st.integers(-(10**25), 10**25).map(lambda u: Decimal(u).scaleb(-2))
    name = type_["type"] if isinstance(type_, dict) else type_
    return {
        "null": st.none(), "boolean": st.booleans(), "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1), "float": st.floats(width=32), "double": st.floats(),
        "bytes": st.binary(max_size=5), "string": st.text(max_size=5),
    }[name]  # fmt: skip


def naive(type_: Any, value: Any, dtype: str) -> Any:
    """What a column holds of a value that fastavro wrote; KeyError where it cannot be read."""
    if value is None:
        return None
    if isinstance(type_, list):
        kind = {bool: "boolean", int: "long", float: "double", str: "string", bytes: "bytes"}[type(value)]
    else:
        kind = "millis" if type_ == MILLIS else "decimal" if type_ == DECIMAL else type_
        kind = "date" if isinstance(kind, dict) and kind.get("logicalType") == "date" else kind
    readable: dict[Any, Any] = {
        ("boolean", "bool"): lambda v: v,
        **{(k, "int64"): lambda v: v for k in ("int", "long", "millis", "date")},
        **{(k, "float64"): lambda v: float(v) if np.isfinite(float(v)) else None for k in ("int", "long", "float", "double")},
        ("string", "string"): lambda v: v, ("string", "bytes"): lambda v: v.encode(),
        ("bytes", "bytes"): lambda v: v, ("bytes", "string"): lambda v: v.decode(),
        **{(k, "timestamp"): lambda v: instant(v, 1) for k in ("int", "long")},
        ("millis", "timestamp"): lambda v: instant(v, 1000), ("date", "timestamp"): lambda v: instant(v, 86_400_000_000),
        ("decimal", "int64"): lambda v: whole(v), ("decimal", "string"): lambda v: f"{v:.2f}",
    }  # fmt: skip
    return readable[str(kind), dtype](value)


def instant(value: int, unit: int) -> int:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value * unit)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def whole(value: Decimal) -> int:
    if value != int(value) or not -(2**63) <= value < 2**63:
        raise OverflowError
    return int(value)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_columns_are_what_fastavro_wrote(registry: SchemaRegistry, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(types(), min_size=1, max_size=4))
    fields = [(f"f{i}", t) for i, t in enumerate(drawn)]
    dtypes = [data.draw(st.sampled_from([None, *DTYPES])) for _ in drawn]
    chosen = [(n, t, d) for (n, t), d in zip(fields, dtypes, strict=True) if d is not None]
    # A decimal as a double, and as bytes, is tested by itself.
    chosen = [(n, t, d) for n, t, d in chosen if not (t == DECIMAL and d in ("float64", "bytes"))]
    schema = record(AT, *({"name": n, "type": t} for n, t in fields))
    source = Source(
        "s", "s", "at", None, 1, (Field("at", "timestamp"), *(Field(n, d) for n, _, d in chosen)), format="avro"
    )
    rows = data.draw(st.lists(st.fixed_dictionaries({n: values_of(t) for n, t in fields}), max_size=4))
    number = registry.add("property", schema)
    admitted = admit(registry, *(framed(number, schema, {"at": NOON, **r}) for r in rows), source=source)
    expected = []
    for place, r in enumerate(rows):
        try:
            expected.append((place, [naive(t, r[n], d) for n, t, d in chosen]))
        except (KeyError, ValueError, OverflowError, TypeError):
            continue
    columns = [admitted.events.columns[n].to_list() for n, _, _ in chosen]
    found = [[c[i] for c in columns] for i in range(len(admitted.events))]
    assert list(zip(admitted.index.tolist(), found, strict=True)) == expected


EVENT = record(AT, {"name": "customer", "type": ["null", "long", "string"]}, {"name": "price", "type": "float"},
               {"name": "list", "type": {"type": "array", "items": ["null", "string"]}}, {"name": "code", "type": "string"},
               {"name": "paid", "type": "boolean"}, {"name": "seen", "type": MILLIS})  # fmt: skip
OTHER = record(
    {"name": "customer", "type": DECIMAL}, AT, {"name": "map", "type": {"type": "map", "values": "double"}},
    {"name": "code", "type": COLOUR},
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event of one of two schemas, often with a byte or the end of it changed. The ids are put in by the test."""
    which = draw(st.booleans())
    schema = EVENT if which else OTHER
    value: dict[str, Any] = {"at": draw(st.sampled_from([NOON, BROKER + 2 * 86_400_000_000])), "code": "RED"}
    if which:
        value |= {
            "customer": draw(st.one_of(st.none(), st.integers(-(2**40), 2**63 - 1), st.just("x"))), "paid": draw(st.booleans()),
            "price": draw(st.floats(0, 200, width=32)), "seen": draw(st.integers(-(2**50), 2**50)),
            "list": draw(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=40)), "code": draw(st.text(max_size=4)),
        }  # fmt: skip
    else:
        value |= {"customer": draw(st.sampled_from([Decimal(5), Decimal("5.5")])), "map": {"a": 1.0}}
    raw = bytearray(one(schema, value))
    if draw(st.booleans()) and raw:
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del raw[draw(st.integers(0, len(raw))) :]
    return (b"E" if which else b"O") + bytes(raw)


GARBAGE = st.one_of(st.none(), st.binary(max_size=12), st.sampled_from([b"{", b"\0\0\0\0", b"\0\0\0\xff\xff\x02"]))


@settings(max_examples=200, deadline=None)
@given(records=st.lists(st.one_of(damaged(), GARBAGE), max_size=8))
def test_admission_does_not_depend_on_how_events_are_cut_into_batches(
    registry: SchemaRegistry, records: list[bytes | None]
) -> None:
    heads = {b: struct.pack(">bI", 0, registry.add(b.decode(), s)) for b, s in ((b"E", EVENT), (b"O", OTHER))}
    values = [heads[v[:1]] + v[1:] if v and v[:1] in heads else v for v in records]
    admission, zero, broker = Admission(SOURCE, schemas_at(registry.url)), np.zeros(1, np.int64), np.array([BROKER])
    single = [admission.admit([v], zero, np.array([10 + i]), broker) for i, v in enumerate(values)]
    whole_batch = admit(registry, *values)
    assert rows_of(whole_batch) == [r for a in single for r in rows_of(a)]
    assert [(r.offset, r.kind, r.reason, r.raw) for r in whole_batch.rejected] == [
        (r.offset, r.kind, r.reason, r.raw) for a in single for r in a.rejected
    ]


def rows_of(admitted: Admitted) -> list[str]:
    columns = [column.to_list() for column in admitted.events.columns.values()]
    return [repr(r) for r in zip(admitted.events.offset.tolist(), *columns, strict=True)]


def test_an_empty_batch_is_fine(registry: SchemaRegistry) -> None:
    assert len(admit(registry).events) == 0
