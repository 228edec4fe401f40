"""Lists and vectors in events of every format: the same columns, the same refusals."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastavro import parse_schema, schemaless_writer

from headwater.columns import Column
from headwater.errors import UsageError
from headwater.events.admission import Admission, Admitted
from headwater.events.formats import encoder_of
from headwater.events.schemas import Schemas
from headwater.plans.plan import Field, Source
from tests.schema_registry import SchemaRegistry

FIELDS = (
    Field("at", "timestamp"), Field("vector", "list[float64]", 3), Field("numbers", "list[int64]"),
    Field("names", "list[string]"), Field("flags", "list[bool]"), Field("times", "list[timestamp]"),
    Field("blobs", "list[bytes]"),
)  # fmt: skip
NOON = datetime(2023, 11, 14, 12, tzinfo=UTC)
MICROS = 1_699_963_200_000_000
FULL = {
    "vector": [0.1, -0.0, 5e-324], "numbers": [2**63 - 1, -(2**63)], "names": ["é🫖", "", "\0"],
    "flags": [True, False], "times": [MICROS, -1], "blobs": [b"\0\xff", b""],
}  # fmt: skip
EMPTY: dict[str, list[Any]] = {
    "vector": [0.0, 0.0, 0.0], **{name: [] for name in ("numbers", "names", "flags", "times", "blobs")},
}  # fmt: skip
NULL = dict.fromkeys(FULL)


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    server = SchemaRegistry()
    yield server
    server.stop()


def source(form: Any = "json") -> Source:
    return Source("rooms", "rooms", "at", None, 1, FIELDS, format=form)


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    moment = pl.Datetime("us", "UTC")
    kinds = {"vector": pl.Float64, "numbers": pl.Int64, "names": pl.String, "flags": pl.Boolean, "blobs": pl.Binary}
    columns = {n: pl.Series([r[n] for r in rows], dtype=pl.List(k)) for n, k in kinds.items()}
    times = pl.Series([r["times"] for r in rows], dtype=pl.List(pl.Int64)).cast(pl.List(moment))
    return pl.DataFrame({"at": pl.Series([NOON] * len(rows), dtype=moment), **columns, "times": times})


def admitted(values: list[bytes], form: str = "json", registry: SchemaRegistry | None = None) -> Admitted:
    n = len(values)
    schemas = None if registry is None else Schemas({"url": registry.url})
    return Admission(source(form), schemas).admit(values, np.zeros(n, np.int64), np.arange(n), np.full(n, 2**60))


def of_json(**values: Any) -> Admitted:
    return admitted([json.dumps({"at": "2023-11-14T12:00:00Z", **values}).encode()])


def rows_of(found: Admitted) -> list[dict[str, Any]]:
    columns = {n: c.to_list() for n, c in found.events.columns.items() if n != "at"}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("form", ["json", "avro", "protobuf"])
def test_rows_of_a_file_come_back_from_every_format_as_they_were(form: str, registry: SchemaRegistry) -> None:
    # Protobuf cannot tell an absent list from an empty one, so a null cannot be written.
    rows = [FULL, EMPTY] if form == "protobuf" else [FULL, EMPTY, NULL]
    values = encoder_of(source(form), Schemas({"url": registry.url}))(frame(rows))
    found = admitted(values, form, registry)
    assert found.rejected == []
    assert rows_of(found) == rows
    # -0.0 is 0.0, in lists as in columns of one value.
    assert repr(rows_of(found)[0]["vector"]) == "[0.1, 0.0, 5e-324]"


def test_a_null_list_cannot_be_written_to_protobuf(registry: SchemaRegistry) -> None:
    with pytest.raises(UsageError, match=r"field 'vector' cannot be absent, so a null would become \[\]"):
        encoder_of(source("protobuf"), Schemas({"url": registry.url}))(frame([NULL]))


def test_lists_survive_arrow_and_lie_there_under_their_types() -> None:
    found = admitted([json.dumps({"at": MICROS, "times": [MICROS], "names": ["a"]}).encode(), b'{"at": 1}'])
    for name in ("times", "names", "vector"):
        column = found.events.columns[name]
        again = Column.from_arrow(column.dtype, column.to_arrow())
        assert (again.to_list(), again.dtype) == (column.to_list(), column.dtype)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"vector": [1, 2]}, "vector: expected list[float64] of 3 values, got 2"),
        ({"vector": []}, "vector: expected list[float64] of 3 values, got 0"),
        ({"vector": [1, 2, None]}, "Expected `float`, got `null` - at `$.vector[2]`"),
        ({"vector": [1, 2, float("nan")]}, "Expected `float`, got `null` - at `$.vector[2]`"),
        ({"vector": [1, 2, "3"]}, "Expected `float`, got `str` - at `$.vector[2]`"),
        ({"vector": 1.5}, "Expected `array | null`, got `float` - at `$.vector`"),
        ({"numbers": [1, 2**63]}, "numbers: element 1 is an integer that does not fit 64 bits"),
        ({"numbers": [1.5]}, "Expected `int`, got `float` - at `$.numbers[0]`"),
        ({"names": [1]}, "Expected `str`, got `int` - at `$.names[0]`"),
        ({"times": ["noon"]}, "times: element 0, 'noon', is not an RFC 3339 timestamp of the years 1 to 9999"),
        ({"flags": [0]}, "Expected `bool`, got `int` - at `$.flags[0]`"),
    ],
)
def test_a_list_that_does_not_fit_makes_the_event_a_dead_letter(values: dict[str, Any], reason: str) -> None:
    (rejected,) = of_json(**values).rejected
    assert (rejected.kind, rejected.reason) == ("dead-letter", reason)


def test_what_becomes_of_a_list_does_not_depend_on_the_batch() -> None:
    events = [{"at": 1, "vector": v} for v in ([1, 2, 3], [1, 2], None, [1e999, 0, 0])]
    values = [json.dumps(e).encode() for e in events]
    together = admitted(values)
    alone = [admitted([v]) for v in values]
    assert [r.index for r in together.rejected] == [i for i, a in enumerate(alone) if a.rejected]
    assert rows_of(together) == [row for a in alone for row in rows_of(a)]


def avro(registry: SchemaRegistry, items: Any, values: list[Any], name: str = "vector") -> Admitted:
    fields = [{"name": "at", "type": "long"}, {"name": name, "type": {"type": "array", "items": items}}]
    schema: Any = {"type": "record", "name": "room", "fields": fields}
    number, events = registry.add("rooms-value", json.dumps(schema)), []
    for value in values:
        out = io.BytesIO()
        schemaless_writer(out, parse_schema(schema), {"at": 1, name: value})
        events.append(struct.pack(">bI", 0, number) + out.getvalue())
    return admitted(events, "avro", registry)


def test_avro_elements_are_read_as_values_of_a_column_are(registry: SchemaRegistry) -> None:
    assert rows_of(avro(registry, "float", [[0.5, 1, 2]]))[0]["vector"] == [0.5, 1.0, 2.0]
    assert rows_of(avro(registry, ["null", "int"], [[1, 2, 3]]))[0]["vector"] == [1.0, 2.0, 3.0]
    millis = {"type": "long", "logicalType": "timestamp-millis"}
    assert rows_of(avro(registry, millis, [[NOON], []], "times")) == [
        {**NULL, "times": [MICROS]},
        {**NULL, "times": []},
    ]


def test_avro_lists_that_do_not_fit_name_the_schema_and_the_element(registry: SchemaRegistry) -> None:
    found = avro(registry, ["null", "double"], [[1.0, None, 3.0], [1.0], [1.0, 2.0, float("inf")], [1.0, 2.0, 3.0]])
    assert [r.reason for r in found.rejected] == [
        "schema 1: vector: element 1 is null; the elements of a list are not",
        "schema 1: vector: expected list[float64] of 3 values, got 1",
        "schema 1: vector: element 2 is inf; the elements of a list are finite",
    ]
    assert [row["vector"] for row in rows_of(found)] == [[1.0, 2.0, 3.0]]
    (wrong,) = avro(registry, "string", [["a"]]).rejected
    assert wrong.reason == "schema 2: vector: string cannot be read as the source's float64"


def test_an_avro_array_in_blocks_with_sizes_and_one_cut_off(registry: SchemaRegistry) -> None:
    (good,) = [registry.add("rooms-value", json.dumps(
        {"type": "record", "name": "r", "fields": [
            {"name": "numbers", "type": {"type": "array", "items": "long"}}, {"name": "at", "type": "long"}]}))]  # fmt: skip
    head = struct.pack(">bI", 0, good)
    # Two blocks: a count of 2; a count of -1 (zigzag 1) with its size of 1 byte; the end; then `at`.
    whole = head + b"\x04\x02\x04" + b"\x01\x02\x06" + b"\x00" + b"\x0a"
    found = admitted([whole, head + b"\x04\x02", head + b"\xfe\xff\xff\xff\x0f\x02"], "avro", registry)
    assert rows_of(found)[0]["numbers"] == [1, 2, 3]
    assert [r.reason for r in found.rejected] == ["schema 1: numbers: the value ends too early"] * 2
