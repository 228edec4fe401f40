"""The paths of the product, each from the bytes of a case's records to values, in this process.

`stream`: micro-batches through admission and selection into the rows of two workers, which write them
as real ones do: over the bytes that they were computed from, or again; read few at a time. `backfill`: all
rows at once, as backfill and the check make them; read many at a time. `history`: a training set over the
same records as the lake keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.dtypes import arrow_type
from headwater.errors import ReadError
from headwater.events.admission import Admission, Admitted
from headwater.events.select import Selected, select
from headwater.history.as_of import PlainRows
from headwater.history.local import Questions
from headwater.history.log import restrict
from headwater.history.selection import Wanted
from headwater.history.spine import TIME
from headwater.history.training_set import reads_of, training_set
from headwater.lake.event_rows import event_rows
from headwater.online.keys import entity_key
from headwater.plans.plan import BatchView, Plan, Source, StreamView
from headwater.rows.fold import fold, key_items
from headwater.rows.layout import RowLayout, layout_of
from headwater.rows.reader import ViewReader
from headwater.rows.table import RowTable
from headwater.testing.cases import Case, Key, Record, admit
from headwater.testing.naive_loop import PAST_64_BITS

FEW, MANY = 8, 64
"""Rows of an online read: fewer and more than where the reader (`rows/reader.py`) changes its way."""

Answer = dict[str, Any]
Question = tuple[Key, int]
"""A key, and the time it is read at (microseconds)."""
Read = Callable[[Sequence[Question], Sequence[str]], list[Answer]]
"""The answers to questions, of the features of these names."""


class Redis:
    """Rows by entity key; a row is written only over the bytes that it was computed from."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def write(self, key: bytes, expected: int, row: bytes) -> bool:
        """Write a row where the one that is there has the digest `expected` (0: there is none); else nothing."""
        if int.from_bytes(self.rows.get(key, bytes(8))[:8], "little") != expected:
            return False
        self.rows[key] = row
        return True


