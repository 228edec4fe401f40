"""Bytes that are no Avro event: what is said of them, and that they spoil no neighbour and take no time."""

from __future__ import annotations

import struct

import pytest

from tests.avro_schemas import AT, COLOUR, one, record
from tests.events.schema_orders import NOON, admit, orders, reason
from tests.schema_registry import SchemaRegistry

SOURCE = orders("avro")
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
    assert reason(registry, SOURCE, head + tail) == f"dead-letter: {wanted}"
    # What follows in memory begins with bytes that would lengthen a number.
    admitted = admit(registry, SOURCE, good, head + tail, b"\xff" * 20, good)
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
    assert reason(registry, SOURCE, value) == f"dead-letter: {expected}"


def test_schemas_that_are_none_for_avro_are_dead_letters(registry: SchemaRegistry) -> None:
    texts = {
        '{"type": "record", "name": "R", "fields": [{"name": "at", "type": "nothing"}]}': "it is no Avro schema (UnknownType",
        "{": "it is no Avro schema (DecodeError",
        '"string"': "expected a record, the schema has string",
    }
    for text, expected in texts.items():
        number = registry.add("broken", text)
        assert reason(registry, SOURCE, struct.pack(">bI", 0, number) + b"\0").startswith(
            f"dead-letter: schema {number}: {expected}"
        )
    other = registry.add("json", "{}", kind="JSON")
    assert reason(registry, SOURCE, struct.pack(">bI", 0, other) + b"\0") == (
        f"dead-letter: schema {other}: expected a schema of type AVRO, got JSON"
    )


def test_a_boolean_and_an_enum_are_what_the_specification_allows(registry: SchemaRegistry) -> None:
    number = registry.add("b", record(AT, {"name": "paid", "type": "boolean"}, {"name": "code", "type": COLOUR}))
    head = struct.pack(">bI", 0, number) + b"\x02"
    assert admit(registry, SOURCE, head + b"\x01\x02").events.columns["paid"].to_list() == [True]
    for tail, said in {b"\x02\x00": "paid: a boolean is neither 0 nor 1",
                       b"\x01\x04": "code: the enum has no symbol of the number 2",
                       b"\x01\x01": "code: the enum has no symbol of the number -1"}.items():  # fmt: skip
        assert reason(registry, SOURCE, head + tail) == f"dead-letter: schema {number}: {said}"


def test_nesting_has_an_end(registry: SchemaRegistry) -> None:
    schema = record(
        AT, {"name": "next", "type": ["null", record({"name": "next", "type": ["null", "Node"]}, name="Node")]}
    )
    number = registry.add("deep", schema)
    head = struct.pack(">bI", 0, number) + b"\x02"
    assert len(admit(registry, SOURCE, head + b"\x02" * 100 + b"\x00").events) == 1
    assert reason(registry, SOURCE, head + b"\x02" * 101 + b"\x00") == (
        f"dead-letter: schema {number}: next: nested deeper than 100 levels"
    )
    assert "nested deeper" in reason(registry, SOURCE, head + b"\x02" * 100_000)


def test_a_list_of_nothing_takes_no_time(registry: SchemaRegistry) -> None:
    schema = record(AT, {"name": "x", "type": {"type": "array", "items": "null"}}, {"name": "code", "type": "string"})
    head = struct.pack(">bI", 0, registry.add("nothing", schema))
    count = b"\xfe" + b"\xff" * 8 + b"\x01"  # 2**63 - 1
    assert admit(registry, SOURCE, head + b"\x02" + count + b"\0\x02x").events.columns["code"].to_list() == ["x"]
