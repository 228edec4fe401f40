"""The lake's tables as views of a DuckDB connection, by the names that a BatchView's SQL uses.

A source is its admitted events; a BatchView is all its snapshots. Where a table does not exist yet there is
an empty view of the right types, so that a query is right or wrong for its own reasons alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from headwater.lake.event_rows import META, event_schema
from headwater.lake.tables import TablePath, check_files, dataset_of, files_of
from headwater.lake.view_tables import view_schema
from headwater.plans.plan import Plan

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

_SQL_TYPES = {
    "int64": "BIGINT", "int32": "INTEGER", "int8": "TINYINT", "double": "DOUBLE", "string": "VARCHAR",
    "bool": "BOOLEAN", "binary": "BLOB", "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}  # fmt: skip
_SQL_TYPES |= {f"list<item: {arrow}>": f"{kind}[]" for arrow, kind in _SQL_TYPES.items()}
_HIDDEN = {"_kind", "_reason", "_raw", "_timestamp_type"}


def register(lake: Lake, connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Create or replace the views (see `Lake.register_duckdb`)."""
    for source in plan.sources:
        schema = event_schema(source)
        shown = [f for f in schema if f.name not in _HIDDEN or f not in META]
        _create(connection, source.name, lake.events_table(source.topic), schema, shown, "_kind IS NULL")
    for view in plan.batch_views():
        schema = view_schema(view)
        _create(connection, view.name, lake.views_table(view.name), schema, list(schema), "true")


def _create(
    connection: Any, name: str, table: TablePath, schema: pa.Schema, shown: Sequence[pa.Field], where: str
) -> None:
    handle = table.open()
    files = [] if handle is None else files_of(handle)
    check_files(table, files)
    columns = ", ".join(f"CAST({_quoted(f.name)} AS {_SQL_TYPES[str(f.type)]}) AS {_quoted(f.name)}" for f in shown)
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {_quoted(name)} AS "
        f"SELECT {columns} FROM {_relation(connection, name, files, schema)} WHERE {where}"
    )


def _relation(connection: Any, name: str, files: Sequence[str], schema: pa.Schema) -> str:
    """What stands behind FROM: the Parquet files of local tables, an Arrow dataset of remote ones."""
    empty = ", ".join(f"CAST(NULL AS {_SQL_TYPES[str(f.type)]}) AS {_quoted(f.name)}" for f in schema)
    nothing = f"SELECT {empty} WHERE false"
    if not files:
        return f"({nothing})"
    if "://" in files[0]:
        connection.register(f"lake {name}", dataset_of(files, schema))
        return _quoted(f"lake {name}")
    listed = ", ".join("'" + f.replace("'", "''") + "'" for f in files)
    # The empty part brings the columns that no file has yet.
    return f"({nothing} UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name = true))"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
