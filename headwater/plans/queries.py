"""The SQL of BatchViews: its tables, its `:as_of`, and the types of its result.

DuckDB is the arbiter of types: it describes the query over empty tables of the sources'
schemas, so what it finds here is what it finds at run time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.dtypes import Dtype, list_of
from headwater.errors import DefinitionError, MissingExtra, nearest
from headwater.expressions.sql import sql_type
from headwater.plans.plan import Field, Source

AS_OF = "as_of"
"""The one parameter of a query."""

LAKE_COLUMNS = (
    Field("_partition", "int64"), Field("_offset", "int64"),
    Field("_broker_time", "timestamp"), Field("_arrived_at", "timestamp"),
)  # fmt: skip
"""What the lake's events tables have beside the source's columns."""

_DTYPES: dict[str, Dtype] = {
    "TINYINT": "int64", "SMALLINT": "int64", "INTEGER": "int64", "BIGINT": "int64", "HUGEINT": "int64",
    "UTINYINT": "int64", "USMALLINT": "int64", "UINTEGER": "int64", "UBIGINT": "int64",
    "FLOAT": "float64", "DOUBLE": "float64", "DECIMAL": "float64", "VARCHAR": "string", "BOOLEAN": "bool",
    "TIMESTAMP": "timestamp", "TIMESTAMP_S": "timestamp", "TIMESTAMP_MS": "timestamp", "DATE": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp", "BLOB": "bytes",
}  # fmt: skip


def parse_query(place: str, sql: Any) -> Any:
    """The query as sqlglot's tree, in DuckDB's dialect.

    Raises:
        DefinitionError: no SQL, not one SELECT, or a parameter other than `:as_of`.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if not isinstance(sql, str) or not sql.strip():
        raise DefinitionError(f"{place}: expected a SELECT, got {sql!r}.")
    try:
        trees = [tree for tree in sqlglot.parse(sql, dialect="duckdb") if tree is not None]
    except SqlglotError as error:
        raise DefinitionError(f"{place}: it cannot be parsed: {_one_line(error)}") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise DefinitionError(f"{place}: expected one SELECT.")
    for parameter in trees[0].find_all(exp.Placeholder, exp.Parameter):
        if parameter.name != AS_OF:
            raise DefinitionError(f"{place}: no parameter {parameter.sql()!r}. It has: ':{AS_OF}'.")
    return trees[0]


def tables_of(tree: Any) -> set[str]:
    """The names of the tables that a parsed query reads (its own WITH names are none)."""
    from sqlglot import exp

    ctes = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    return {t.name for t in tree.find_all(exp.Table) if t.name and t.name.lower() not in ctes}


def describe_query(place: str, sql: Any, sources: Sequence[Source]) -> list[Field]:
    """The columns of the query's result, by DuckDB over empty tables.

    Raises:
        DefinitionError: the query is wrong (an unknown table or column with its nearest names), or a
            column is of a type that no feature has.
    """
    tree = parse_query(place, sql)
    tables = {s.name: (*s.fields, *LAKE_COLUMNS) for s in sources}
    for table in sorted(tables_of(tree)):
        if table.lower() not in {t.lower() for t in tables}:
            raise DefinitionError(f"{place}: no table '{table}'; it sees stream sources. {nearest(table, tables)}")
    rows = _describe(place, _bound(tree), tables)
    return [_field_of(place, name, kind) for name, kind in rows]


def _bound(tree: Any) -> str:
    """The query in DuckDB's dialect with some time for `:as_of`; its type is all that matters here."""
    from sqlglot import exp

    moment = exp.cast(exp.Literal.string("1970-01-01 00:00:00+00:00"), "TIMESTAMPTZ")
    bound = tree.transform(lambda n: moment.copy() if isinstance(n, exp.Placeholder | exp.Parameter) else n)
    return str(bound.sql(dialect="duckdb"))


def _describe(place: str, sql: str, tables: Mapping[str, Sequence[Field]]) -> list[tuple[str, str]]:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingExtra("duckdb", "lake", "Compiling a BatchView") from error

    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET enable_external_access = false")
        for table, fields in tables.items():
            columns = ", ".join(f'"{f.name}" {sql_type(f.dtype, "duckdb")}' for f in fields)
            connection.execute(f'CREATE TABLE "{table}" ({columns})')
        try:
            return [(row[0], row[1]) for row in connection.execute(f"DESCRIBE {sql}").fetchall()]
        except duckdb.Error as error:
            raise DefinitionError(f"{place}: {_explained(error, tables)}") from error


def _explained(error: Exception, tables: Mapping[str, Sequence[Field]]) -> str:
    """DuckDB's message in one line, with the nearest columns where it misses one."""
    text = str(error)
    missing = re.search(r'Referenced column "([^"]+)" (?:was )?not found|does not have a column named "([^"]+)"', text)
    if missing is None:
        return _one_line(error)
    name = missing[1] or missing[2]
    return f"no column '{name}'. {nearest(name, {f.name for fields in tables.values() for f in fields})}"


def _field_of(place: str, name: str, kind: str) -> Field:
    """The column that a type of DuckDB's is; arrays of a fixed size are vectors."""
    array = re.fullmatch(r"(.+)\[(\d*)\]", kind)
    dtype = _DTYPES.get((array[1] if array else kind).split("(")[0] if not (array and array[1].endswith("]")) else "")
    if dtype is None:
        raise DefinitionError(
            f"{place}: column '{name}' is {kind}, which no feature can be. Cast it to BIGINT, DOUBLE, VARCHAR, "
            f"BOOLEAN, TIMESTAMPTZ, BLOB, or a list of one of them, such as DOUBLE[]."
        )
    if array is None:
        return Field(name, dtype)
    return Field(name, list_of(dtype), int(array[2]) if array[2] else None)


def _one_line(error: Exception) -> str:
    # sqlglot underlines the place with terminal codes; DuckDB draws an arrow below the line.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split("\n\nLINE")[0].split())
