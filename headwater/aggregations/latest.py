"""The last and the first value by (event time, partition, offset), with that place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Ints, Runs, States, objects_of, tail_values
from headwater.aggregations.numbers import INT64_MIN, to_ordered
from headwater.dtypes import FIXED, Dtype
from headwater.expressions.syntax import Expr

NONE = INT64_MIN
"""The event time of a state that has no value yet."""


@dataclass(frozen=True)
class Latest:
    """4 words: event time, partition, offset, and the value (for strings, bytes and lists: variable)."""

    column: str
    dtype: Dtype
    where: Expr | None = None
    width: ClassVar[int] = 4
    empty: ClassVar[tuple[int, ...]] = (NONE, 0, 0, 0)

    @property
    def variable(self) -> bool:
        """Strings, bytes and lists lie in the row's tail."""
        return self.dtype not in FIXED

    def reduce(self, runs: Runs) -> States:
        """The latest event of a run that has a value."""
        column = runs.column(self.column)
        mask = runs.mask(self.where, column)
        best, found = self._chosen(len(runs.order), mask, runs.starts)
        at = runs.order[best]
        events, words = runs.selected, np.zeros((len(best), 4), np.int64)
        words[:, 0] = np.where(found, events.time[at], NONE)
        words[:, 1], words[:, 2] = np.where(found, events.partition[at], 0), np.where(found, events.offset[at], 0)
        if not self.variable:
            words[:, 3] = np.where(found, to_ordered(column.values[at], self.dtype), 0)
            return States(words)
        objects = objects_of(tail_values(column.values[at].tolist(), self.dtype))
        objects[~found] = None
        return States(words, objects)

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The last state of each run that has a value: later tiles are later in time."""
        best, found = self._chosen(len(states.words), states.words[:, 0] != NONE, starts)
        return states.take(np.where(found, best, starts))

    def merge(self, old: States, new: States) -> States:
        """The later of two, by time, partition and offset."""
        wins = self._wins(old.words, new.words)
        words = np.where(wins[:, None], new.words, old.words)
        if old.objects is None or new.objects is None:
            return States(words)
        return States(words, np.where(wins, new.objects, old.objects))

    def _chosen(
        self, length: int, there: NDArray[np.bool_] | None, starts: Ints
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The last position of each run that has a value (0 where none has), and whether there is one."""
        position = np.arange(length)
        best = np.maximum.reduceat(position if there is None else np.where(there, position, -1), starts)
        return np.maximum(best, 0), best >= 0

    def _wins(self, old: Ints, new: Ints) -> NDArray[np.bool_]:
        """Where the new state's place is behind the old one's; a state without a value is before all."""
        return _before(old, new)


@dataclass(frozen=True)
class Earliest(Latest):
    """The same words for the first value."""

    def _chosen(
        self, length: int, there: NDArray[np.bool_] | None, starts: Ints
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        position = np.arange(length)
        best = np.minimum.reduceat(position if there is None else np.where(there, position, length), starts)
        return np.minimum(best, length - 1), best < length

    def _wins(self, old: Ints, new: Ints) -> NDArray[np.bool_]:
        return np.asarray((new[:, 0] != NONE) & ((old[:, 0] == NONE) | _before(new, old)))


@dataclass(frozen=True)
class Newest(Latest):
    """The value in the newest event, which may be null there: 5 words, those of `Latest` and 1 where it is a value."""

    width: ClassVar[int] = 5
    empty: ClassVar[tuple[int, ...]] = (NONE, 0, 0, 0, 0)

    def reduce(self, runs: Runs) -> States:
        """The newest event of a run."""
        column, events = runs.column(self.column), runs.selected
        best, found = self._chosen(len(runs.order), runs.mask(self.where, None), runs.starts)
        at = runs.order[best]
        there = found if column.valid is None else found & column.valid[at]
        words = np.zeros((len(best), self.width), np.int64)
        words[:, 0] = np.where(found, events.time[at], NONE)
        words[:, 1], words[:, 2] = np.where(found, events.partition[at], 0), np.where(found, events.offset[at], 0)
        if self.variable:
            objects = objects_of(tail_values(column.values[at].tolist(), self.dtype))
            objects[~there] = None
            return States(words, objects)
        words[:, 3], words[:, 4] = np.where(there, to_ordered(column.values[at], self.dtype), 0), there
        return States(words)


@dataclass(frozen=True)
class NewestText(Newest):
    """The same of strings, bytes and lists: 4 words, of which the last stands for no value where it is null."""

    width: ClassVar[int] = 4
    empty: ClassVar[tuple[int, ...]] = (NONE, 0, 0, 0)


def _before(a: Ints, b: Ints) -> NDArray[np.bool_]:
    """Where the place of a, (time, partition, offset), lies before that of b."""
    before = a[:, 0] < b[:, 0]
    for i in (1, 2):
        before |= (a[:, :i] == b[:, :i]).all(axis=1) & (a[:, i] < b[:, i])
    return np.asarray(before)
