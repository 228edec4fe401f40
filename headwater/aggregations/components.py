"""Components: the pieces of state that tiles are made of, each with its vectorised laws.

A component is one or more 8-byte words a tile, the last of which may stand for a value of any
length (a string, a set of hashes). It knows how to reduce events to partial states, how to
merge runs of states into one (finer tiles into coarser, tiles into a window), and what an
empty state is. Merging is associative and commutative, so states are canonical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.list_values import pack_list, unpack_list
from headwater.aggregations.numbers import INT64_MAX, INT64_MIN, add_wide, scaled, to_ordered, wide_sums
from headwater.columns import Column
from headwater.dtypes import Dtype, is_list
from headwater.events.select import Selected
from headwater.expressions.syntax import Expr

Ints = NDArray[np.int64]


@dataclass(slots=True)
class States:
    """States of one component for m tiles: `words` (m, w) int64, `objects` (m,) bytes or None where variable."""

    words: Ints
    objects: NDArray[Any] | None = None

    def take(self, index: NDArray[Any]) -> States:
        """The states at `index`."""
        return States(self.words[index], None if self.objects is None else self.objects[index])


@dataclass(slots=True)
class Runs:
    """Events sorted into runs, one a tile; what components reduce.

    Attributes:
        selected: the events, unsorted.
        order: positions in `selected`, run after run, by (event time, partition, offset) within a run.
        starts: where each run begins in `order`.
    """

    selected: Selected
    order: Ints
    starts: Ints
    memo: dict[Any, Any] = field(default_factory=dict)

    def mask(self, where: Expr | None, column: Column | None) -> NDArray[np.bool_] | None:
        """Which sorted events count: the condition holds and the column has a value; None means all."""
        mask = None
        if where is not None:
            mask = self.remember(("where", where), lambda: self.selected.where(where)[self.order])
        if column is not None and column.valid is not None:
            valid = column.valid[self.order]
            mask = valid if mask is None else mask & valid
        return mask

    def counted(self, where: Expr | None, column: Column) -> tuple[Ints, Ints]:
        """The sorted events that count, as positions in `order`, and the run that each lies in."""
        mask = self.mask(where, column)
        position = np.arange(len(self.order)) if mask is None else np.flatnonzero(mask)
        return position, np.searchsorted(self.starts, position, "right") - 1

    def column(self, name: str) -> Column:
        """A column of the events, unsorted."""
        return self.selected.columns[name]

    def scaled(self, name: str, scale: int) -> Column:
        """The integers that enter sums, unsorted."""
        result: Column = self.remember(("scaled", name, scale), lambda: scaled(self.column(name), scale))
        return result

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all components that reduce these events."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


class Component(Protocol):
    """What a piece of state must know. Frozen and hashable: features that need the same piece share it."""

    width: ClassVar[int]
    """8-byte words a tile."""

    @property
    def variable(self) -> bool:
        """Whether the last word stands for bytes of any length (`States.objects`)."""

    @property
    def empty(self) -> tuple[int, ...]:
        """The words of the state of no events."""

    def reduce(self, runs: Runs) -> States:
        """The partial state of each run of events."""

    def merge_runs(self, states: States, starts: Ints) -> States:
        """One state a run of states; within a run later states are of later tiles."""

    def merge(self, old: States, new: States) -> States:
        """Element by element: the state of the events of both."""


class Timed:
    """A component whose states say when their events were: one state a row serves all windows.

    That works for what needs no more than the newest events, since every window ends behind the row's newest one.
    Such a state is kept beside the lifetime ones, without tiles; `within` cuts it to a window.
    """

    def merge(self, old: States, new: States, since: Ints | None = None) -> States:
        """As `Component.merge`; without events before `since` (int64 microseconds a state), where given."""
        raise NotImplementedError

    def within(self, states: States, since: Ints) -> States:
        """What a window that begins at `since` (microseconds, one a state) sees of the states."""
        raise NotImplementedError


@dataclass(frozen=True)
class Events:
    """How many events counted: 1 word."""

    where: Expr | None = None
    width: ClassVar[int] = 1
    variable: ClassVar[bool] = False
    empty: ClassVar[tuple[int, ...]] = (0,)

    def reduce(self, runs: Runs) -> States:
        """Counts a run."""
        return States(_counts(runs, runs.mask(self.where, None)))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """Adds up."""
        return States(np.add.reduceat(states.words, starts, axis=0))

    def merge(self, old: States, new: States) -> States:
        """Adds."""
        return States(old.words + new.words)


@dataclass(frozen=True)
class Values:
    """How many values of a column were there (with `scale`: fitted 64 bits when scaled): 1 word."""

    column: str
    scale: int | None = None
    where: Expr | None = None
    width: ClassVar[int] = 1
    variable: ClassVar[bool] = False
    empty: ClassVar[tuple[int, ...]] = (0,)

    def reduce(self, runs: Runs) -> States:
        """Counts a run."""
        column = runs.column(self.column) if self.scale is None else runs.scaled(self.column, self.scale)
        return States(_counts(runs, runs.mask(self.where, column)))

    merge_runs = Events.merge_runs
    merge = Events.merge


@dataclass(frozen=True)
class Total:
    """The exact sum of a column's (scaled) integers, 128 bits: 2 words, low and high."""

    column: str
    scale: int
    where: Expr | None = None
    width: ClassVar[int] = 2
    variable: ClassVar[bool] = False
    empty: ClassVar[tuple[int, ...]] = (0, 0)

    def reduce(self, runs: Runs) -> States:
        """Sums a run."""
        column = runs.scaled(self.column, self.scale)
        values, mask = column.values[runs.order], runs.mask(self.where, column)
        if mask is not None:
            values = np.where(mask, values, 0)
        return States(np.stack(wide_sums(values, runs.starts), axis=1))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """Adds up, each 32-bit limb on its own so that nothing wraps."""
        low, high = states.words[:, 0], states.words[:, 1]
        a = np.add.reduceat(low & 0xFFFFFFFF, starts)
        b = np.add.reduceat((low >> 32) & 0xFFFFFFFF, starts) + (a >> 32)
        top = np.add.reduceat(high, starts) + (b >> 32)
        return States(np.stack([(b << 32) | (a & 0xFFFFFFFF), top], axis=1))

    def merge(self, old: States, new: States) -> States:
        """Adds."""
        words = add_wide(
            np.ascontiguousarray(old.words[:, 0]), old.words[:, 1],
            np.ascontiguousarray(new.words[:, 0]), new.words[:, 1],
        )  # fmt: skip
        return States(np.stack(words, axis=1))


