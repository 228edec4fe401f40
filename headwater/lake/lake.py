"""The lake's layout and what may be asked of it: one small method a question.

========================  ==================================================================
``events/TOPIC``           every record of the topic, admitted or not (event_rows.py)
``gaps/TOPIC``             ranges of offsets that were gone before the sink could read them
``views/VIEW``             snapshots of a BatchView: keys, features, event_timestamp, _created
``quarantine/VIEW``        rows of batches that failed their expectations, with `_reason`
``checks``                 results of the consistency check
========================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import pyarrow as pa

from headwater.errors import MissingExtra
from headwater.lake.event_log import EventSnapshot, EventWriter
from headwater.lake.event_rows import PLACE, REJECTION, event_schema
from headwater.lake.records import CheckRecords, Gap, GapRecords
from headwater.lake.tables import TablePath
from headwater.lake.view_tables import ViewTables
from headwater.plans.plan import BatchView, Plan, Source
from headwater.receipts.results import ViewCheck


class Lake:
    """A lake at a path or an object store's URL; nothing is opened or created until it is asked for."""

    def __init__(self, location: str) -> None:
        self.location = str(location).rstrip("/")
        self.views = ViewTables(self)
        self._checks = CheckRecords(self.table("checks"))

    def table(self, name: str) -> TablePath:
        """The table of that name, such as "events/orders"."""
        return TablePath(name, f"{self.location}/{name}")

    # -- events -------------------------------------------------------------------------------------------------

    def events_table(self, topic: str) -> TablePath:
        """Where a topic's events lie."""
        return self.table(f"events/{topic}")

    def events(self, topic: str) -> EventSnapshot | None:
        """The newest version of a topic's events, None where the sink has written none yet."""
        table = self.events_table(topic)
        handle = table.open()
        return None if handle is None else EventSnapshot(table, handle)

    def writer(self, source: Source, topic_id: str) -> EventWriter:
        """A writer of the source's topic (TopicChanged where the topic was recreated)."""
        return EventWriter(self.events_table(source.topic), source, topic_id)

    def positions(self, topic: str) -> dict[int, int]:
        """Partition -> the next offset that the lake does not hold; empty where there is no table."""
        snapshot = self.events(topic)
        return {} if snapshot is None else snapshot.positions()

    @overload
    def read_events(
        self, source: Source, *, up_to: Mapping[int, int] | None = None, columns: Sequence[str] | None = None,
        where_keys: Mapping[str, Sequence[Any]] | None = None, missing_files: Literal["raise"] = "raise",
    ) -> pa.Table: ...  # fmt: skip

    @overload
    def read_events(
        self, source: Source, *, up_to: Mapping[int, int] | None = None, columns: Sequence[str] | None = None,
        where_keys: Mapping[str, Sequence[Any]] | None = None, missing_files: Literal["skip"],
    ) -> tuple[pa.Table, list[str]]: ...  # fmt: skip

    def read_events(
        self,
        source: Source,
        *,
        up_to: Mapping[int, int] | None = None,
        columns: Sequence[str] | None = None,
        where_keys: Mapping[str, Sequence[Any]] | None = None,
        missing_files: Literal["raise", "skip"] = "raise",
    ) -> pa.Table | tuple[pa.Table, list[str]]:
        """Admitted events of a source, in no order; see `EventSnapshot.read`.

        With `missing_files="skip"`, also the list of the table's files that are gone.

        Raises:
            LakeDamaged: a file is gone (unless they are skipped) or cannot be read.
        """
        snapshot = self.events(source.topic)
        if snapshot is None:
            wanted = [f.name for f in source.fields if columns is None or f.name in columns]
            table = event_schema(source).empty_table().select([*wanted, *(f.name for f in PLACE)])
            return table if missing_files == "raise" else (table, [])
        if missing_files == "raise":
            return snapshot.read(source, up_to=up_to, columns=columns, where_keys=where_keys)
        missing = snapshot.missing()
        present = [f for f in snapshot.files if f not in set(missing)]
        table = snapshot.read(source, up_to=up_to, columns=columns, where_keys=where_keys, files=present)
        return table, missing

    def read_rejected(self, source: Source) -> pa.Table:
        """Records that were not admitted: their place and times, `_kind`, `_reason` and `_raw`."""
        snapshot = self.events(source.topic)
        if snapshot is None:
            return event_schema(source).empty_table().select([f.name for f in (*PLACE, *REJECTION)])
        return snapshot.read_rejected(source)

    def duplicates(self, topic: str) -> pa.Table:
        """`_partition`, `_offset` and `count` of records that the table holds more than once."""
        snapshot = self.events(topic)
        schema = pa.schema([("_partition", pa.int32()), ("_offset", pa.int64()), ("count", pa.int64())])
        if snapshot is None:
            return schema.empty_table()
        counted = snapshot.read_places().group_by(["_partition", "_offset"]).aggregate([([], "count_all")])
        counted = counted.rename_columns(["_partition", "_offset", "count"])
        import pyarrow.compute as pc

        return counted.filter(pc.field("count") > 1).cast(schema)

    def admitted_parquet_files(self, topic: str) -> list[str]:
        """The Parquet files of a topic's newest version, for Spark: admitted rows are those where `_kind` is null.

        Raises:
            LakeDamaged: a file is gone.
        """
        from headwater.lake.tables import check_files

        snapshot = self.events(topic)
        if snapshot is None:
            return []
        check_files(snapshot.table, snapshot.files)
        return snapshot.files

    # -- gaps, views, checks ------------------------------------------------------------------------------------

    def append_gap(self, topic: str, gap: Gap) -> None:
        """Write down offsets that are lost."""
        GapRecords(self.table(f"gaps/{topic}")).append(gap)

    def gaps(self, topic: str) -> list[Gap]:
        """Offsets of a topic that are lost."""
        return GapRecords(self.table(f"gaps/{topic}")).read()

    def accept_gaps(self, topic: str) -> None:
        """A person knows of the topic's lost offsets: the check names them no more."""
        GapRecords(self.table(f"gaps/{topic}")).accept()

    def views_table(self, view: str) -> TablePath:
        """Where a BatchView's snapshots lie."""
        return self.table(f"views/{view}")

    def append_view_snapshot(self, view: BatchView, table: pa.Table, as_of: int) -> None:
        """Add a snapshot stamped `as_of` (microseconds); one of the same time is replaced."""
        self.views.append_snapshot(view, table, as_of)

    def read_view(self, view: BatchView) -> pa.Table:
        """All snapshots of a BatchView: keys, features, `event_timestamp`, `_created`."""
        return self.views.read(view)

    def read_view_definitions(self, view: BatchView) -> pa.Table:
        """As `read_view`, with `_definition`, the state hash of the definition that computed each row."""
        return self.views.read_definitions(view)

    def append_quarantine(self, view: str, table: pa.Table) -> None:
        """Keep rows of a failed batch; the table has a column `_reason`."""
        self.views.append_quarantine(view, table)

    def append_checks(self, results: Sequence[ViewCheck]) -> None:
        """Keep results of the consistency check."""
        self._checks.append(results)

    def check_history(self, view: str | None = None) -> list[ViewCheck]:
        """Results of the consistency check, newest first, of one view or all."""
        return self._checks.history(view)

    def latest_checks(self) -> dict[str, ViewCheck]:
        """View -> its newest result."""
        return self._checks.latest()

    def register_duckdb(self, connection: Any, plan: Plan) -> None:
        """Make the plan's sources (admitted rows) and BatchViews views of a DuckDB connection, by their names.

        Raises:
            LakeDamaged: a file of a table is gone.
            MissingExtra: DuckDB is not installed.
        """
        try:
            from headwater.lake.duckdb_views import register
        except ModuleNotFoundError as error:
            raise MissingExtra("duckdb", "lake", "Queries over the lake") from error
        register(self, connection, plan)