class Worker:
    """One worker's rows of a view, from admitted events to Redis: `pipelines/feeds.py` without its servers."""

    def __init__(self, layout: RowLayout, redis: Redis) -> None:
        self._layout, self._redis = layout, redis
        self._single = len(layout.view.keys) == 1
        self.forget()

    def forget(self) -> None:
        """Lose all rows in memory."""
        self._table = RowTable(self._layout, capacity=4)

    def apply(self, selected: Selected) -> None:
        """Merge events into their rows, and write them until no other worker was faster."""
        rows, new = self._table.numbers(key_items(selected.keys))
        self._load(new)
        touched = self._table.fold(rows, selected) if len(rows) else rows
        while len(touched):
            touched = self._write(touched)
            self._load(touched)
            mine = np.isin(rows, touched)
            self._table.fold(rows[mine], selected.take(mine))

    def _load(self, rows: NDArray[np.int64]) -> None:
        self._table.load(rows, [self._redis.rows.get(self._key(r)) for r in rows.tolist()])

    def _write(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Write rows; those that another worker changed first are given back."""
        data, digests = self._table.encode(rows)
        refused = []
        for row, value, digest in zip(rows.tolist(), data, digests, strict=True):
            if self._redis.write(self._key(row), int(self._table.digests[row]), bytes(value)):
                self._table.digests[row] = digest
            else:
                refused.append(row)
        return np.array(refused, np.int64)

    def _key(self, row: int) -> bytes:
        key = self._table.keys[row]
        return entity_key((key,) if self._single else key)


class Paths:
    """All paths of one view. Made once, and asked for case after case."""

    def __init__(self, view: StreamView, source: Source) -> None:
        self.view, self.source = view, source
        self._last: tuple[Case, Admitted] | None = None
        self._dtypes = {f.name: f.dtype for f in view.features}
        self._layout = layout_of(view)
        self._reader = ViewReader(view)
        self._admission = Admission(source)
        self._plan = Plan("fuzz", (source,), (view,))

    def stream(self, case: Case) -> dict[Key, bytes]:
        """The rows that two workers leave in Redis."""
        redis = Redis()
        workers = [Worker(self._layout, redis), Worker(self._layout, redis)]
        for worker, forgets, batch in batches(case):
            if forgets:
                workers[worker].forget()
            workers[worker].apply(select(self.view, admit(self._admission, batch).events))
        named = {entity_key(key): key for key in case.keys([k.name for k in self.view.keys])}
        return {named[key]: row for key, row in redis.rows.items()}

    def backfill(self, case: Case) -> dict[Key, bytes]:
        """The same rows, from all records at once."""
        events = self._admitted(case).events
        return {row.key: row.data for row in fold(self._layout, select(self.view, events), born=None)}

    def read_few(self, rows: dict[Key, bytes], questions: Sequence[Question]) -> list[Answer]:
        """The features of rows, as an online read of some keys gives them."""
        parts = [questions[i : i + FEW] for i in range(0, len(questions), FEW)]
        return [answer for part in parts for answer in self._careful(lambda q, n: self._online(rows, q, n), part)]

    def read_many(self, rows: dict[Key, bytes], questions: Sequence[Question]) -> list[Answer]:
        """The same, as a read of many keys gives them, which the product computes by other code."""
        times = -(-MANY // max(len(questions), 1))
        return self._careful(lambda q, n: self._online(rows, [*q] * times, n)[: len(q)], questions)

    def _online(self, rows: dict[Key, bytes], questions: Sequence[Question], names: Sequence[str]) -> list[Answer]:
        found = self._reader.read([rows.get(key) for key, _ in questions], [at for _, at in questions], names)
        return _by_row(found.values, len(questions))

    def history(self, case: Case, questions: Sequence[Question]) -> list[Answer]:
        """The features of a training set with a row a question."""
        warehouse = MemoryWarehouse(self._kept(case))

        def read(some: Sequence[Question], names: Sequence[str]) -> list[Answer]:
            reads = reads_of(self._plan, [Wanted(self.view.name, name) for name in names])
            values = training_set(self._plan, warehouse, self._spine(some), reads)
            columns = {n: Column.from_arrow(self._dtypes[n], values[to]) for n, to in reads[0].outputs.items()}
            return _by_row({name: column.to_list() for name, column in columns.items()}, len(some))

        return self._careful(read, questions)

    def _kept(self, case: Case) -> pa.Table:
        """The records as the sink keeps them, those that were not admitted left out."""
        broker_time = np.array([r.broker_time for r in case.records], np.int64)
        rows = event_rows(
            self.source, self._admitted(case), broker_time, np.full(len(broker_time), 2, np.int8), arrived_at=0
        )
        return rows.filter(rows["_kind"].is_null())

    def _admitted(self, case: Case) -> Admitted:
        """All records in one batch, for the paths that read the lake."""
        if self._last is None or self._last[0] is not case:
            self._last = case, admit(self._admission, case.records)
        return self._last[1]

    def _spine(self, questions: Sequence[Question]) -> pa.Table:
        columns = {
            key.name: pa.array([q[i] for q, _ in questions], _storage(key.dtype)).cast(arrow_type(key.dtype))
            for i, key in enumerate(self.view.keys)
        }
        times = pa.array([at for _, at in questions], pa.int64()).cast(arrow_type("timestamp"))
        return pa.table({**columns, TIME: times})

    def _careful(self, read: Read, questions: Sequence[Question]) -> list[Answer]:
        """All answers; where the read as a whole is an error, in parts, so that the others are seen too."""
        names = [f.name for f in self.view.features]
        try:
            return read(questions, names)
        except ReadError:
            columns = [_column(read, questions, name) for name in names]
            return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


class MemoryWarehouse:
    """Events in memory. Implements `headwater.history.log.Warehouse`."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def events(
        self, source: Source, views: Sequence[StreamView], names: Sequence[Sequence[str]],
        asked: Sequence[Questions], *, arrival: bool,
    ) -> pa.Table:  # fmt: skip
        """The events that the questions can see."""
        extra = ["_partition", "_offset", *(["_arrived_at"] if arrival else [])]
        return restrict(self._table.select([*(f.name for f in source.fields), *extra]), source, views, names, asked)

    def snapshots(self, view: BatchView, names: Sequence[str]) -> PlainRows:
        """There are none."""
        raise NotImplementedError(f"no snapshots of {view.name!r} here: only windowed views are fuzzed")


def batches(case: Case) -> list[tuple[int, bool, list[Record]]]:
    """The micro-batches of a case: which worker, whether it has forgotten its rows, which records."""
    log: dict[int, list[Record]] = {}
    for record in case.records:
        log.setdefault(record.partition, []).append(record)
    position = dict.fromkeys(log, 0)
    found = []
    for d in case.deliveries:
        at = position.get(d.partition, 0)
        batch = log.get(d.partition, [])[max(at - d.again, 0) : at + d.count]
        if batch:
            found.append((d.worker, d.forgets, batch))
            position[d.partition] = min(at + d.count, len(log[d.partition]))
    rest = [r for partition, at in position.items() for r in log[partition][at:]]
    return [*found, (0, False, rest)] if rest else found


def _column(read: Read, questions: Sequence[Question], name: str) -> list[Any]:
    """The answers of one feature; what is an error is one value, not that of all."""
    try:
        return [answer[name] for answer in read(questions, [name])]
    except ReadError as error:
        if len(questions) > 1:
            return [value for question in questions for value in _column(read, [question], name)]
        return [PAST_64_BITS if "64 bits" in str(error) else f"an error: {error}"]


def _by_row(columns: dict[str, list[Any]], length: int) -> list[Answer]:
    return [{name: items[i] for name, items in columns.items()} for i in range(length)]


def _storage(dtype: str) -> pa.DataType:
    return pa.int64() if dtype == "timestamp" else arrow_type(dtype)
