"""Partial rows: what a part of a micro-batch makes of a view's rows, computed wherever the part was read.

A partial row is a row in every respect (same tables, laws and codec), but of some events of one source partition
alone. Rows merge, in any order (`RowTable.absorb`), so whoever owns the positions brings parts and rows together.
A file of its own because executors run it: it knows Kafka's records and no Spark.

A part covers a range of offsets; which of its events a row already has is told by the row's applied offset, as for
single events. Where that offset lies inside of a partial row (a batch of another cut broke off in the middle), the
part has to be made again, with the events behind it alone: `Work.after`.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.events.admission import DEAD_LETTER, Admission, Rejected
from headwater.events.batch import Events
from headwater.events.schemas import Schemas
from headwater.events.select import select
from headwater.plans.plan import Source, StreamView
from headwater.rows.counters import Counters
from headwater.rows.fold import key_items
from headwater.rows.layout import layout_of
from headwater.rows.table import RowTable
from pipelines.consumers import TopicBatch
from pipelines.dead_letters import DeadLetters

TABLE_BYTES = 256 << 20
"""Memory of one view's rows in one task; what is more goes into a further part."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ViewWork:
    """What is wanted of one view.

    Attributes:
        positions: the next offset by source partition; events before it are done.
        after: (key, partition) -> offset, for rows that have some events behind the position already.
    """

    view: StreamView
    positions: Mapping[int, int]
    after: Mapping[tuple[Any, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What is wanted of a micro-batch of one source. `kafka`: where dead letters go; None: they are sent already."""

    source: Source
    views: tuple[ViewWork, ...]
    kafka: Mapping[str, str] | None = None
    schema_registry: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartialRows:
    """Rows of one view and of one source partition. `keys`, `rows`, `first` and `last` are one a row.

    `first` and `last` are offsets: the first and the last event that is in the row.
    """

    partition: int
    keys: list[Any]
    rows: list[bytes]
    first: Ints
    last: Ints
    counters: Counters


@dataclass(frozen=True)
class Part:
    """What became of a range of one partition: from offset `first` to before `next`.

    Attributes:
        views: partial rows, one a view of the work, in its order.
        broker_time: distinct times of records (int64 microseconds), and `records` how many have each.
        rejected: how many were not admitted, by kind.
    """

    partition: int
    first: int
    next: int
    views: list[PartialRows]
    broker_time: Ints
    records: Ints
    rejected: Counter[str]


def reduce_records(work: Work, batches: Iterable[TopicBatch]) -> Iterator[Part]:
    """The parts of records, each batch of one partition and its offsets rising.

    Dead letters are acknowledged before the first part comes out.

    Raises:
        Unreachable: the broker does not take dead letters.
        RegistryUnreachable: a schema is not known yet.
    """
    admission = Admission(work.source, Schemas(work.schema_registry))
    open_parts: dict[int, _OpenPart] = {}
    parts: list[Part] = []
    for batch in batches:
        if not batch.nexts:
            continue
        admitted = admission.admit(batch.values, batch.partition, batch.offset, batch.broker_time)
        _send_dead(work, [r for r in admitted.rejected if r.kind == DEAD_LETTER])
        for partition in batch.nexts:
            part = open_parts.setdefault(partition, _OpenPart(work, partition))
            part.add(batch, admitted.events)
            part.rejected.update(r.kind for r in admitted.rejected if r.partition == partition)
            if part.full:
                parts.append(open_parts.pop(partition).closed())
    yield from parts
    yield from (part.closed() for part in open_parts.values())


def _send_dead(work: Work, dead: list[Rejected]) -> None:
    if dead and work.kafka is not None:
        letters = DeadLetters(work.kafka)
        letters.send(work.source.topic, dead)
        letters.close()


class _OpenPart:
    """A part that still grows."""

    def __init__(self, work: Work, partition: int) -> None:
        self.partition = partition
        self.views = [_OpenRows(of, partition) for of in work.views]
        self.first, self.next = 2**62, 0
        self.times: list[Ints] = []
        self.rejected: Counter[str] = Counter()

    def add(self, batch: TopicBatch, events: Events) -> None:
        """The records of this partition in a batch, and what of the batch was admitted."""
        mine = batch.partition == self.partition
        offsets = batch.offset[mine]
        self.first, self.next = min(self.first, int(offsets.min())), max(self.next, batch.nexts[self.partition])
        self.times.append(batch.broker_time[mine])
        admitted = events.partition == self.partition
        mine_admitted = events if admitted.all() else events.take(admitted)
        for rows in self.views:
            rows.add(mine_admitted)

    @property
    def full(self) -> bool:
        return any(rows.full for rows in self.views)

    def closed(self) -> Part:
        """The part as it is."""
        times, records = np.unique(np.concatenate(self.times), return_counts=True)
        return Part(
            self.partition, self.first, self.next, [v.closed() for v in self.views], times, records, self.rejected
        )


class _OpenRows:
    """The rows of one view in a part that still grows."""

    def __init__(self, work: ViewWork, partition: int) -> None:
        self.work, self.partition = work, partition
        self.layout = layout_of(work.view)
        self.table = RowTable(self.layout)
        self.counters = Counters()

    @property
    def full(self) -> bool:
        return len(self.table) * self.table.bytes_a_row > TABLE_BYTES

    def add(self, events: Events) -> None:
        """Fold in what is due of these events."""
        due = events.offset >= self.work.positions.get(self.partition, 2**62)
        selected = select(self.work.view, events if due.all() else events.take(due))
        counted = Counters.of(self.layout, selected)
        self.counters = Counters(*(a + b for a, b in zip(astuple(self.counters), astuple(counted), strict=True)))
        keys = key_items(selected.keys)
        if self.work.after:
            behind = [self.work.after.get((k, self.partition), -1) for k in keys]
            new = np.flatnonzero(selected.offset > np.array(behind, np.int64))
            keys, selected = [keys[i] for i in new.tolist()], selected.take(new)
        if keys:
            self.table.fold(self.table.numbers(keys)[0], selected)

    def closed(self) -> PartialRows:
        """The rows, encoded."""
        n = len(self.table)
        data, _ = self.table.encode(np.arange(n))
        first, last = (
            of[:n, self.partition].copy() if n else np.empty(0, np.int64)
            for of in (self.table.born, self.table.applied)
        )
        return PartialRows(self.partition, self.table.keys, [bytes(d) for d in data], first, last, self.counters)


def run_task(work: Work, batches: Iterator[Any]) -> Iterator[Any]:
    """`reduce_records` for Spark: from Arrow batches of value, partition, offset, timestamp to pickled parts."""
    import pyarrow as pa

    for part in reduce_records(work, map(_topic_batch, batches)):
        yield pa.RecordBatch.from_pydict({"part": pa.array([pickle.dumps(part)], pa.binary())})


def _topic_batch(batch: Any) -> TopicBatch:
    partition, offset, time = (
        batch.column(name).cast("int64").to_numpy(zero_copy_only=False) for name in ("partition", "offset", "timestamp")
    )
    nexts = {p: int(offset[partition == p].max()) + 1 for p in np.unique(partition).tolist()}
    return TopicBatch(batch.column("value").to_pylist(), partition, offset, time, np.empty(0, np.int8), nexts)
