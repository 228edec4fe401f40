"""Small tables that the lake keeps for people: lost offsets, and results of the consistency check.

Apart from the event tables because nothing is computed from them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from headwater.errors import LakeDamaged
from headwater.lake.tables import MICROS, TablePath, first_line, read_table, writing
from headwater.receipts.results import ViewCheck

_GAPS = pa.schema([
    ("partition", pa.int32()), ("start", pa.int64()), ("end", pa.int64()), ("found_at", MICROS),
    ("accepted", pa.bool_()),
])  # fmt: skip
_CHECKS = pa.schema([
    ("view", pa.string()), ("checked_at", MICROS), ("drawn", pa.int64()), ("drawn_equal", pa.int64()),
    ("compared", pa.int64()), ("compared_equal", pa.int64()), ("result", pa.string()),
])  # fmt: skip
RETRIES = CommitProperties(max_commit_retries=100)
FILES = 100
"""Files that the table of checks may have before they are joined."""


@dataclass(frozen=True)
class Gap:
    """Offsets start <= offset < end of a partition that were gone from the topic before they were kept.

    `found_at`: microseconds. `accepted`: a person knows of it, so the check does not name it any more.
    """

    partition: int
    start: int
    end: int
    found_at: int
    accepted: bool = False


class GapRecords:
    """The table `gaps/TOPIC`."""

    def __init__(self, table: TablePath) -> None:
        self._table = table

    def append(self, gap: Gap) -> None:
        """Keep one gap."""
        row = [{"partition": gap.partition, "start": gap.start, "end": gap.end, "found_at": gap.found_at,
                "accepted": gap.accepted}]  # fmt: skip
        append_rows(self._table, pa.Table.from_pylist(row, _GAPS))

    def read(self) -> list[Gap]:
        """All gaps, each once, by partition and start."""
        table = read_table(self._table)
        if table is None:
            return []
        table = table.set_column(table.column_names.index("found_at"), "found_at", table["found_at"].cast(pa.int64()))
        gaps: dict[tuple[int, int, int], Gap] = {}
        for found in (Gap(**g) for g in table.to_pylist()):
            place = (found.partition, found.start, found.end)
            if place not in gaps or found.accepted:
                gaps[place] = found
        return [gaps[k] for k in sorted(gaps)]

    def accept(self) -> None:
        """Write down that a person knows of all gaps."""
        for gap in self.read():
            if not gap.accepted:
                self.append(replace(gap, accepted=True))


class CheckRecords:
    """The table `checks`."""

    def __init__(self, table: TablePath) -> None:
        self._table = table

    def append(self, results: Sequence[ViewCheck]) -> None:
        """Keep the results of one run."""
        if not results:
            return
        columns: dict[str, Any] = {
            name: [getattr(r, name) for r in results] for name in _CHECKS.names if name != "result"
        }
        columns["result"] = [msgspec.json.encode(r).decode() for r in results]
        arrays = [
            pa.array(columns[f.name], pa.int64()).cast(MICROS)
            if f.type == MICROS
            else pa.array(columns[f.name], f.type)
            for f in _CHECKS
        ]
        append_rows(self._table, pa.Table.from_arrays(arrays, schema=_CHECKS))
        # A check a minute makes half a million files a year.
        if (handle := self._table.open()) is not None and len(handle.file_uris()) > FILES:
            with contextlib.suppress(CommitFailedError):
                handle.optimize.compact()

    def history(self, view: str | None) -> list[ViewCheck]:
        """Newest first."""
        where = None if view is None else pc.field("view") == view
        table = read_table(self._table, ["result"], where)
        return [] if table is None else sorted(_results(table), key=lambda r: (-r.checked_at, r.view))

    def latest(self) -> dict[str, ViewCheck]:
        """View -> its newest result; of all others only the time is read."""
        times = read_table(self._table, ["view", "checked_at"])
        if times is None or not times.num_rows:
            return {}
        newest = times.group_by("view").aggregate([("checked_at", "max")])
        pairs = zip(newest["view"].to_pylist(), newest["checked_at_max"], strict=True)
        where = reduce(or_, [(pc.field("view") == v) & (pc.field("checked_at") == at) for v, at in pairs])
        table = read_table(self._table, ["result"], where)
        return {} if table is None else {r.view: r for r in _results(table)}


def _results(table: pa.Table) -> list[ViewCheck]:
    return [_check.decode(text) for text in table["result"].to_pylist()]


_check = msgspec.json.Decoder(ViewCheck)


def append_rows(table: TablePath, rows: pa.Table) -> None:
    """Append to a table, creating it where there is none; new columns are added, old rows have null in them.

    Raises:
        LakeDamaged: the table's log cannot be read, or not be gone on with.
        LakeUnreachable: the disk or the object store failed.
    """
    handle = table.open() or table.create(rows.schema)
    try:
        with writing(table):
            write_deltalake(handle, rows, mode="append", schema_mode="merge", commit_properties=RETRIES)
    except DeltaError as error:
        raise LakeDamaged(
            f"Table {table.name!r} of the lake ({table.uri}) takes no rows: {first_line(error)}"
        ) from error
