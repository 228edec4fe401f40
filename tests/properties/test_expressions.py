"""Random typed expressions over random columns: numpy and DuckDB give the same bits."""

from __future__ import annotations

import struct
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.columns import Column
from headwater.dtypes import Dtype
from headwater.expressions.evaluate import evaluate
from headwater.expressions.parse import parse
from headwater.expressions.readable import readable
from headwater.expressions.sql import normalised_sql, to_sql

COLUMNS: dict[str, Dtype] = {
    "i": "int64", "j": "int64", "x": "float64", "y": "float64", "s": "string", "t": "string",
    "b": "bool", "c": "bool", "at": "timestamp", "bt": "timestamp",
}  # fmt: skip
BY_TYPE = {dtype: [n for n, d in COLUMNS.items() if d == dtype] for dtype in set(COLUMNS.values())}

INTS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([-(2**63), -(2**63) + 1, 2**63 - 1, 2**62, -(2**62), 2**53 + 1, 3_037_000_500, 2**32, -(2**31)]),
    st.integers(-(2**63), 2**63 - 1),
)
DOUBLES = st.one_of(
    st.sampled_from([0.0, 1.5, -2.5, 0.1, 1e308, -1e308, 5e-324, 2.0**63, -(2.0**63), 9007199254740993.0, 1e-200]),
    st.floats(allow_nan=False, allow_infinity=False),
)
LETTERS = "aAzZñÑß\u0131\u03c3🤦🏼\u200d %_'\\$"
TEXTS = st.one_of(st.sampled_from(["", "abc", "aBc%", "ñ🤦🏼x", "it's"]), st.text(LETTERS, max_size=6))
TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": INTS, "float64": DOUBLES, "string": TEXTS, "bool": st.booleans(), "timestamp": TIMES,
}  # fmt: skip


def literal(dtype: str) -> st.SearchStrategy[str]:
    if dtype == "int64":
        return INTS.map(str)
    if dtype == "float64":
        return DOUBLES.map(lambda v: repr(v) if "e" in repr(v) or "." in repr(v) else f"{v!r}.0")
    if dtype == "string":
        return TEXTS.map(lambda v: "'" + v.replace("'", "''") + "'")
    if dtype == "bool":
        return st.sampled_from(["TRUE", "FALSE"])
    return st.sampled_from(["TIMESTAMP '2011-01-01 00:00:00'", "TIMESTAMP '1969-12-31 23:59:59.999999'"])


def leaf(dtype: str) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(BY_TYPE[dtype]), literal(dtype))


def expression(dtype: str, depth: int) -> st.SearchStrategy[str]:
    if depth == 0:
        return leaf(dtype)
    inner = {kind: expression(kind, depth - 1) for kind in BY_TYPE}
    of = inner[dtype]
    ways = [
        leaf(dtype),
        st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner["bool"], of, of),
        st.builds("CASE WHEN {} THEN {} END".format, inner["bool"], of),
        st.builds("COALESCE({}, {})".format, of, of),
        st.builds("NULLIF({}, {})".format, of, of),
        *_OWN[dtype](inner),
    ]
    if dtype != "bool":
        ways.append(st.builds("{}({}, {}, {})".format, st.sampled_from(["greatest", "least"]), of, of, of))
    return st.one_of(ways)


def _ints(inner: dict[str, st.SearchStrategy[str]]) -> list[st.SearchStrategy[str]]:
    n = inner["int64"]
    return [
        st.builds("({} {} {})".format, n, st.sampled_from("+-*%"), n),
        st.builds("{}({})".format, st.sampled_from(["-", "abs"]), n),
        st.builds("{}({})".format, st.sampled_from(["floor", "ceil"]), inner["float64"]),
        st.builds("length({})".format, inner["string"]),
        st.builds("CASE {} WHEN {} THEN {} ELSE {} END".format, n, n, n, n),
    ]


def _doubles(inner: dict[str, st.SearchStrategy[str]]) -> list[st.SearchStrategy[str]]:
    x, n = inner["float64"], inner["int64"]
    return [
        st.builds("({} {} {})".format, x, st.sampled_from("+-*/"), st.one_of(x, n)),
        st.builds("({} {} {})".format, n, st.sampled_from("+-*/"), x),
        st.builds("{}({})".format, st.sampled_from(["-", "abs", "sqrt"]), x),
        st.builds("CAST({} AS DOUBLE)".format, n),
        st.builds("COALESCE({}, {})".format, n, x),
    ]


