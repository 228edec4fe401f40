"""Events -> a table's rings by the compiled library, for components whose laws take an event at a time.

The same words as by the components' own laws, without their many passes: those cost as much for a hundred events as
for ten thousand. What the library cannot do (sets, sketches, lists, extremes of strings) `RowTable` does as before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Component, Events, Extreme, Total, Values, objects_of, tail_values
from headwater.aggregations.latest import Earliest, Latest
from headwater.aggregations.numbers import scaled, to_ordered
from headwater.columns import Column
from headwater.events.select import Selected
from headwater.expressions.syntax import Expr
from headwater.native import address_of
from headwater.rows.layout import Group
from headwater.rows.native_codec import Marks, Ring

Ints = NDArray[np.int64]
_COUNT, _SUM, _GREATEST, _LEAST, _LAST, _FIRST = range(6)
_KINDS = (Events, Values, Total, Extreme, Latest, Earliest)


class _Law(ctypes.Structure):
    """hw_law of fold.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("values", "mask", "slots", "events")),
        *((name, c_int64) for name in ("kind", "word", "n")),
    ]


class _Ring(ctypes.Structure):
    """hw_ring of fold.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("tiles", "records", "empty", "laws", "fresh")),
        *((name, c_int64) for name in ("hop", "window", "slots", "width", "n_laws", "n_fresh")),
    ]


class _Events(ctypes.Structure):
    """hw_events of fold.c."""

    _fields_ = [
        *((name, c_int64) for name in ("n", "n_rings", "partitions", "born_at", "n_touched")),
        *((name, c_void_p) for name in ("rows", "partition", "offset", "time", "newest", "born", "applied")),
        *((name, c_void_p) for name in ("touched", "marks", "rings")),
    ]


def compiled(group: Group) -> tuple[int, ...]:
    """The numbers of the group's components that the library folds."""
    return tuple(i for i, c in enumerate(group.components) if type(c) in _KINDS)


@dataclass(frozen=True, slots=True)
class _Given:
    """A ring, what the library knows of it, and of each component that it folds the law, the number and itself."""

    ring: Ring
    c: _Ring
    laws: list[tuple[_Law, int, Component]]

    def prepare(self, batch: _Batch) -> list[Ints]:
        """Say what a batch brings. Where the ring has values of any length: room for the slots that get another tile,
        and for the slots and the events of each such component's new values."""
        self.c.tiles, self.c.records, self.c.n_fresh = address_of(self.ring.tiles), address_of(self.ring.records), 0
        room: list[Ints] = []
        for law, number, component in self.laws:
            law.values, law.mask = batch.brought(component)
            if self.ring.objects[number] is not None:
                room += [np.empty(len(batch.events), np.int64) for _ in range(2)]
                law.slots, law.events, law.n = address_of(room[-2]), address_of(room[-1]), 0
        if any(o is not None for o in self.ring.objects):
            room.append(np.empty(len(batch.events), np.int64))
            self.c.fresh = address_of(room[-1])
        return room

    def place(self, room: list[Ints], events: Selected) -> None:
        """Put values of any length where the library says."""
        if not room:
            return
        fresh = room[-1][: self.c.n_fresh]
        for objects in self.ring.objects:
            if objects is not None:
                objects[fresh] = None
        first = 0
        for law, number, component in self.laws:
            objects = self.ring.objects[number]
            if objects is not None:
                assert isinstance(component, Latest)
                slots, places = (a[: law.n] for a in room[first : first + 2])
                values = events.columns[component.column].values[places].tolist()
                objects[slots] = objects_of(tail_values(values, component.dtype))
                first += 2


