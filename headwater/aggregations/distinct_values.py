"""The distinct values of a window, exact up to a bound: which values there were, and when each was seen last.

One state a row serves every window (as last_n.py explains): a window has seen the values that were seen last inside
of it. Of more than `limit` values only the `limit` seen last are kept, for a window that holds more of them than
that says `limit` and no more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headwater.aggregations.components import Ints, Runs, States, Timed, as_bytes
from headwater.aggregations.numbers import to_ordered
from headwater.aggregations.recorded import Recorded, packed_states
from headwater.aggregations.records import Records, merged, ranks, unpack
from headwater.columns import Column, codes_of
from headwater.dtypes import FIXED


@dataclass(frozen=True)
class DistinctValues(Recorded, Timed):
    """Records by rising values; `most` is the limit.

    A record is the time at which the value was seen last, and the value as an integer that sorts alike; of strings
    and bytes the first 16 bytes of their SHA-256 as two signed integers.
    """

    @property
    def record_width(self) -> int:
        """Words a record."""
        return 2 if self.fixed else 3

    def reduce(self, runs: Runs) -> States:
        """The values of each run, each with its last time."""
        column = runs.column(self.column)
        position, run = runs.counted(self.where, column)
        at = runs.order[position]
        keys: Ints = runs.remember(("identities", self.column), lambda: identities(column))[at]
        # Events of a run rise in time and the sort is stable, so the last of equal values is the newest.
        order = np.lexsort((*keys.T[::-1], run))
        run, keys, time = run[order], keys[order], runs.selected.time[at[order]]
        last = np.ones(len(run), np.bool_)
        last[:-1] = (run[1:] != run[:-1]) | (keys[1:] != keys[:-1]).any(axis=1)
        words = np.concatenate([time[last][:, None], keys[last]], axis=1)
        return packed_states(self._bounded(Records(run[last], words)), len(runs.starts))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The values of each run of states."""
        records = self._records(states)
        run = np.searchsorted(starts, records.row, "right") - 1
        order = np.lexsort((records.words[:, 0], *records.words[:, :0:-1].T, run))
        run, words = run[order], records.words[order]
        last = np.ones(len(run), np.bool_)
        last[:-1] = (run[1:] != run[:-1]) | (words[1:, 1:] != words[:-1, 1:]).any(axis=1)
        return packed_states(self._bounded(Records(run[last], words[last])), len(starts))

    def merge(self, old: States, new: States, since: Ints | None = None) -> States:
        """The values of both; without those last seen before `since` (int64 microseconds a state), where given."""
        n = len(new.words)
        keys = range(1, self.record_width)
        records = merged(self._records(old), self._records(new), n, keys, 0, np.maximum)
        if since is not None:
            records = records.take(records.words[:, 0] >= since[records.row])
        return packed_states(self._bounded(records), n)

    def within(self, states: States, since: Ints) -> States:
        """The values seen in a window that begins at `since`."""
        records = self._records(states)
        return packed_states(records.take(records.words[:, 0] >= since[records.row]), len(states.words))

    def counts(self, states: States) -> Column:
        """How many values each state holds."""
        assert states.objects is not None
        sizes = np.fromiter((0 if p is None else len(p) for p in states.objects.tolist()), np.int64, len(states.words))
        return Column("int64", sizes // (8 * self.record_width))

    def state_of(self, counts: Ints) -> States:
        """States of so many values, whichever they are: what a SQL engine counted."""
        row = np.repeat(np.arange(len(counts)), np.minimum(counts, self.most))
        return packed_states(Records(row, np.zeros((len(row), self.record_width), np.int64)), len(counts))

    def _records(self, states: States) -> Records:
        assert states.objects is not None
        return unpack(states.objects, self.record_width)

    def _bounded(self, records: Records) -> Records:
        """The `limit` values of each state that were seen last; of those seen at one time the lesser ones."""
        many = np.bincount(records.row) > self.most
        if not many.any():
            return records
        spots = np.flatnonzero(many[records.row])
        found = records.take(spots)
        # Values rise, and the sort is stable.
        order = np.lexsort((~found.words[:, 0], found.row))
        keep = np.ones(len(records), np.bool_)
        keep[spots[order]] = ranks(found.row) < self.most
        return records.take(keep)


def identities(column: Column) -> Ints:
    """(n, 1) integers that are equal where values are and sort alike; (n, 2) of strings and bytes. Nulls: anything."""
    if column.dtype in FIXED:
        return to_ordered(column.values, column.dtype)[:, None]
    distinct, inverse = codes_of(column)
    hashed = b"".join([_hash_of(as_bytes(v)) for v in distinct])
    return np.frombuffer(hashed, "<i8").astype(np.int64, copy=False).reshape(-1, 2)[inverse]


@lru_cache(maxsize=1 << 20)
def _hash_of(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:16]
