"""Rows of a file as Protobuf events: by the topic's newest schema, and back through admission as they were."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from headwater.errors import UsageError
from headwater.events.admission import Admission
from headwater.events.formats import encoder_of
from headwater.events.schemas import Schemas
from headwater.plans.plan import Field, Source
from tests.protobuf_schemas import class_of, file, message, proto, text_of
from tests.schema_registry import SchemaRegistry

SOURCE = Source(
    name="orders", topic="orders", event_time="at", key=None, tolerance=1, format="protobuf",
    fields=(Field("at", "timestamp"), Field("customer", "int64"), Field("price", "float64"), Field("code", "string"),
            Field("paid", "bool"), Field("blob", "bytes")),
)  # fmt: skip
NOON = datetime(2023, 11, 14, 12, tzinfo=UTC)
FRAME = pl.DataFrame(
    {
        "at": pl.Series([NOON, NOON.replace(year=1969, microsecond=1)], dtype=pl.Datetime("us", "UTC")),
        "customer": [-(2**63), None], "price": [0.0, None], "code": ["", None], "paid": [False, None],
        "blob": [b"\0\xff", None],
    }
)  # fmt: skip


def encode(registry: SchemaRegistry, frame: pl.DataFrame) -> list[bytes]:
    return encoder_of(SOURCE, Schemas({"url": registry.url}))(frame)


def test_without_a_schema_the_sources_own_is_registered_and_admitted_as_it_was(own_registry: SchemaRegistry) -> None:
    values = encode(own_registry, FRAME)
    encode(own_registry, FRAME)
    assert own_registry.subjects == {"orders-value": [1]}
    admission = Admission(SOURCE, Schemas({"url": own_registry.url}))
    events = admission.admit(values, np.zeros(2, np.int64), np.arange(2), np.full(2, 2**60)).events
    wanted = FRAME.with_columns(pl.col("at").to_physical())
    assert {n: c.to_list() for n, c in events.columns.items()} == wanted.to_dict(as_series=False)


def test_the_newest_schema_of_the_topic_is_used(own_registry: SchemaRegistry) -> None:
    own_registry.add("orders-value", text_of(proto(at="int64")), "PROTOBUF")
    newest = proto(shop="string", customer="uint32", at="string")
    own_registry.add("orders-value", text_of(newest), "PROTOBUF")
    [value] = encode(own_registry, pl.DataFrame({"at": [NOON], "customer": [7]}))
    assert value[:6] == b"\0\0\0\0\2\0"
    read = class_of(newest).FromString(value[6:])
    assert (read.shop, read.customer, read.at) == ("", 7, "2023-11-14T12:00:00Z")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (proto(at="int64"), "has no field 'customer', which the file has"),
        (proto(at="int64", customer="string"), "field 'customer' is string; a column of int64 cannot be written to it"),
        (proto(at="int64", customer="repeated int64"), "field 'customer' is repeated int64; a column of int64 cannot"),
        (proto(at="int64", customer="optional int32"), "cannot hold row 0 of these: "),
        (proto(at="int64", customer="int64"), "field 'customer' cannot be absent, so a null would become 0"),
        (proto(at="double", customer="optional int64"), "field 'at' is double; a column of timestamp cannot be"),
        (file(), "has no message"),
        (file(message("Order", at="int64"), imports=("elsewhere.proto",)), "cannot be used: its files do not make"),
    ],
)
def test_a_schema_that_does_not_fit_is_said_before_anything_is_lost(
    own_registry: SchemaRegistry, made: Any, expected: str
) -> None:
    own_registry.add("orders-value", text_of(made), "PROTOBUF")
    with pytest.raises(UsageError, match=r"^Schema 1 of subject 'orders-value'") as error:
        encode(own_registry, pl.DataFrame({"at": [NOON, NOON], "customer": [2**40, None]}))
    assert expected in str(error.value)