class TableFolder:
    """Folds events into one table. `rings`: those of the table, whose arrays may be others by the next call."""

    def __init__(self, native: ctypes.CDLL, rings: Sequence[Ring]) -> None:
        self._native = native
        self._rings = (_Ring * len(rings))()
        self._events = _Events(n_rings=len(rings), rings=ctypes.addressof(self._rings))
        self._marks = np.zeros(0, np.bool_)
        self._given: list[_Given] = []
        for c, ring in zip(self._rings, rings, strict=True):
            group, numbers = ring.group, compiled(ring.group)
            laws = (_Law * len(numbers))()
            for law, i in zip(laws, numbers, strict=True):
                law.kind, law.word = _kind(group.components[i]), group.offsets[i]
            c.empty, c.laws, c.n_laws = address_of(group.empty), ctypes.addressof(laws), len(laws)
            c.hop, c.window, c.slots, c.width = group.hop or 0, group.window or 0, group.slots, group.width
            found = [(law, i, group.components[i]) for law, i in zip(laws, numbers, strict=True)]
            self._given.append(_Given(ring, c, found))

    def fold(self, rows: Ints, events: Selected, marks: Marks, born: int | None) -> Ints:
        """Fold events into rows, none of which has one of them already, but for the components that are not `compiled`.

        `rows[i]` is the row of event i, `born` as in `RowTable.fold`. The slots of a tile that is new are emptied for
        all components. Returns the rows that changed, rising.
        """
        batch, e = _Batch(events), self._events
        if len(self._marks) < len(marks.newest):
            self._marks = np.zeros(len(marks.newest), np.bool_)
        room = [given.prepare(batch) for given in self._given]
        taken = [np.ascontiguousarray(a) for a in (rows, events.partition, events.offset, events.time)]
        touched = np.empty(len(rows), np.int64)
        e.n, e.partitions, e.n_touched = len(rows), marks.applied.shape[1], 0
        e.born_at = -1 if born is None else born
        e.rows, e.partition, e.offset, e.time = map(address_of, taken)
        e.newest, e.born, e.applied = map(address_of, (marks.newest, marks.born, marks.applied))
        e.touched, e.marks = address_of(touched), address_of(self._marks)
        self._native.hw_fold(ctypes.addressof(e))
        for given, mine in zip(self._given, room, strict=True):
            given.place(mine, events)
        return np.sort(touched[: e.n_touched])


class _Batch:
    """What events bring to the components, made once for all of them; it stays until the batch is done."""

    def __init__(self, events: Selected) -> None:
        self.events = events
        self._made: dict[Any, Any] = {}

    def brought(self, component: Component) -> tuple[int | None, int | None]:
        """Where the values that a component takes lie, and which events count; None for none, and for all."""
        match component:
            case Events():
                return None, self._mask(component.where, None)
            case Values():
                name, scale = component.column, component.scale
                return None, self._mask(component.where, name if scale is None else (name, scale))
            case Total():
                key = (component.column, component.scale)
                return self._ints(key), self._mask(component.where, key)
            case Extreme():
                return self._ordered(component.column), self._mask(component.where, component.column)
            case Latest():
                values = None if component.variable else self._ordered(component.column)
                return values, self._mask(component.where, component.column)
        raise TypeError(f"{component} is folded in Python")

    def _column(self, key: str | tuple[str, int]) -> Column:
        """A column; with a scale the integers that enter sums."""
        if isinstance(key, str):
            return self.events.columns[key]
        if key not in self._made:
            self._made[key] = scaled(self.events.columns[key[0]], key[1])
        found: Column = self._made[key]
        return found

    def _ints(self, key: tuple[str, int]) -> int:
        return self._kept(("ints", key), lambda: np.ascontiguousarray(self._column(key).values, np.int64))

    def _ordered(self, name: str) -> int:
        column = self._column(name)
        return self._kept(("ordered", name), lambda: to_ordered(column.values, column.dtype))

    def _mask(self, where: Expr | None, key: str | tuple[str, int] | None) -> int | None:
        """The condition holds and the column has a value; None means all."""
        valid = None if key is None else self._column(key).valid
        if where is None:
            return None if valid is None else self._kept(("valid", key), lambda: np.ascontiguousarray(valid))
        return self._kept(("where", where, key), lambda: self._holds(where, valid))

    def _holds(self, where: Expr, valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        if where not in self._made:
            self._made[where] = self.events.where(where)
        holds = self._made[where]
        return np.ascontiguousarray(holds if valid is None else holds & valid)

    def _kept(self, key: Any, make: Callable[[], NDArray[Any]]) -> int:
        if key not in self._made:
            array = make()
            self._made[key] = (address_of(array), array)
        address: int = self._made[key][0]
        return address


def _kind(component: Component) -> int:
    match component:
        case Total():
            return _SUM
        case Extreme():
            return _GREATEST if component.greatest else _LEAST
        case Earliest():
            return _FIRST
        case Latest():
            return _LAST
    return _COUNT
