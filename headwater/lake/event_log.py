"""One topic's table of events: a snapshot to read, and a writer that never writes a record twice.

The next offset of each partition travels in the same commits as the rows, as Delta's application
transactions: id ``headwater:TOPIC_ID:PARTITION``, version the next offset. ``headwater:TOPIC_ID:partitions``
counts the partitions that have one. The topic's id itself is a property of the table, so a recreated topic
is noticed. A snapshot takes rows and positions from one handle, so they always belong together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_, or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from headwater.errors import HeadwaterError, TopicChanged
from headwater.lake.event_rows import META, PLACE, REJECTION, event_schema
from headwater.lake.tables import TablePath, files_of, missing_files, read_files, writing
from headwater.plans.plan import Source

TOPIC_ID = "headwater.topicId"
COMMIT_RETRIES = 200
"""Sinks of one group commit to the same table, so losing a race to an innocent neighbour is common."""


class CommitRefused(HeadwaterError):
    """Another sink wrote the same offsets first, or the table changed: open again, filter, seek."""


class EventSnapshot:
    """One version of a topic's table: rows and positions that belong together."""

    def __init__(self, table: TablePath, handle: DeltaTable) -> None:
        self.table, self._handle = table, handle
        self.files = files_of(handle)

    @property
    def version(self) -> int:
        """Delta's version of the table."""
        return int(self._handle.version())

    @property
    def topic_id(self) -> str | None:
        """The id of the topic that the table was filled from."""
        return topic_id_of(self._handle)

    def positions(self) -> dict[int, int]:
        """Partition -> the next offset that the table does not hold yet."""
        return positions_of(self._handle)

    def missing(self) -> list[str]:
        """Files of this version that are gone."""
        return missing_files(self.files)

    def read(
        self,
        source: Source,
        *,
        up_to: Mapping[int, int] | None = None,
        columns: Sequence[str] | None = None,
        where_keys: Mapping[str, Sequence[Any]] | None = None,
        files: Sequence[str] | None = None,
    ) -> pa.Table:
        """Admitted events: the source's columns (or those in `columns`) and `_partition`, `_offset`,
        `_broker_time`, `_arrived_at`, in no order.

        `up_to`: partition -> next offset; records at or past it, and other partitions, are left out.
        `where_keys`: column -> the values wanted. `files`: read only these of the snapshot's files.

        Raises:
            LakeDamaged: a file is gone or cannot be read.
        """
        wanted = [f.name for f in source.fields if columns is None or f.name in columns]
        conditions = [pc.field("_kind").is_null()]
        if up_to is not None:
            conditions.append(_before(up_to))
        for name, values in (where_keys or {}).items():
            kind = event_schema(source).field(name).type
            conditions.append(pc.field(name).isin(pa.array(values, kind)))
        return self._read(source, [*wanted, *(f.name for f in PLACE)], conditions, files)

    def read_rejected(self, source: Source) -> pa.Table:
        """Rejected records: `_partition`, `_offset`, `_broker_time`, `_arrived_at`, `_kind`, `_reason`, `_raw`."""
        return self._read(source, [f.name for f in (*PLACE, *REJECTION)], [pc.field("_kind").is_valid()])

    def read_places(self, files: Sequence[str] | None = None) -> pa.Table:
        """`_partition` and `_offset` of every record, admitted or not; of these files only, where they are given."""
        chosen = self.files if files is None else files
        return read_files(self.table, chosen, pa.schema(META), ["_partition", "_offset"])

    def _read(
        self, source: Source, columns: list[str], conditions: list[pc.Expression], files: Sequence[str] | None = None
    ) -> pa.Table:
        chosen = self.files if files is None else files
        return read_files(self.table, chosen, event_schema(source), columns, reduce(and_, conditions))


