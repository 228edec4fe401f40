"""Snapshots of BatchViews, and the quarantine of batches that failed.

Each row of `views/VIEW` says from when it holds (`event_timestamp`, the `as_of` of its run), when it was
computed (`_created`) and by which definition (`_definition`, its state hash, which only the check reads). A
run for a time that is already there replaces that snapshot.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import write_deltalake

from headwater.dtypes import arrow_type
from headwater.lake.records import RETRIES, append_rows
from headwater.lake.tables import MICROS, files_of, read_files
from headwater.plans.plan import BatchView

if TYPE_CHECKING:
    from headwater.lake.lake import Lake


def view_schema(view: BatchView) -> pa.Schema:
    """Join keys, features, then `event_timestamp` and `_created`."""
    columns = [pa.field(f.name, arrow_type(f.dtype)) for f in (*view.keys, *view.features)]
    return pa.schema([*columns, pa.field("event_timestamp", MICROS), pa.field("_created", MICROS)])


DEFINITION = pa.field("_definition", pa.string())


class ViewTables:
    """The tables `views/…` and `quarantine/…` of a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def append_snapshot(self, view: BatchView, table: pa.Table, as_of: int) -> None:
        """Write a snapshot; `table` has the view's keys and features (other columns are left out)."""
        stamped = _stamped(view, table, as_of)
        path = self._lake.views_table(view.name)
        handle = path.open() or path.create(stamped.schema)
        moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=as_of)).isoformat()
        write_deltalake(
            handle, stamped, mode="overwrite", predicate=f"event_timestamp = '{moment}'", schema_mode="merge",
            commit_properties=RETRIES,
        )  # fmt: skip

    def read(self, view: BatchView) -> pa.Table:
        """All snapshots, in no order; empty where there is none."""
        path, schema = self._lake.views_table(view.name), view_schema(view)
        handle = path.open()
        files = [] if handle is None else files_of(handle)
        return read_files(path, files, schema, schema.names)

    def read_definitions(self, view: BatchView) -> pa.Table:
        """As `read`, with `_definition` (null where an earlier Headwater wrote)."""
        path, schema = self._lake.views_table(view.name), view_schema(view).append(DEFINITION)
        handle = path.open()
        return read_files(path, [] if handle is None else files_of(handle), schema, schema.names)

    def append_quarantine(self, view: str, table: pa.Table) -> None:
        """Keep rows of a batch that failed, as they are."""
        if table.num_rows:
            append_rows(self._lake.table(f"quarantine/{view}"), table)


def _stamped(view: BatchView, table: pa.Table, as_of: int) -> pa.Table:
    times = {"event_timestamp": as_of, "_created": time.time_ns() // 1000}
    columns = {name: pa.array([micros] * table.num_rows, pa.int64()).cast(MICROS) for name, micros in times.items()}
    arrays = [columns[f.name] if f.name in columns else table[f.name].cast(f.type) for f in view_schema(view)]
    definition = pa.array([view.state_hash] * table.num_rows, DEFINITION.type)
    return pa.Table.from_arrays([*arrays, definition], schema=view_schema(view).append(DEFINITION))
