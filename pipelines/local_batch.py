"""The local engine of batches: BatchViews in DuckDB, windowed snapshots in numpy, both over the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwater.columns import Column
from headwater.errors import HeadwaterError, MissingExtra
from headwater.events.batch import Events
from headwater.events.select import select, source_columns
from headwater.history.local import Questions, point_in_time
from headwater.plans.plan import BatchView, Plan, StreamView
from pipelines.batch_sql import render, tables_read
from pipelines.snapshots import as_declared, in_key_order

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.lake import Lake


class LocalEngine:
    """Computes in this process. Implements `materialize.BatchEngine`."""

    name = "local"

    def __init__(self, lake: Lake, plan: Plan) -> None:
        self._lake, self._plan = lake, plan

    def batch(self, view: BatchView, as_of: int) -> pa.Table:
        """The view's query over the lake's tables.

        Raises:
            HeadwaterError: the query fails, or the lake is damaged.
        """
        try:
            import duckdb
        except ModuleNotFoundError as error:
            raise MissingExtra("duckdb", "lake", "Materializing a BatchView on the local engine") from error

        wanted = tables_read(view)
        sources = tuple(s for s in self._plan.sources if s.name.lower() in wanted)
        with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            self._lake.register_duckdb(connection, msgspec.structs.replace(self._plan, sources=sources, views=()))
            try:
                result = connection.sql(render(view, as_of, "duckdb")).to_arrow_table()
            except duckdb.Error as error:
                raise HeadwaterError(f"Batch view '{view.name}', sql, on the local engine: {error}") from error
        return as_declared(view, result)

    def windows(self, view: StreamView, as_of: int) -> pa.Table:
        """The windowed features at `as_of` of every key that has an event before it.

        Raises:
            ReadError: an integer sum needs more than 64 bits.
        """
        source = self._plan.source(view.source)
        names = source_columns(view) | {source.event_time}
        table = self._lake.read_events(source, columns=[f.name for f in source.fields if f.name in names])
        events = Events.from_arrow(source, table, sorted(names))
        keys = _keys_before(view, events, as_of)
        at = np.full(len(keys[0]), as_of, np.int64)
        values = point_in_time(view, events, Questions(keys, at))
        return in_key_order(view, [*keys, *(values[f.name] for f in view.features)])

    def close(self) -> None:
        """Nothing is open between two views."""


def _keys_before(view: StreamView, events: Events, as_of: int) -> list[Column]:
    """The distinct keys of the events that count in the view and lie before `as_of`."""
    import pyarrow as pa

    selected = select(view, events)
    chosen = selected.take(np.flatnonzero(selected.time < as_of))
    table = pa.table({k.name: c.to_arrow() for k, c in zip(view.keys, chosen.keys, strict=True)})
    distinct = table.group_by(table.column_names).aggregate([])
    return [Column.from_arrow(k.dtype, distinct[k.name]) for k in view.keys]
