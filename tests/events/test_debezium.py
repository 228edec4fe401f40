"""Debezium's envelopes: which changes are events, which are ignored, which cannot be read; in JSON and in Avro."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from fastavro import parse_schema, schemaless_writer

from headwater.events.admission import Admission, Admitted
from headwater.events.formats import encoder_of
from headwater.events.schemas import Schemas
from headwater.plans.plan import Expectation, Field, Source
from tests.schema_registry import SchemaRegistry

SOURCE = Source(
    "accounts", "accounts", "at", None, 1,
    (Field("at", "timestamp"), Field("id", "int64"), Field("plan", "string"), Field("score", "float64")),
    (Expectation("between", "score", 0, 9),), envelope="debezium",
)  # fmt: skip
COUNTED = msgspec.structs.replace(SOURCE, updates="count")
ROW = {"at": 1_000_000, "id": 7, "plan": "é", "score": 0.5}
UPDATE, DELETE = "op u: an update; the source counts inserts alone", "op d: a deletion"


def change(op: Any, after: Any = ROW, **more: Any) -> dict[str, Any]:
    return {"before": None, "after": after, "source": {"table": "accounts"}, "op": op, "ts_ms": 1, **more}


def admitted(values: list[Any], source: Source = SOURCE, registry: SchemaRegistry | None = None) -> Admitted:
    raw = [v if v is None or isinstance(v, bytes) else json.dumps(v).encode() for v in values]
    schemas = None if registry is None else Schemas({"url": registry.url})
    n = len(raw)
    return Admission(source, schemas).admit(raw, np.zeros(n, np.int64), np.arange(n), np.full(n, 2**60))


def rejected(found: Admitted) -> list[tuple[int, str, str]]:
    return [(r.offset, r.kind, r.reason) for r in found.rejected]


def rows(found: Admitted) -> list[dict[str, Any]]:
    columns = {n: c.to_list() for n, c in found.events.columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_inserts_and_rows_of_a_snapshot_are_events_with_and_without_the_schema() -> None:
    with_schema = {"schema": {"type": "struct", "fields": [{"field": "op"}]}, "payload": change("c")}
    found = admitted([change("c"), change("r", {**ROW, "id": 8}), with_schema])
    assert rows(found) == [ROW, {**ROW, "id": 8}, ROW]
    assert (found.rejected, found.events.offset.tolist()) == ([], [0, 1, 2])


def test_what_is_no_event_is_ignored_and_says_why() -> None:
    found = admitted(
        [change("u"), change("c"), change("d", None, before=ROW), None, change("t", None), change("m", None)]
    )
    assert rejected(found) == [
        (0, "ignored", UPDATE), (2, "ignored", DELETE), (3, "ignored", "a tombstone: no value"),
        (4, "ignored", "op t: a truncated table"), (5, "ignored", "op m: a message of the log"),
    ]  # fmt: skip
    assert [r.raw is None for r in found.rejected] == [False, False, True, False, False]


def test_an_update_is_an_event_where_the_source_counts_them() -> None:
    found = admitted([change("u", {**ROW, "plan": "new"}, before=ROW), change("d", None)], COUNTED)
    assert rows(found) == [{**ROW, "plan": "new"}]
    assert rejected(found) == [(1, "ignored", DELETE)]


def test_an_ignored_change_is_never_a_dead_letter_whatever_its_row_is() -> None:
    assert rejected(admitted([change("u", {"at": "never"}), change("d", [1])])) == [
        (0, "ignored", UPDATE), (1, "ignored", DELETE),
    ]  # fmt: skip


def test_what_is_no_envelope_and_rows_that_do_not_fit_are_dead_letters() -> None:
    deep = b'{"op": "c", "after": ' + b"[" * 200 + b"]" * 200 + b"}"
    found = admitted([
        ROW, change("x"), change("c", None), b"", b"[]", b'{"op": "c", "after": {"at": 1', change("c", {**ROW, "id": "7"}),
        change("c", {"id": 7}), change("c", {**ROW, "score": 10}), deep, b'{"op": "\xff"}', change(3),
    ])  # fmt: skip
    assert rows(found) == []
    assert [(kind, reason.partition(" - at")[0]) for _, kind, reason in rejected(found)] == [
        ("dead-letter", "op: expected one of Debezium's (c, r, u, d, t, m), got none"),
        ("dead-letter", "op: expected one of Debezium's (c, r, u, d, t, m), got 'x'"),
        ("dead-letter", "after: op c has no row"),
        ("dead-letter", "empty value: expected a Debezium envelope"),
        ("dead-letter", "Expected `object`, got `array`"),
        ("dead-letter", "Input data was truncated"),
        ("dead-letter", "Expected `int | null`, got `str`"),
        ("dead-letter", "at: the event time is missing"),
        ("quarantine", "score: expected a value between 0 and 9, got 10.0"),
        ("dead-letter", "nested deeper than 100 levels"),
        ("dead-letter", "invalid UTF-8 at byte 8"),
        ("dead-letter", "Expected `str | null`, got `int`"),
    ]


def test_nan_is_null_in_an_envelope_as_everywhere() -> None:
    assert rows(admitted([change("c", {**ROW, "score": float("nan")})])) == [{**ROW, "score": None}]


def test_rows_of_a_file_are_written_as_inserts() -> None:
    frame = pl.DataFrame({"at": pl.Series([1_000_000]).cast(pl.Datetime("us", "UTC")), "id": [7], "score": [0.5]})
    assert rows(admitted(encoder_of(SOURCE, Schemas())(frame))) == [{**ROW, "plan": None}]


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    server = SchemaRegistry()
    yield server
    server.stop()


VALUE = {
    "type": "record", "name": "Value",
    "fields": [{"name": "id", "type": "long"}, {"name": "at", "type": "long"}, {"name": "plan", "type": ["null", "string"]},
               {"name": "score", "type": "double"}],
}  # fmt: skip
ENVELOPE: Any = {
    "type": "record", "name": "Envelope",
    "fields": [{"name": "before", "type": ["null", VALUE]}, {"name": "after", "type": ["null", "Value"]},
               {"name": "op", "type": "string"}, {"name": "ts_ms", "type": ["null", "long"]}],
}  # fmt: skip


def avro(registry: SchemaRegistry, *changes: dict[str, Any], schema: Any = ENVELOPE) -> list[Any]:
    head, values = struct.pack(">bI", 0, registry.add("accounts-value", schema)), []
    for one in changes:
        out = io.BytesIO()
        schemaless_writer(out, parse_schema(json.loads(json.dumps(schema))), one)
        values.append(head + out.getvalue())
    return values


def test_the_same_changes_in_avro(registry: SchemaRegistry) -> None:
    source = msgspec.structs.replace(SOURCE, format="avro")
    values = avro(
        registry, change("c"), change("u"), change("r", {**ROW, "id": 8}), change("d", None, before=ROW), change("x"),
        change("c", None), change("c", {**ROW, "plan": None}),
    )  # fmt: skip
    found = admitted([*values, None, values[0][:-3], values[0] + b"x"], source, registry)
    assert rows(found) == [ROW, {**ROW, "id": 8}, {**ROW, "plan": None}]
    assert rejected(found) == [
        (1, "ignored", UPDATE), (3, "ignored", DELETE),
        (4, "dead-letter", "schema 1: op: expected one of Debezium's (c, r, u, d, t, m), got 'x'"),
        (5, "dead-letter", "schema 1: after: an event has no row"), (7, "ignored", "a tombstone: no value"),
        (8, "dead-letter", "schema 1: a length reaches past the end of the value"),
        (9, "dead-letter", "schema 1: 1 bytes are left behind the record"),
    ]  # fmt: skip
    counted = admitted(values[1:2], msgspec.structs.replace(source, updates="count"), registry)
    assert rows(counted) == [ROW]


def test_a_schema_that_is_no_envelope_is_said(registry: SchemaRegistry) -> None:
    source = msgspec.structs.replace(SOURCE, format="avro")
    values = avro(registry, ROW, schema=VALUE)
    assert rejected(admitted(values, source, registry)) == [
        (0, "dead-letter", "schema 1: expected a Debezium envelope, a record with the fields 'op' and 'after'")
    ]
