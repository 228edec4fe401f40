"""The SQL of a BatchView: read once as DuckDB's dialect, written for the engine that runs it.

Apart from the engines because it is what keeps them equal: everything below says where DuckDB and
Spark mean different things by the same text, and gives both the same meaning. sqlglot translates
the rest, and refuses what it cannot (`unsupported_level=RAISE`).

=========================  ========================  =========================================
written                    the engines differ        what both do
=========================  ========================  =========================================
``a / b``                  decimals, by zero         division of doubles, null by zero
``a % b``, ``a // b``      error by zero             null by zero
``CAST(x AS BIGINT)``      round or cut off          doubles to even, decimals away from zero
``date_diff('day', a, b)`` boundaries or full days   boundaries crossed
``avg(x)``                 decimals                  a double
``date - date``            number or interval        number of days
``epoch(t)``               double or integer         seconds as a double
=========================  ========================  =========================================
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from headwater.errors import DefinitionError
from headwater.plans.plan import BatchView
from headwater.plans.queries import parse_query, tables_of

Dialect = Literal["duckdb", "spark"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGERS = {
    exp.DataType.Type.TINYINT, exp.DataType.Type.SMALLINT, exp.DataType.Type.INT, exp.DataType.Type.BIGINT,
}  # fmt: skip


def render(view: BatchView, as_of: int, dialect: Dialect) -> str:
    """The view's query in an engine's dialect, `:as_of` (microseconds) bound as a timestamp with its zone.

    Raises:
        DefinitionError: not one SELECT, another parameter than `:as_of`, or a construct that the engine lacks.
    """
    tree = parse_query(_place(view), view.sql)
    for node in list(tree.find_all(exp.Placeholder, exp.Parameter)):
        node.replace(_cast(exp.Literal.string(timestamp_text(as_of)), "TIMESTAMPTZ"))
    for kind, mend in [*_EVERYWHERE, *(_SPARK if dialect == "spark" else [])]:
        # Innermost first, so that what is put around a node is not visited again.
        for node in reversed(list(tree.find_all(kind, bfs=False))):
            mend(node)
    try:
        return str(tree.sql(dialect=dialect, unsupported_level=sqlglot.ErrorLevel.RAISE))
    except SqlglotError as error:
        raise DefinitionError(
            f"{_place(view)}: it cannot be written for {dialect}: {_first_line(error)}. "
            f"Write it with functions that both engines have, or run --engine local."
        ) from error


def tables_read(view: BatchView) -> set[str]:
    """The tables that the query reads, in lower case (engines do not tell cases apart)."""
    return {name.lower() for name in tables_of(parse_query(_place(view), view.sql))}


def timestamp_text(micros: int) -> str:
    """A time as every engine reads it: 2011-12-09T12:50:00.000000+00:00."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds")


def _divide(node: exp.Div) -> None:
    node.set("this", _cast(node.this, "DOUBLE"))
    node.set("expression", _nullif_zero(_cast(node.expression, "DOUBLE")))


def _guard_zero(node: exp.Mod | exp.IntDiv) -> None:
    node.set("expression", _nullif_zero(node.expression))


def _whole_cast(node: exp.Cast) -> None:
    """A cast to an integer rounds as DuckDB does. What x is, only the engine knows: `typeof` is a constant there."""
    if isinstance(node, exp.TryCast) or node.to.this not in _INTEGERS or _is_whole(node.this):
        return
    x, kind = node.this, f"typeof({_spark(node.this)})"
    double = f"CAST(RINT(CAST({_spark(x)} AS DOUBLE)) AS {_spark(node.to)})"
    decimal = f"CAST(ROUND(CAST({_spark(x)} AS DECIMAL(38, 18))) AS {_spark(node.to)})"
    _become(
        node,
        f"CASE WHEN {kind} IN ('double', 'float') THEN {double} WHEN STARTSWITH({kind}, 'decimal') THEN {decimal} "
        f"ELSE CAST({_spark(x)} AS {_spark(node.to)}) END",
    )


