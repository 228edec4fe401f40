"""A batch of admitted events as columns: what every path (stream, backfill, history, check) computes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.plans.plan import Source

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Events:
    """Admitted events of one source, in any order.

    Attributes:
        columns: the source's columns by name, all of the same length.
        partition, offset: int64 arrays; together they name an event.
        time: event time, int64 microseconds since the epoch (never null).
    """

    source: str
    columns: dict[str, Column]
    partition: NDArray[np.int64]
    offset: NDArray[np.int64]
    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: NDArray[Any]) -> Events:
        """The events at `index` (integers), or those where it is True (booleans)."""
        columns = {name: column.take(index) for name, column in self.columns.items()}
        return Events(self.source, columns, self.partition[index], self.offset[index], self.time[index])

    @classmethod
    def concat(cls, source: Source, batches: Sequence[Events]) -> Events:
        """All events of several batches, in order."""
        if len(batches) == 1:
            return batches[0]
        columns = {
            f.name: concat_columns([b.columns[f.name] for b in batches]) if batches else Column.nulls(f.dtype, 0)
            for f in source.fields
        }
        parts = [np.concatenate([getattr(b, a) for b in batches] or [np.empty(0, np.int64)]) for a in _PLACES]
        return cls(source.name, columns, parts[0], parts[1], parts[2])

    @classmethod
    def from_arrow(cls, source: Source, table: pa.Table, names: Sequence[str] | None = None) -> Events:
        """Events of a lake table: the source's columns (or those in `names`), `_partition` and `_offset`."""
        wanted = [f for f in source.fields if names is None or f.name in names or f.name == source.event_time]
        columns = {f.name: Column.from_arrow(f.dtype, table[f.name]) for f in wanted}
        place = [Column.from_arrow("int64", table[name]).values for name in ("_partition", "_offset")]
        return cls(source.name, columns, place[0], place[1], columns[source.event_time].values)


_PLACES = ("partition", "offset", "time")


def concat_columns(columns: Sequence[Column]) -> Column:
    """Columns of one type, one behind the other."""
    values = np.concatenate([c.values for c in columns])
    if all(c.valid is None for c in columns):
        return Column(columns[0].dtype, values)
    return Column(columns[0].dtype, values, np.concatenate([c.mask() for c in columns]))