@dataclass(frozen=True)
class Extreme:
    """The least or greatest value of a column that fits 8 bytes, as an integer that sorts alike: 1 word."""

    column: str
    dtype: Dtype
    greatest: bool
    where: Expr | None = None
    width: ClassVar[int] = 1
    variable: ClassVar[bool] = False

    @property
    def empty(self) -> tuple[int, ...]:
        """What every value beats; whether there was a value is told by `Values`."""
        return (INT64_MIN if self.greatest else INT64_MAX,)

    @property
    def _pick(self) -> np.ufunc:
        return np.maximum if self.greatest else np.minimum

    def reduce(self, runs: Runs) -> States:
        """The extreme of a run."""
        column = runs.column(self.column)
        values, mask = to_ordered(column.values, self.dtype)[runs.order], runs.mask(self.where, column)
        if mask is not None:
            values = np.where(mask, values, self.empty[0])
        return States(self._pick.reduceat(values, runs.starts)[:, None])

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The extreme of extremes."""
        return States(self._pick.reduceat(states.words, starts, axis=0))

    def merge(self, old: States, new: States) -> States:
        """The more extreme of two."""
        return States(self._pick(old.words, new.words))


@dataclass(frozen=True)
class TextExtreme:
    """The least or greatest string (by UTF-8 bytes, which is code point order) or bytes value: variable."""

    column: str
    greatest: bool
    where: Expr | None = None
    width: ClassVar[int] = 1
    variable: ClassVar[bool] = True
    empty: ClassVar[tuple[int, ...]] = (0,)

    def reduce(self, runs: Runs) -> States:
        """The extreme of a run."""
        column = runs.column(self.column)
        mask = runs.mask(self.where, column)
        items = [as_bytes(v) for v in column.values[runs.order].tolist()]
        present = items if mask is None else [v if ok else None for v, ok in zip(items, mask.tolist(), strict=True)]
        return self._picked(present, runs.starts)

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The extreme of extremes."""
        assert states.objects is not None
        return self._picked(states.objects.tolist(), starts)

    def merge(self, old: States, new: States) -> States:
        """The more extreme of two."""
        assert old.objects is not None
        assert new.objects is not None
        pairs = [x for pair in zip(old.objects.tolist(), new.objects.tolist(), strict=True) for x in pair]
        return self._picked(pairs, np.arange(0, len(pairs), 2))

    def _picked(self, items: Sequence[bytes | None], starts: Ints) -> States:
        ends = [*starts[1:].tolist(), len(items)]
        pick = max if self.greatest else min
        found = [
            pick((v for v in items[a:b] if v is not None), default=None)
            for a, b in zip(starts.tolist(), ends, strict=True)
        ]
        return States(np.zeros((len(found), 1), np.int64), objects_of(found))


def as_bytes(value: Any) -> bytes:
    """How a string or bytes value lies in a row: UTF-8 (lone surrogates kept), bytes as they are."""
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def tail_values(values: Sequence[Any], dtype: str) -> list[bytes]:
    """How strings, bytes values or lists of a column lie in a row."""
    if is_list(dtype):
        return [pack_list(v, dtype) for v in values]
    return [v if type(v) is bytes else v.encode("utf-8", "surrogatepass") for v in values]


def from_bytes(value: bytes, dtype: str) -> Any:
    """The string, bytes value or list that lies so in a row."""
    if is_list(dtype):
        return unpack_list(value, dtype)
    return value if dtype == "bytes" else value.decode("utf-8", "surrogatepass")


def objects_of(items: Sequence[Any]) -> NDArray[Any]:
    """A one-dimensional array of Python objects (numpy would make rows of equally long bytes)."""
    out = np.empty(len(items), object)
    out[:] = items
    return out


def _counts(runs: Runs, mask: NDArray[np.bool_] | None) -> Ints:
    if mask is None:
        return np.diff(np.append(runs.starts, len(runs.order)))[:, None]
    return np.add.reduceat(mask.astype(np.int64), runs.starts)[:, None]
