"""One table of cases, each answered by numpy, DuckDB and Spark: the same bits from all three."""

from __future__ import annotations

import struct
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from headwater.columns import Column
from headwater.dtypes import Dtype
from headwater.expressions.evaluate import evaluate
from headwater.expressions.parse import parse
from headwater.expressions.sql import normalised_sql, quoted_name, to_sql
from headwater.expressions.syntax import Expr

COLUMNS: dict[str, Dtype] = {
    "i": "int64", "j": "int64", "x": "float64", "y": "float64", "s": "string", "b": "bool", "at": "timestamp",
}  # fmt: skip

MIN, MAX = -(2**63), 2**63 - 1
ROWS: list[tuple[Any, ...]] = [
    #  i         j      x         y       s            b      at (microseconds since the epoch)
    (1, 2, 1.5, 2.0, "abc", True, 1_293_840_000_000_001),
    (None, 3, None, 0.0, None, None, None),
    (0, None, 0.0, None, "", False, -1),
    (MIN, -1, -1e308, 10.0, "ñ🤦🏼x", True, -2_208_988_800_000_000),
    (MAX, 1, 1e308, 1e308, "It's a\\b", False, 253_402_300_799_999_999),
    (MIN, MIN, 5e-324, 5e-324, "a%_b\nc", None, 1_322_697_599_999_999),
    (MAX, MAX, -2.5, -0.5, "${x}", True, 951_868_800_000_000),
    (2**53 + 1, 2**53, 9007199254740992.0, 0.1, "ABC", False, 0),
    (3_037_000_500, 3_037_000_500, 2.0**63, -(2.0**63), "Straße", True, 86_400_000_000),
    (-7, 3, 9.223372036854775e18, 3.0, "\u0131\u00c9 zZ", False, 978_307_200_000_000),
    (7, -3, -1e-200, 1e-200, "aaa", True, -62_135_596_800_000_000),
    (-8, 0, 0.1, 0.2, "é", None, 1_709_164_800_000_000),
]

CASES = """
i + j | i - j | i * j | -i | abs(i) | i % j | i % -1 | i % 3 | -7 % 3 | i * 2 + 1 | -(i * j) | abs(i - j)
i + 1 - 1
x + y | x - y | x * y | -x | abs(x) | x / y | i / j | 1 / i | x / (y / x) | x / (x * y) | 1.5 * i | i - 0.5
-x * 0
x * y * 0 | x * 10 - x * 10 | sqrt(x) | sqrt(i) | sqrt(x * x) | floor(x) | ceil(x) | floor(x * 10)
floor(x / y)
floor(-0.5) | ceil(-0.5) | CAST(i AS DOUBLE) | 9223372036854775807 + 1 | -9223372036854775808 | 1e22 | 5e-324
0.1 + 0.2
i = j | i <> j | i < j | i <= x | i = x | x > y | x >= 1 | i > 1.5 | s = 'abc' | s < 'b' | s >= 'é' | b = TRUE
b <> FALSE
at > TIMESTAMP '2011-01-01 00:00:00' | at = TIMESTAMP '1970-01-01'
at <= TIMESTAMP '2011-01-01 00:00:00.000001Z'
b AND i > 0 | b OR i > 0 | NOT b | NOT (b AND x > 0 AND y > 0) | b AND NULL | b OR NULL | i IS NULL
x * y IS NULL
x * y IS NOT NULL | i IN (1, -7, 9223372036854775807) | i NOT IN (1, 7) | x IN (1.5, -2.5)
s IN ('abc', '${x}', 'It''s a\\b')
i BETWEEN -8 AND 8 | i NOT BETWEEN j AND 100 | x BETWEEN y AND 1e300
CASE WHEN b THEN i WHEN x > 0 THEN j END | CASE s WHEN 'abc' THEN 1 WHEN 'ABC' THEN 2.5 ELSE i END
CASE WHEN b THEN NULL ELSE s END
COALESCE(i, j, 0) | COALESCE(i, x) | COALESCE(x * y, 1) | COALESCE(s, 'none') | COALESCE(b, FALSE)
COALESCE(at, TIMESTAMP '2000-01-01')
NULLIF(i, j) | NULLIF(i, 0.0) | NULLIF(s, '') | greatest(i, j) | least(i, j, 0) | greatest(i, x, y)
least(x * y, 1.0)
greatest(s, 'b') | least(s, 'b') | greatest(at, TIMESTAMP '2011-01-01') | greatest(-x * 0, 0.0)
s || '!' | s || s || '\\' | length(s) | upper(s) | lower(s) | substr(s, 1, 2) | substr(s, 2, 1) | substr(s, 3)
substr(s, 2, 0)
s LIKE 'a%' | s LIKE '%b%' | s LIKE '%c' | s LIKE '_b_' | s LIKE 'ñ_%x' | s NOT LIKE '%' | s LIKE '${x}'
s LIKE '%_b%c' | s LIKE ''
date_trunc('minute', at) | date_trunc('hour', at) | date_trunc('day', at) | date_trunc('week', at)
date_trunc('month', at)
date_trunc('year', at)
"""
TEXTS = [text.strip() for line in CASES.strip().splitlines() for text in line.split(" | ")]


