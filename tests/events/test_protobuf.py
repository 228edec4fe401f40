"""What becomes of a Protobuf event: which message fits which source, value by value, alone or in a batch."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import RegistryUnreachable
from headwater.plans.plan import Field, Source
from tests.events.schema_orders import BROKER, GARBAGE, NOON, admit, assert_cuts_do_not_matter, orders, reason
from tests.protobuf_schemas import class_of, file, message, proto, text_of
from tests.schema_registry import SchemaRegistry

SOURCE = orders("protobuf")
TIMESTAMP = ".google.protobuf.Timestamp"


def add(registry: SchemaRegistry, made: FileDescriptorProto, references: Any = ()) -> int:
    return registry.add("s", text_of(made), "PROTOBUF", references)


def head(number: int, path: bytes = b"\0") -> bytes:
    return struct.pack(">bI", 0, number) + path


def row(registry: SchemaRegistry, made: FileDescriptorProto, source: Source = SOURCE, **values: Any) -> dict[str, Any]:
    value = head(add(registry, made)) + class_of(made)(**values).SerializeToString()
    admitted = admit(registry, source, value)
    assert admitted.rejected == []
    return {name: column.to_list()[0] for name, column in admitted.events.columns.items()}


def source_of(dtype: Any) -> Source:
    return Source("s", "s", "at", None, 1, (Field("at", "timestamp"), Field("x", dtype)), format="protobuf")


def test_an_event_becomes_a_row_of_its_fields(registry: SchemaRegistry) -> None:
    made = proto(at="int64", customer="optional sint64", price="double", unknown="repeated string", code="string",
                 paid="bool", blob="bytes", seen=TIMESTAMP)  # fmt: skip
    found = row(
        registry, made, at=NOON, customer=-5, price=-0.0, code="é🙂", paid=True, blob=b"h\0\0", unknown=["a"] * 9
    )
    assert found == {
        "at": NOON,
        "customer": -5,
        "price": 0.0,
        "code": "é🙂",
        "paid": True,
        "seen": None,
        "blob": b"h\0\0",
    }


def test_the_bytes_are_those_of_the_specification(registry: SchemaRegistry) -> None:
    # Field 1 as a varint is tag 0x08, field 2 as bytes is tag 0x12 and a length; 150 is 0x96 0x01.
    number = add(registry, proto(at="int64", code="string"))
    events = admit(registry, SOURCE, head(number) + b"\x08\x96\x01\x12\x07testing").events
    assert (events.time.tolist(), events.columns["code"].to_list()) == ([150], ["testing"])


def test_what_is_absent_is_null_where_it_can_be_and_else_its_default(registry: SchemaRegistry) -> None:
    plain = proto(at="int64", customer="int64", price="double", code="string", paid="bool", blob="bytes")
    assert row(registry, plain, at=NOON) == {
        "at": NOON, "customer": 0, "price": 0.0, "code": "", "paid": False, "seen": None, "blob": b"",
    }  # fmt: skip
    kinds = {"customer": "int64", "price": "double", "code": "string", "paid": "bool", "blob": "bytes"}
    nothing = {"at": NOON, "customer": None, "price": None, "code": None, "paid": None, "seen": None, "blob": None}
    made = proto(at="int64", seen=TIMESTAMP, **{n: f"optional {k}" for n, k in kinds.items()})
    assert row(registry, made, at=NOON) == nothing
    zeros = {"customer": 0, "price": 0.0, "code": "", "paid": False, "blob": b""}
    assert row(registry, made, at=NOON, **zeros) == {**nothing, **zeros}
    one = proto(at="int64", **{n: f"oneof {k}" for n, k in kinds.items()})
    assert row(registry, one, at=NOON, code="") == {**nothing, "code": ""}


def test_proto2_defaults_are_values(registry: SchemaRegistry) -> None:
    made = file(message("Order", at="int64", code="string", customer="int64", price="double"), syntax="proto2")
    made.message_type[0].field[1].default_value = "none"
    made.message_type[0].field[2].default_value = "0"
    found = row(registry, made, at=NOON)
    assert (found["code"], found["customer"], found["price"]) == ("none", 0, None)


def decimal(unscaled: int, scale: int) -> dict[str, Any]:
    return {"value": unscaled.to_bytes(17, "big", signed=True), "scale": scale}


@pytest.mark.parametrize(
    ("dtype", "kind", "value", "expected"),
    [
        ("int64", "int32", -(2**31), -(2**31)),
        ("int64", "uint32", 2**32 - 1, 2**32 - 1),
        ("int64", "int64", -(2**63), -(2**63)),
        ("int64", "uint64", 2**63 - 1, 2**63 - 1),
        ("int64", "sfixed64", -1, -1),
        ("int64", ".enum.shop.Colour", 1, 1),
        ("int64", ".google.protobuf.Int64Value", {"value": 0}, 0),
        ("int64", ".confluent.type.Decimal", decimal(-700, 2), -7),
        ("int64", ".confluent.type.Decimal", decimal(7, -2), 700),
        ("int64", ".google.type.Date", {"year": 1969, "month": 12, "day": 31}, -1),
        ("float64", "uint64", 2**64 - 1, float(2**64)),
        ("float64", "float", 0.1, float(np.float32(0.1))),
        ("float64", "double", float("nan"), None),
        ("float64", ".google.protobuf.DoubleValue", {"value": 0.5}, 0.5),
        ("float64", ".confluent.type.Decimal", decimal(1999, 2), 19.99),
        ("string", "string", "\0x", "\0x"),
        ("string", "bytes", "é".encode(), "é"),
        ("string", ".enum.shop.Colour", 1, "GREEN"),
        ("string", ".google.protobuf.StringValue", {"value": ""}, ""),
        ("string", ".confluent.type.Decimal", decimal(-7, 2), "-0.07"),
        ("bool", ".google.protobuf.BoolValue", {"value": False}, False),
        ("bytes", "bytes", b"\0\0", b"\0\0"),
        ("bytes", "string", "é", "é".encode()),
        ("timestamp", "int64", NOON, NOON),
        ("timestamp", "string", "2023-11-14T13:00:00+01:00", NOON),
        ("timestamp", TIMESTAMP, {"seconds": -1, "nanos": 999_999_999}, -1),
        ("timestamp", TIMESTAMP, {}, 0),
        ("timestamp", ".google.type.Date", {"year": 1970, "month": 1, "day": 2}, 86_400_000_000),
    ],
)  # fmt: skip
def test_what_can_be_read_as_what(registry: SchemaRegistry, dtype: Any, kind: str, value: Any, expected: Any) -> None:
    found = row(registry, with_colours(proto(at="int64", x=kind)), source_of(dtype), at=NOON, x=value)["x"]
    assert (type(found), found) == (type(expected), expected)


def with_colours(made: FileDescriptorProto) -> FileDescriptorProto:
    colours = made.enum_type.add(name="Colour")
    colours.value.add(name="RED", number=0)
    colours.value.add(name="GREEN", number=1)
    return made


@pytest.mark.parametrize(
    ("dtype", "kind", "value", "expected"),
    [
        ("int64", "double", 1.0, "double cannot be read as the source's int64"),
        ("int64", "string", "7", "string cannot be read as the source's int64"),
        ("int64", "uint64", 2**63, "9223372036854775808 does not fit 64 bits"),
        ("int64", ".confluent.type.Decimal", decimal(1, 2), "the decimal 0.01 is no integer of 64 bits"),
        ("int64", ".confluent.type.Decimal", decimal(1, -(2**31)), "the decimal 1e2147483648 is no integer of 64 bits"),
        ("string", ".confluent.type.Decimal", decimal(1, 2**31 - 1), "the decimal 1e-2147483647 has too many digits"),
        ("int64", "repeated int64", [1], "repeated int64 cannot be read as the source's int64"),
        ("string", ".enum.shop.Colour", 7, "the enum shop.Colour has no value of that number"),
        ("string", "bytes", b"\xff", "bytes that are not UTF-8, for a column of texts"),
        ("string", TIMESTAMP, {}, "message google.protobuf.Timestamp cannot be read as the source's string"),
        ("bool", "int32", 1, "int32 cannot be read as the source's bool"),
        ("timestamp", "string", "noon", "'noon' is not an RFC 3339 timestamp"),
        ("timestamp", TIMESTAMP, {"seconds": 2**62}, "4611686018427387904000000 is no time of the years 1 to 9999"),
        ("timestamp", TIMESTAMP, {"seconds": 253_402_300_800}, "253402300800000000 is no time of the years 1 to 9999"),
        ("timestamp", ".google.type.Date", {"year": 2023, "month": 2, "day": 30}, "a date that is no day of the calendar"),
    ],
)  # fmt: skip
def test_what_cannot_is_a_dead_letter_that_names_schema_and_field(
    registry: SchemaRegistry, dtype: Any, kind: str, value: Any, expected: str
) -> None:
    made, plain = with_colours(proto(at="int64", x=kind)), proto(at="int64")
    number = add(registry, made)
    admitted = admit(
        registry,
        source_of(dtype),
        head(number) + class_of(made)(at=NOON, x=value).SerializeToString(),
        head(add(registry, plain)) + class_of(plain)(at=NOON).SerializeToString(),
    )
    assert [r.reason for r in admitted.rejected] == [f"schema {number}: x: {expected}"]
    assert len(admitted.events) == 1


def test_an_absent_message_of_a_type_that_does_not_fit_is_null(registry: SchemaRegistry) -> None:
    made = proto(at="int64", x=TIMESTAMP)
    assert row(registry, made, source_of("string"), at=NOON)["x"] is None


def test_schemas_change_in_the_middle_of_a_batch(registry: SchemaRegistry) -> None:
    first = proto(at="int64", customer="int32", price="float")
    second = file(
        message("Other", x="string"),
        message("Order", price="optional double", code="string", customer="int64", at="int64"),
    )
    values = [
        head(add(registry, first)) + class_of(first)(at=NOON, customer=1, price=0.5).SerializeToString(),
        head(add(registry, second), b"\x02\x02")
        + class_of(second)(at=NOON, customer=2**40, code="x").SerializeToString(),
    ] * 2
    columns = admit(registry, SOURCE, *values).events.columns
    assert columns["customer"].to_list() == [1, 2**40] * 2
    assert columns["price"].to_list() == [0.5, None] * 2
    assert columns["code"].to_list() == [None, "x"] * 2


def test_a_message_within_a_message_is_found_by_its_path(registry: SchemaRegistry) -> None:
    outer = message("Outer", y="string")
    outer.nested_type.append(message("First", at="int64"))
    outer.nested_type.append(message("Second", code="string", at="int64"))
    number = add(registry, file(message("Order", at="int64"), outer))
    # Two numbers in zigzag form: 1 is 0x02, twice.
    value = head(number, b"\x04\x02\x02") + b"\x0a\x01x\x10\x05"
    assert admit(registry, SOURCE, value).events.columns["code"].to_list() == ["x"]
    assert reason(registry, SOURCE, head(number, b"\x02\x02")) == (
        f"dead-letter: schema {number}: shop.Outer has no field 'at', which is the event time"
    )
    for path, said in {
        b"\x02\x06": "it has no message of the path [3]", b"\x02\x01": "it has no message of the path [-1]",
        b"\x04\x00\x00": "it has no message of the path [0, 0]", b"\x01": "the path to its message is broken",
        b"\xfe\x0f": "the path to its message is broken", b"": "the value ends too early",
        b"\x04\x02": "the value ends too early",
    }.items():  # fmt: skip
        assert reason(registry, SOURCE, head(number, path)) == f"dead-letter: schema {number}: {said}"


def test_imports_are_followed(registry: SchemaRegistry) -> None:
    money = file(message("Money", amount="double"))
    registry.add("money", text_of(money), "PROTOBUF")
    made = file(message("Order", at=TIMESTAMP, m=".shop.Money", code="string"), imports=("money.proto",))
    number = add(registry, made, [{"name": "money.proto", "subject": "money", "version": 1}])
    assert admit(registry, SOURCE, head(number) + b"\x0a\x02\x08\x01\x12\x00\x1a\x01x").events.columns[
        "code"
    ].to_list() == ["x"]
    alone = add(registry, made)
    assert reason(registry, SOURCE, head(alone)).startswith(
        f"dead-letter: schema {alone}: its files do not make a schema ("
    )


def test_without_the_event_time_a_schema_does_not_fit(registry: SchemaRegistry) -> None:
    number = add(registry, proto(customer="int64"))
    assert reason(registry, SOURCE, head(number)) == (
        f"dead-letter: schema {number}: shop.Order has no field 'at', which is the event time"
    )
    zero = add(registry, proto(at=TIMESTAMP))
    assert reason(registry, SOURCE, head(zero)) == "dead-letter: at: the event time is missing"


@pytest.mark.parametrize(
    "tail", [b"\xff", b"\x08", b"\x12\x05ab", b"\x12\x01\xff", b"\x0b", b"\x0c", b"\x00\x00", b"\x0f"]
)
def test_broken_messages_are_dead_letters_and_spoil_no_neighbour(registry: SchemaRegistry, tail: bytes) -> None:
    number = add(registry, proto(at="int64", code="string"))
    good = head(number) + b"\x08\x05\x12\x02\xc3\xa9"
    assert (
        reason(registry, SOURCE, head(number) + tail)
        == f"dead-letter: schema {number}: the bytes are no message shop.Order"
    )
    assert admit(registry, SOURCE, good, head(number) + tail, good).events.columns["code"].to_list() == ["é", "é"]


def test_a_text_of_proto2_need_not_be_utf_8(registry: SchemaRegistry) -> None:
    number = add(registry, file(message("Order", at="int64", code="string"), syntax="proto2"))
    assert reason(registry, SOURCE, head(number) + b"\x08\x05\x12\x01\xff") == (
        f"dead-letter: schema {number}: code: a text is not UTF-8"
    )


def test_a_registry_that_gives_the_files_text_has_to_be_waited_for(registry: SchemaRegistry) -> None:
    number = registry.add("s", 'syntax = "proto3"; message Order {}', "PROTOBUF")
    with pytest.raises(
        RegistryUnreachable, match=f"gave schema {number} as something else than a serialised descriptor"
    ):
        admit(registry, SOURCE, head(number))


def test_a_schema_of_another_format_is_a_dead_letter(registry: SchemaRegistry) -> None:
    number = registry.add("s", '"string"')
    assert (
        reason(registry, SOURCE, head(number))
        == f"dead-letter: schema {number}: expected a schema of type PROTOBUF, got AVRO"
    )


EVENT = proto(at="int64", customer="optional uint64", price="float", code="string", paid="bool", seen=TIMESTAMP)
OTHER = file(
    message("Not", at="int64"), message("Order", at=TIMESTAMP, customer=".confluent.type.Decimal", code="bytes")
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event of one of two schemas, often with a byte or the end of it changed. The ids are put in by the test."""
    at = draw(st.sampled_from([NOON, BROKER + 2 * 86_400_000_000]))
    if which := draw(st.booleans()):
        value = class_of_event()(
            at=at, customer=draw(st.one_of(st.none(), st.integers(0, 2**64 - 1))), price=draw(st.floats(0, 200, width=32)),
            code=draw(st.text(max_size=4)), paid=draw(st.booleans()),
            seen=draw(st.one_of(st.none(), st.just({"seconds": draw(st.integers(-(2**40), 2**40))}))),
        )  # fmt: skip
    else:
        value = class_of_other()(
            at={"seconds": at // 1_000_000},
            code=draw(st.binary(max_size=3)),
            customer=decimal(draw(st.sampled_from([500, 550])), 2),
        )
    raw = bytearray((b"\0" if which else b"\x02\x02") + value.SerializeToString())
    if draw(st.booleans()):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del raw[draw(st.integers(0, len(raw))) :]
    return (b"E" if which else b"O") + bytes(raw)


@cache
def class_of_event() -> Any:
    return class_of(EVENT)


@cache
def class_of_other() -> Any:
    return class_of(OTHER)


@settings(max_examples=200, deadline=None)
@given(records=st.lists(st.one_of(damaged(), GARBAGE), max_size=8))
def test_admission_does_not_depend_on_how_events_are_cut_into_batches(
    registry: SchemaRegistry, records: list[bytes | None]
) -> None:
    heads = {b"E": head(add(registry, EVENT), b""), b"O": head(add(registry, OTHER), b"")}
    values = [heads[v[:1]] + v[1:] if v and v[:1] in heads else v for v in records]
    assert_cuts_do_not_matter(registry, SOURCE, values)
