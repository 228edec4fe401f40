"""What history reads of the lake, and how little of it: only the columns, times and keys that are asked for.

A seam: `training_set.py` needs these two reads and nothing else of a warehouse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.aggregations.numbers import INT64_MIN
from headwater.dtypes import arrow_type
from headwater.errors import UsageError
from headwater.events.select import source_columns
from headwater.history.as_of import PlainRows
from headwater.history.local import Questions
from headwater.lake import Lake
from headwater.plans.plan import BatchView, Feature, Plan, Source, StreamView


class Warehouse(Protocol):
    """Where events and snapshots are kept."""

    def events(
        self, source: Source, views: Sequence[StreamView], names: Sequence[Sequence[str]],
        asked: Sequence[Questions], *, arrival: bool,
    ) -> pa.Table:  # fmt: skip
        """At least the admitted events that `views` (their features `names`) need for the questions `asked`.

        Columns: those of the source that the views read, `_partition`, `_offset`, and with `arrival`
        `_arrived_at`. All of one version of the log.
        """

    def snapshots(self, view: BatchView, names: Sequence[str]) -> PlainRows:
        """All snapshots of a view, with the features `names`; no rows where it was never materialized."""


class LakeWarehouse:
    """The lake as history's warehouse."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def events(
        self, source: Source, views: Sequence[StreamView], names: Sequence[Sequence[str]],
        asked: Sequence[Questions], *, arrival: bool,
    ) -> pa.Table:  # fmt: skip
        """The events that the questions can see."""
        columns = {source.event_time}.union(*(source_columns(v) for v in views))
        table = self.lake.read_events(source, columns=sorted(columns))
        ordered = [f.name for f in source.fields if f.name in columns]
        extra = ["_partition", "_offset", *(["_arrived_at"] if arrival else [])]
        return restrict(table.select([*ordered, *extra]), source, views, names, asked)

    def snapshots(self, view: BatchView, names: Sequence[str]) -> PlainRows:
        """The rows of the view's table; all its features, since ties go by all values."""
        return PlainRows(view.name, self.lake.read_view(view), view.keys, view.ttl, created="_created")

    def query(self, plan: Plan, sql: str) -> pa.Table:
        """The result of a query in DuckDB's dialect; sources and BatchViews are tables by their names.

        Raises:
            UsageError: DuckDB cannot run it; says why.
        """
        table = self._query(plan, sql)
        if table is None:
            raise UsageError("The spine's SQL gives no rows: expected one SELECT.")
        return table

    def _query(self, plan: Plan, sql: str) -> pa.Table | None:
        import duckdb

        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            self.lake.register_duckdb(connection, plan)
            try:
                relation = connection.sql(sql)
                return None if relation is None else relation.to_arrow_table()
            except duckdb.Error as error:
                raise UsageError(f"The spine's SQL cannot be run: {error}") from error


def restrict(
    table: pa.Table,
    source: Source,
    views: Sequence[StreamView],
    names: Sequence[Sequence[str]],
    asked: Sequence[Questions],
) -> pa.Table:
    """The events that at least one question may see: inside the longest window, before the last read, of its keys."""
    seen = None
    for view, wanted, questions in zip(views, names, asked, strict=True):
        mask = _visible(table, source, view, [f for f in view.features if f.name in wanted], questions)
        seen = mask if seen is None else pc.or_(seen, mask)
    return table if seen is None else table.filter(seen)


def _visible(
    table: pa.Table, source: Source, view: StreamView, features: Sequence[Feature], questions: Questions
) -> pa.ChunkedArray:
    at = questions.at if questions.valid is None else questions.at[questions.valid]
    if not len(at):
        return pa.chunked_array([pa.array(np.zeros(len(table), np.bool_))])
    times = table[source.event_time]
    mask = pc.less(times, _moment(int(at.max())))
    if all(f.window is not None for f in features):
        reach = max(((f.window or 0) + (f.hop or 0) for f in features), default=0)
        mask = pc.and_(mask, pc.greater_equal(times, _moment(max(int(at.min()) - reach, INT64_MIN))))
    key = view.keys[0]
    if key.name in table.column_names:
        known = pc.unique(questions.keys[0].to_arrow()).drop_null()
        if len(known) < len(table):
            mask = pc.and_(mask, pc.is_in(table[key.name], known.cast(arrow_type(key.dtype))))
    return mask


def _moment(at: int) -> pa.Scalar:
    return pa.scalar(at, pa.int64()).cast(arrow_type("timestamp"))
