"""What a row of an event table looks like, and how admitted and rejected records become rows.

An admitted record has the source's columns, and null in `_kind`, `_reason` and `_raw`. A rejected one has
null in the source's columns, its kind and reason, and its bytes as they came. Both say where they lay in
the topic, the broker's time and its type, and when they arrived in the lake.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.dtypes import arrow_type
from headwater.events.admission import Admitted
from headwater.lake.tables import MICROS
from headwater.plans.plan import Source

PLACE = (
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_broker_time", MICROS),
    pa.field("_arrived_at", MICROS),
)
"""What `read_events` gives beside the source's columns."""

REJECTION = (pa.field("_kind", pa.string()), pa.field("_reason", pa.string()), pa.field("_raw", pa.binary()))

META = (*PLACE, pa.field("_timestamp_type", pa.int8()), *REJECTION)
"""`_timestamp_type` is Kafka's: 1 the producer's time, 2 the broker's (LogAppendTime)."""


def event_schema(source: Source) -> pa.Schema:
    """The schema of the source's event table: its fields, then ours."""
    return pa.schema([*(pa.field(f.name, arrow_type(f.dtype)) for f in source.fields), *META])


def event_rows(
    source: Source,
    admitted: Admitted,
    broker_time: NDArray[np.int64],
    timestamp_type: NDArray[np.int8],
    arrived_at: int,
) -> pa.Table:
    """All records of a batch as rows. The arrays speak of the whole batch; times are microseconds."""
    schema = event_schema(source)
    columns = {name: column.to_arrow() for name, column in admitted.events.columns.items()}
    columns["_partition"] = pa.array(admitted.events.partition, pa.int32())
    columns["_offset"] = pa.array(admitted.events.offset, pa.int64())
    taken = _rows(schema, columns, admitted.index, broker_time, timestamp_type, arrived_at)
    if not admitted.rejected:
        return taken
    rejected = {
        "_partition": pa.array([r.partition for r in admitted.rejected], pa.int32()),
        "_offset": pa.array([r.offset for r in admitted.rejected], pa.int64()),
        "_kind": pa.array([r.kind for r in admitted.rejected], pa.string()),
        "_reason": pa.array([r.reason for r in admitted.rejected], pa.string()),
        "_raw": pa.array([r.raw for r in admitted.rejected], pa.binary()),
    }
    index = np.array([r.index for r in admitted.rejected], np.int64)
    refused = _rows(schema, rejected, index, broker_time, timestamp_type, arrived_at)
    return pa.concat_tables([taken, refused])


def _rows(
    schema: pa.Schema,
    columns: dict[str, pa.Array],
    index: NDArray[np.int64],
    broker_time: NDArray[np.int64],
    timestamp_type: NDArray[np.int8],
    arrived_at: int,
) -> pa.Table:
    length = len(index)
    columns["_broker_time"] = pa.array(broker_time[index], pa.int64()).cast(MICROS)
    columns["_arrived_at"] = pa.array(np.full(length, arrived_at, np.int64), pa.int64()).cast(MICROS)
    columns["_timestamp_type"] = pa.array(timestamp_type[index], pa.int8())
    arrays = [columns[f.name] if f.name in columns else pa.nulls(length, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