class EventWriter:
    """Writes batches through one handle (stream.md, 7).

    1. `positions` are those of the handle. A batch must start there.
    2. `append` writes through the same handle, with the new positions in the same commit. Delta refuses it
       when somebody wrote these positions since the handle was opened.
    3. After `CommitRefused` the handle is worth nothing: make a new writer, filter the batch, seek.
    """

    def __init__(self, table: TablePath, source: Source, topic_id: str) -> None:
        """Open the table, creating it where there is none.

        Raises:
            TopicChanged: the table was filled from a topic of another id.
        """
        self._table, self._source, self.topic_id = table, source, topic_id
        self._handle = table.open() or self._created()
        known = topic_id_of(self._handle)
        if known != topic_id:
            raise TopicChanged(
                f"Topic {source.topic!r} has the id {topic_id}, but the lake's table {table.name!r} was filled "
                f"from the topic of id {known}: it was deleted and created again. Their offsets have nothing in "
                f"common. Move the table {table.uri} away to begin a new one, or name another topic in the source."
            )

    def _created(self) -> DeltaTable:
        try:
            return self._table.create(event_schema(self._source), {TOPIC_ID: self.topic_id})
        except DeltaError:
            # Another sink has created it since.
            handle = self._table.open()
            if handle is None:
                raise
            return handle

    def positions(self) -> dict[int, int]:
        """1. Partition -> next offset, as this writer's handle knows them."""
        return positions_of(self._handle)

    def append(self, rows: pa.Table, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """2. Commit the rows, and `ends` as the partitions' next offsets; `starts` are those it begins at.

        A partition without a position may start anywhere.

        Raises:
            CommitRefused: `starts` are not the handle's positions, or another sink was faster.
            LakeUnreachable: the disk or the object store failed; whether the commit holds, only a new writer knows.
        """
        known = self.positions()
        for partition, start in starts.items():
            if known.get(partition, start) != start:
                raise CommitRefused(
                    f"Partition {partition} of {self._source.topic!r}: the batch begins at {start}, the lake is at "
                    f"{known[partition]}."
                )
        transactions = [Transaction(_app(self.topic_id, p), end) for p, end in ends.items()]
        count = max([*ends, *known]) + 1
        if self._handle.transaction_version(_app(self.topic_id, "partitions")) != count:
            transactions.append(Transaction(_app(self.topic_id, "partitions"), count))
        properties = CommitProperties(app_transactions=transactions, max_commit_retries=COMMIT_RETRIES)
        try:
            with writing(self._table):
                write_deltalake(self._handle, rows, mode="append", schema_mode="merge", commit_properties=properties)
        except CommitFailedError as error:
            raise CommitRefused(f"Table {self._table.name!r} refused a commit: {error}") from error

    def compact(self, most: int) -> None:
        """Join small files where the table has more than `most`; readers of older versions keep theirs.

        Raises:
            CommitRefused: another sink compacted at the same time; make a new writer.
            LakeUnreachable: the disk or the object store failed.
        """
        if len(self._handle.file_uris()) <= most:
            return
        try:
            with writing(self._table):
                self._handle.optimize.compact()
        except CommitFailedError as error:
            raise CommitRefused(f"Table {self._table.name!r} refused a compaction: {error}") from error


def topic_id_of(handle: DeltaTable) -> str | None:
    """The topic's id that the table records."""
    value = handle.metadata().configuration.get(TOPIC_ID)
    return None if value is None else str(value)


def positions_of(handle: DeltaTable) -> dict[int, int]:
    """Partition -> next offset, of the handle's version."""
    topic_id = topic_id_of(handle)
    if topic_id is None:
        return {}
    count = handle.transaction_version(_app(topic_id, "partitions")) or 0
    versions = {p: handle.transaction_version(_app(topic_id, p)) for p in range(count)}
    return {p: version for p, version in versions.items() if version is not None}


def _app(topic_id: str, partition: int | str) -> str:
    return f"headwater:{topic_id}:{partition}"


def _before(up_to: Mapping[int, int]) -> pc.Expression:
    ranges = [(pc.field("_partition") == p) & (pc.field("_offset") < end) for p, end in up_to.items()]
    return reduce(or_, ranges) if ranges else pc.scalar(False)