def _bools(inner: dict[str, st.SearchStrategy[str]]) -> list[st.SearchStrategy[str]]:
    b = inner["bool"]
    compared = [
        st.builds("({} {} {})".format, v, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), w)
        for v, w in [*((inner[k], inner[k]) for k in BY_TYPE if k != "bool"), (inner["int64"], inner["float64"])]
    ]
    constants = [
        st.builds("({} {} ({}, {}))".format, inner[k], st.sampled_from(["IN", "NOT IN"]), literal(k), literal(k))
        for k in BY_TYPE
        if k != "timestamp"
    ]
    return [
        *compared,
        *constants,
        st.builds("({} {} {})".format, b, st.sampled_from(["AND", "OR", "=", "<>"]), b),
        st.builds("(NOT {})".format, b),
        st.builds("(({} {} NULL) AND {})".format, inner["float64"], st.sampled_from(["IS", "IS NOT"]), b),
        st.builds("({} BETWEEN {} AND {})".format, inner["int64"], inner["int64"], inner["int64"]),
        st.builds("({} {} {})".format, inner["string"], st.sampled_from(["LIKE", "NOT LIKE"]), _patterns()),
    ]


def _patterns() -> st.SearchStrategy[str]:
    return st.text("%_aAñ🤦", max_size=4).map(lambda v: f"'{v}'")


def _texts(inner: dict[str, st.SearchStrategy[str]]) -> list[st.SearchStrategy[str]]:
    s = inner["string"]
    return [
        st.builds("({} || {})".format, s, s),
        st.builds("{}({})".format, st.sampled_from(["upper", "lower"]), s),
        st.builds("substr({}, {}, {})".format, s, st.integers(1, 5), st.integers(0, 4)),
        st.builds("substr({}, {})".format, s, st.integers(1, 5)),
    ]


def _times(inner: dict[str, st.SearchStrategy[str]]) -> list[st.SearchStrategy[str]]:
    units = st.sampled_from(["minute", "hour", "day", "week", "month", "year"])
    return [st.builds("date_trunc('{}', {})".format, units, st.sampled_from(BY_TYPE["timestamp"]))]


_OWN = {"int64": _ints, "float64": _doubles, "bool": _bools, "string": _texts, "timestamp": _times}
DEPTH = 3
EXPRESSIONS = {kind: expression(kind, DEPTH) for kind in BY_TYPE}


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Column]:
    rows = draw(st.integers(1, 6))
    column = {d: st.lists(st.one_of(st.none(), v), min_size=rows, max_size=rows) for d, v in VALUES.items()}
    return {name: Column.of(dtype, draw(column[dtype])) for name, dtype in COLUMNS.items()}


@pytest.fixture(scope="module")
def engine() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables(), texts=st.tuples(*EXPRESSIONS.values()))
def test_numpy_and_duckdb_give_the_same_bits(
    engine: duckdb.DuckDBPyConnection, table: dict[str, Column], texts: tuple[str, ...]
) -> None:
    trees = [parse(text, COLUMNS, place="test") for text in texts]
    rows = len(table["i"])
    engine.register("events", pa.table({name: column.to_arrow() for name, column in table.items()}))
    query = ", ".join(f"{to_sql(tree, 'duckdb')} AS r{i}" for i, tree in enumerate(trees))
    answer = engine.sql(f"SELECT {query} FROM events").to_arrow_table()
    for i, tree in enumerate(trees):
        ours = evaluate(tree, table, rows)
        theirs = answer.column(i)
        if tree.dtype == "timestamp":
            theirs = theirs.cast(pa.int64())
        assert [bits(v) for v in ours.to_list()] == [bits(v) for v in theirs.to_pylist()], texts[i]


@settings(max_examples=100, deadline=None)
@given(table=tables(), text=st.one_of(*EXPRESSIONS.values()))
def test_results_are_normalised_columns_with_fillers(table: dict[str, Column], text: str) -> None:
    tree = parse(text, COLUMNS, place="test")
    result = evaluate(tree, table, len(table["i"]))
    assert len(result) == len(table["i"])
    filler = Column.nulls(tree.dtype, 1).values[0]
    null = ~result.mask()
    assert all(value == filler for value in result.values[null].tolist())
    if tree.dtype == "float64":
        assert np.isfinite(result.values).all()
        assert not (np.signbit(result.values) & (result.values == 0)).any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=20))
def test_normalised_sql_is_what_columns_do(engine: duckdb.DuckDBPyConnection, values: list[float | None]) -> None:
    engine.register("raw", pa.table({"x": pa.array(values, pa.float64())}))
    rows = engine.sql(f"SELECT {normalised_sql('x', 'float64', 'duckdb')} FROM raw").fetchall()
    assert [bits(r[0]) for r in rows] == [bits(v) for v in Column.of("float64", values).to_list()]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.one_of(*EXPRESSIONS.values()))
def test_what_people_read_is_the_same_expression(text: str) -> None:
    tree = parse(text, COLUMNS, place="test")
    assert parse(readable(tree), COLUMNS, place="test") == tree
