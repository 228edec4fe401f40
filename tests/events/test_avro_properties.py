"""Laws of Avro events: columns are what another writer wrote, and no cut into batches matters."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.events.conversions import Decimals, conversion
from headwater.plans.plan import Field, Source
from tests.avro_schemas import AT, COLOUR, DECIMAL, MILLIS, framed, one, record
from tests.events.schema_orders import BROKER, GARBAGE, NOON, admit, assert_cuts_do_not_matter, orders
from tests.schema_registry import SchemaRegistry

SOURCE = orders("avro")
DTYPES = ("int64", "float64", "string", "bool", "timestamp", "bytes")


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
    admitted = admit(registry, source, *(framed(number, schema, {"at": NOON, **r}) for r in rows))
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


@settings(max_examples=200, deadline=None)
@given(records=st.lists(st.one_of(damaged(), GARBAGE), max_size=8))
def test_admission_does_not_depend_on_how_events_are_cut_into_batches(
    registry: SchemaRegistry, records: list[bytes | None]
) -> None:
    heads = {b: struct.pack(">bI", 0, registry.add(b.decode(), s)) for b, s in ((b"E", EVENT), (b"O", OTHER))}
    values = [heads[v[:1]] + v[1:] if v and v[:1] in heads else v for v in records]
    assert_cuts_do_not_matter(registry, SOURCE, values)