def _is_whole(node: exp.Expression) -> bool:
    """Evidently no fraction: nothing to round. Keeps nested casts short."""
    while isinstance(node, exp.Paren | exp.Filter):
        node = node.this
    return isinstance(node, exp.Count | exp.CountIf | exp.Predicate | exp.Length | exp.DateDiff | exp.Boolean)


def _boundaries(node: exp.DateDiff) -> None:
    unit = _unit(node)
    end, start = (f"DATE_TRUNC('{unit}', {_spark(x)})" for x in (node.this, node.expression))
    _become(node, f"TIMESTAMPDIFF({unit}, {start}, {end})")


def _days_between(node: exp.Sub) -> None:
    if all(isinstance(x, exp.Cast) and x.to.this == exp.DataType.Type.DATE for x in (node.this, node.expression)):
        _become(node, f"DATEDIFF({_spark(node.this)}, {_spark(node.expression)})")


def _double_mean(node: exp.Avg) -> None:
    if not isinstance(node.this, exp.Distinct):
        node.set("this", _cast(node.this, "DOUBLE"))


def _epoch_seconds(node: exp.Expression) -> None:
    if isinstance(node, exp.Extract) and node.name.upper() != "EPOCH":
        return
    x = node.expression if isinstance(node, exp.Extract) else node.this
    while isinstance(x, exp.Paren):
        x = x.this
    between = isinstance(x, exp.Sub) and not isinstance(x.expression, exp.Interval)
    micros = " - ".join(f"UNIX_MICROS({_spark(t)})" for t in ((x.this, x.expression) if between else (x,)))
    _become(node, f"(({micros}) / 1e6D)")


def _spark_function(node: exp.Anonymous) -> None:
    """DuckDB's functions that sqlglot passes on by name, by the name that Spark has."""
    known = {"EPOCH_US": "UNIX_MICROS", "EPOCH_MS": "UNIX_MILLIS"}
    if node.name.upper() in known:
        node.set("this", known[node.name.upper()])


def _wide_integer(node: exp.DataType) -> None:
    if node.this == exp.DataType.Type.INT128:
        node.replace(exp.DataType.build("DECIMAL(38, 0)"))


_Mend = tuple[type[exp.Expression], Callable[[Any], None]]
_EVERYWHERE: list[_Mend] = [(exp.Div, _divide), (exp.Mod, _guard_zero), (exp.IntDiv, _guard_zero)]
# Those that leave the tree's nodes in place come first; the others put Spark's own text there.
_SPARK: list[_Mend] = [
    (exp.DataType, _wide_integer), (exp.Avg, _double_mean), (exp.Anonymous, _spark_function),
    (exp.Sub, _days_between), (exp.DateDiff, _boundaries), (exp.TimeToUnix, _epoch_seconds),
    (exp.Extract, _epoch_seconds), (exp.Cast, _whole_cast),
]  # fmt: skip


def _become(node: exp.Expression, spark: str) -> None:
    node.replace(sqlglot.parse_one(spark, read="spark"))


def _spark(node: exp.Expression) -> str:
    return str(node.sql(dialect="spark", unsupported_level=sqlglot.ErrorLevel.RAISE))


def _unit(node: exp.DateDiff) -> str:
    unit = node.args.get("unit")
    return unit.name.upper() if unit is not None else "DAY"


def _cast(node: exp.Expression, kind: str) -> exp.Cast:
    return exp.Cast(this=node.copy(), to=exp.DataType.build(kind, dialect="duckdb"))


def _nullif_zero(node: exp.Expression) -> exp.Nullif:
    return exp.Nullif(this=node.copy(), expression=exp.Literal.number(0))


def _place(view: BatchView) -> str:
    return f"Batch view '{view.name}', sql"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
