"""The newest n values, newest first, each with its place (event time, partition, offset).

Apart from `latest.py` because one state a row serves every window: a window ends behind the row's newest event, so
what it sees is the beginning of the newest n of all. States are therefore kept once a row, without tiles, and cut
to a window when they are read (`within`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Ints, Runs, States, Timed, as_bytes, from_bytes, objects_of
from headwater.aggregations.numbers import from_ordered, to_ordered
from headwater.aggregations.recorded import Recorded, packed_states
from headwater.aggregations.records import Records, ranks, unpack
from headwater.columns import Column
from headwater.dtypes import list_of

_WIDTH = 4


@dataclass(frozen=True)
class LastN(Recorded, Timed):
    """Records newest first; `most` is n.

    A record is event time, partition, offset, and the value as an integer that sorts alike; for strings and bytes
    the value's length, and the value behind the records.
    """

    def reduce(self, runs: Runs) -> States:
        """The newest n values of each run."""
        column = runs.column(self.column)
        position, run = runs.counted(self.where, column)
        counts = np.bincount(run, minlength=len(runs.starts))
        backwards = (2 * np.cumsum(counts) - counts - 1)[run] - np.arange(len(run))
        newest = ranks(run) < self.most
        run, at = run[newest], runs.order[position[backwards[newest]]]
        events, words = runs.selected, np.empty((len(at), _WIDTH), np.int64)
        words[:, 0], words[:, 1], words[:, 2] = events.time[at], events.partition[at], events.offset[at]
        values = column.values[at]
        if self.fixed:
            words[:, 3] = to_ordered(values, self.dtype)
            return packed_states(Records(run, words), len(runs.starts))
        items = [as_bytes(v) for v in values.tolist()]
        words[:, 3] = np.fromiter(map(len, items), np.int64, len(items))
        return packed_states(Records(run, words, objects_of(items)), len(runs.starts))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The newest n of each run."""
        records = self._records(states)
        run = np.searchsorted(starts, records.row, "right") - 1
        return packed_states(self._newest(Records(run, records.words, records.values)), len(starts))

    def merge(self, old: States, new: States, since: Ints | None = None) -> States:
        """The newest n of both; without those before `since` (int64 microseconds a state), where given."""
        records = Records.joined([self._records(new), self._records(old)])
        if since is not None:
            records = records.take(records.words[:, 0] >= since[records.row])
        return packed_states(self._newest(records), len(new.words))

    def within(self, states: States, since: Ints) -> States:
        """What a window that begins at `since` sees."""
        records = self._records(states)
        return packed_states(records.take(records.words[:, 0] >= since[records.row]), len(states.words))

    def state_of(self, lists: Sequence[Sequence[tuple[int, int, int, Any]]]) -> States:
        """States of lists of (event time, partition, offset, value), newest first: what a SQL engine returns."""
        flat = [item for items in lists for item in items]
        row = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
        words = np.array([(*item[:3], 0) for item in flat], np.int64).reshape(-1, _WIDTH)
        column = Column.of(self.dtype, [item[3] for item in flat])
        if self.fixed:
            words[:, 3] = to_ordered(column.values, self.dtype)
            return packed_states(Records(row, words), len(lists))
        items = [as_bytes(v) for v in column.values.tolist()]
        words[:, 3] = [len(v) for v in items]
        return packed_states(Records(row, words, objects_of(items)), len(lists))

    def values(self, states: States) -> Column:
        """The lists of values that states stand for."""
        records = self._records(states)
        if records.values is None:
            flat = from_ordered(np.ascontiguousarray(records.words[:, 3]), self.dtype).tolist()
        else:
            flat = [from_bytes(v, self.dtype) for v in records.values.tolist()]
        ends = np.cumsum(np.bincount(records.row, minlength=len(states.words))).tolist()
        lists = [flat[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return Column.of(list_of(self.dtype), lists)

    def _records(self, states: States) -> Records:
        assert states.objects is not None
        return unpack(states.objects, _WIDTH, valued=not self.fixed)

    def _newest(self, records: Records) -> Records:
        """The newest n of each state."""
        records = _newest_first(records)
        return records.take(ranks(records.row) < self.most)


def _newest_first(records: Records) -> Records:
    """Records sorted by falling places. Few states are not sorted already: newer events stand before older ones."""
    a, b = records.words[:-1], records.words[1:]
    falls: NDArray[np.bool_] = records.row[1:] != records.row[:-1]
    same = np.ones(len(falls), np.bool_)
    for i in range(3):
        falls = falls | (same & (a[:, i] > b[:, i]))
        same &= a[:, i] == b[:, i]
    if falls.all():
        return records
    unsorted = np.zeros(int(records.row[-1]) + 1, np.bool_)
    unsorted[records.row[1:][~falls]] = True
    spots = np.flatnonzero(unsorted[records.row])
    t, p, o = (~records.words[spots, i] for i in range(3))
    order = np.arange(len(records))
    order[spots] = spots[np.lexsort((o, p, t, records.row[spots]))]
    return records.take(order)
