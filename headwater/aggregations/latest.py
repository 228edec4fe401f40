"""The last value by (event time, partition, offset), with that place: last, and later first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headwater.aggregations.components import Ints, Runs, States, as_bytes, objects_of
from headwater.aggregations.numbers import INT64_MIN, to_ordered
from headwater.dtypes import FIXED, Dtype
from headwater.expressions.syntax import Expr

NONE = INT64_MIN
"""The event time of a state that has no value yet."""


@dataclass(frozen=True)
class Latest:
    """4 words: event time, partition, offset, and the value (for strings and bytes: variable)."""

    column: str
    dtype: Dtype
    where: Expr | None = None
    width: ClassVar[int] = 4
    empty: ClassVar[tuple[int, ...]] = (NONE, 0, 0, 0)

    @property
    def variable(self) -> bool:
        """Strings and bytes lie in the row's tail."""
        return self.dtype not in FIXED

    def reduce(self, runs: Runs) -> States:
        """The latest event of a run that has a value."""
        column = runs.column(self.column)
        mask = runs.mask(self.where, column)
        position = np.arange(len(runs.order))
        best = np.maximum.reduceat(position if mask is None else np.where(mask, position, -1), runs.starts)
        found, at = best >= 0, runs.order[np.maximum(best, 0)]
        events, words = runs.selected, np.zeros((len(best), 4), np.int64)
        words[:, 0] = np.where(found, events.time[at], NONE)
        words[:, 1], words[:, 2] = np.where(found, events.partition[at], 0), np.where(found, events.offset[at], 0)
        if not self.variable:
            words[:, 3] = np.where(found, to_ordered(column.values[at], self.dtype), 0)
            return States(words)
        values = [as_bytes(v) if ok else None for v, ok in zip(column.values[at].tolist(), found.tolist(), strict=True)]
        return States(words, objects_of(values))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The last state of each run that has a value: later tiles are later in time."""
        position = np.where(states.words[:, 0] != NONE, np.arange(len(states.words)), -1)
        best = np.maximum.reduceat(position, starts)
        return states.take(np.where(best >= 0, best, starts))

    def merge(self, old: States, new: States) -> States:
        """The later of two, by time, partition and offset."""
        a, b = old.words, new.words
        wins = b[:, 0] > a[:, 0]
        for i in (1, 2):
            wins |= (b[:, :i] == a[:, :i]).all(axis=1) & (b[:, i] > a[:, i])
        words = np.where(wins[:, None], b, a)
        if old.objects is None or new.objects is None:
            return States(words)
        return States(words, np.where(wins, new.objects, old.objects))
