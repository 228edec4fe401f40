"""What a sink has gathered of one topic and not yet committed: records, and from where to where they reach.

Apart from the sink because it is plain data: no server is needed to see that starts, ends and rows agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import and_

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.events.admission import Admission
from headwater.events.payloads import Payloads
from headwater.events.schemas import Schemas
from headwater.lake.event_rows import event_rows, event_schema
from headwater.plans.plan import Source
from pipelines.consumers import TopicBatch


class SinkBuffer:
    """Records of one topic in the order they came.

    `starts` and `ends`: partition -> where what is gathered begins, and the next offset behind it.
    `since`: when the oldest of it came (the caller's clock), None where nothing is gathered.
    """

    def __init__(self, source: Source, schemas: Schemas | None = None) -> None:
        self.source = source
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.since: float | None = None
        self._admission = Admission(source, schemas)
        self._batches: list[TopicBatch] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def moved(self) -> bool:
        """Whether a position is ahead of the lake's, with records or without."""
        return self.starts != self.ends

    def begin(self, partition: int, offset: int) -> None:
        """A partition is read from here."""
        self.starts[partition] = self.ends[partition] = offset

    def forget(self) -> None:
        """Drop everything; partitions have to begin again."""
        self.starts.clear()
        self.ends.clear()
        self._drop()

    def add(self, batch: TopicBatch, now: float) -> None:
        """Gather records that follow those before."""
        self._batches.append(batch)
        self._length += len(batch.values)
        self.since = now if self.since is None else self.since
        self.ends.update(batch.nexts)

    def advance(self, partition: int, offset: int, now: float) -> None:
        """The consumer stands at `offset`, though no record led there (the ends of transactions)."""
        if partition in self.ends and offset > self.ends[partition]:
            self.ends[partition] = offset
            self.since = now if self.since is None else self.since

    def clear(self) -> None:
        """What was gathered is in the lake; go on behind it."""
        self.starts = dict(self.ends)
        self._drop()

    def rows(self, arrived_at: int) -> pa.Table:
        """All gathered records as rows of the lake, admitted or not; `arrived_at` in microseconds."""
        if not self._batches:
            return self.no_rows()
        partition, offset, broker_time, kinds = (
            np.concatenate([getattr(b, name) for b in self._batches])
            for name in ("partition", "offset", "broker_time", "timestamp_type")
        )
        values = Payloads.concat(batch.values for batch in self._batches)
        admitted = self._admission.admit(values, partition, offset, broker_time)
        return event_rows(self.source, admitted, broker_time, kinds, arrived_at)

    def no_rows(self) -> pa.Table:
        """An empty table of the right columns."""
        return event_schema(self.source).empty_table()

    def rows_from(self, rows: pa.Table, starts: Mapping[int, int]) -> pa.Table:
        """Those of the rows that lie at or past `starts`."""
        late = [(pc.field("_partition") != p) | (pc.field("_offset") >= start) for p, start in starts.items()]
        return rows.filter(reduce(and_, late)) if late else rows

    def _drop(self) -> None:
        self._batches, self._length, self.since = [], 0, None