def trees() -> list[Expr]:
    return [parse(text, COLUMNS, place="the case") for text in TEXTS]


def table() -> dict[str, Column]:
    return {name: Column.of(dtype, (row[i] for row in ROWS)) for i, (name, dtype) in enumerate(COLUMNS.items())}


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def differences(answer: pa.Table) -> dict[str, tuple[list[Any], list[Any]]]:
    """The cases in which an engine's columns are not numpy's: text -> (numpy's, the engine's)."""
    out, columns = {}, table()
    for i, (text, tree) in enumerate(zip(TEXTS, trees(), strict=True)):
        ours = evaluate(tree, columns, len(ROWS)).to_list()
        theirs = answer.column(i)
        if tree.dtype == "timestamp":
            theirs = theirs.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        if [bits(v) for v in ours] != [bits(v) for v in theirs.to_pylist()]:
            out[text] = (ours, theirs.to_pylist())
    return out


def test_every_case_answers_for_every_row() -> None:
    assert len(TEXTS) > 100
    for tree in trees():
        assert len(evaluate(tree, table(), len(ROWS))) == len(ROWS)


def test_duckdb_gives_the_bits_of_numpy() -> None:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("events", pa.table({name: c.to_arrow() for name, c in table().items()}))
    query = ", ".join(f"{to_sql(tree, 'duckdb')} AS r{i}" for i, tree in enumerate(trees()))
    assert differences(connection.sql(f"SELECT {query} FROM events").to_arrow_table()) == {}


@pytest.mark.spark
def test_spark_gives_the_bits_of_numpy(spark: Any) -> None:
    assert spark.conf.get("spark.sql.ansi.enabled") == "true"
    frame = spark.createDataFrame(
        pa.table({"n": list(range(len(ROWS))), **{k: c.to_arrow() for k, c in table().items()}})
    )
    frame.createOrReplaceTempView("expression_cases")
    inputs = ", ".join(f"{normalised_sql(quoted_name(k, 'spark'), d, 'spark')} AS {k}" for k, d in COLUMNS.items())
    query = ", ".join(f"{to_sql(tree, 'spark')} AS r{i}" for i, tree in enumerate(trees()))
    answer = spark.sql(f"SELECT {query}, n FROM (SELECT n, {inputs} FROM expression_cases)").toArrow().sort_by("n")
    assert differences(answer) == {}


@pytest.mark.spark
def test_spark_normalises_inputs_as_columns_do(spark: Any) -> None:
    values = [1.5, -0.0, float("nan"), float("inf"), float("-inf"), None]
    spark.createDataFrame(pa.table({"x": pa.array(values, pa.float64())})).createOrReplaceTempView("raw_doubles")
    rows = spark.sql(f"SELECT {normalised_sql('x', 'float64', 'spark')} AS x FROM raw_doubles").collect()
    assert sorted(bits(r.x) for r in rows if r.x is not None) == sorted(map(bits, [1.5, 0.0]))
    assert sum(r.x is None for r in rows) == 4
