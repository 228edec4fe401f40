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
from headwater.rows.layout import Group
from headwater.rows.native_codec import Ring

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
        *((name, c_int64) for name in ("n", "n_rings", "partitions", "born_at")),
        *((name, c_void_p) for name in ("rows", "partition", "offset", "time", "newest", "born", "applied", "rings")),
    ]


@dataclass(frozen=True, slots=True)
class Marks:
    """What a table knows of its rows: int64[rows], and int64[rows, partitions] twice."""

    newest: Ints
    born: Ints
    applied: Ints


def compiled(group: Group) -> tuple[int, ...]:
    """The numbers of the group's components that the library folds."""
    return tuple(i for i, c in enumerate(group.components) if type(c) in _KINDS)


def fold_events(
    native: ctypes.CDLL, rings: Sequence[Ring], rows: Ints, events: Selected, marks: Marks, born: int | None
) -> None:
    """Fold events into rows, none of which has one of them already, but for the components that are not `compiled`.

    `rows[i]` is the row of event i, `born` as in `RowTable.fold`. The slots of a tile that is new are emptied for
    all components.
    """
    batch = _Batch(events)
    given: list[tuple[Ring, _Ring, Any, Ints | None]] = []
    for ring in rings:
        group, numbers = ring.group, compiled(ring.group)
        laws = (_Law * len(numbers))(*(batch.law(group.components[i], group.offsets[i]) for i in numbers))
        fresh = np.empty(len(events), np.int64) if any(o is not None for o in ring.objects) else None
        c = _Ring(
            _at(ring.tiles), _at(ring.records), _at(group.empty), ctypes.addressof(laws), batch.kept(fresh),
            group.hop or 0, group.window or 0, group.slots, group.width, len(laws), 0,
        )  # fmt: skip
        given.append((ring, c, laws, fresh))
    all_rings = (_Ring * len(given))(*(c for _, c, _, _ in given))
    taken = _Events(
        len(rows), len(given), marks.applied.shape[1], -1 if born is None else born,
        *(batch.kept(np.ascontiguousarray(a)) for a in (rows, events.partition, events.offset, events.time)),
        _at(marks.newest), _at(marks.born), _at(marks.applied), ctypes.addressof(all_rings),
    )  # fmt: skip
    native.hw_fold(ctypes.byref(taken))
    for (ring, _, laws, fresh), c in zip(given, all_rings, strict=True):
        if fresh is not None:
            _place(ring, laws, fresh[: c.n_fresh], batch)


def _place(ring: Ring, laws: Any, fresh: Ints, batch: _Batch) -> None:
    """Put values of any length where the library says."""
    for objects in ring.objects:
        if objects is not None:
            objects[fresh] = None
    for number, law in zip(compiled(ring.group), laws, strict=True):
        component, objects = ring.group.components[number], ring.objects[number]
        if objects is not None and law.n:
            assert isinstance(component, Latest)
            slots, events = (batch.array(address)[: law.n] for address in (law.slots, law.events))
            values = batch.events.columns[component.column].values[events].tolist()
            objects[slots] = objects_of(tail_values(values, component.dtype))


class _Batch:
    """What events bring to the components, made once for all of them; and the arrays that the library is told of."""

    def __init__(self, events: Selected) -> None:
        self.events = events
        self._made: dict[Any, Any] = {}
        self._kept: dict[int, NDArray[Any]] = {}

    def kept(self, array: NDArray[Any] | None) -> int | None:
        """The address of an array, which stays until the batch is done."""
        if array is None:
            return None
        address = _at(array)
        self._kept[address] = array
        return address

    def array(self, address: int) -> NDArray[Any]:
        """The array that is kept at an address."""
        return self._kept[address]

    def law(self, component: Component, word: int) -> _Law:
        """What the library does for a component whose first word this is."""
        match component:
            case Events():
                return _Law(None, self._mask(component.where, None), None, None, _COUNT, word, 0)
            case Values():
                column = self._scaled(component.column, component.scale)
                return _Law(None, self._mask(component.where, column), None, None, _COUNT, word, 0)
            case Total():
                column = self._scaled(component.column, component.scale)
                values = self.kept(np.ascontiguousarray(column.values, np.int64))
                return _Law(values, self._mask(component.where, column), None, None, _SUM, word, 0)
            case Extreme():
                kind = _GREATEST if component.greatest else _LEAST
                return _Law(*self._ordered(component), None, None, kind, word, 0)
            case Latest():
                kind = _FIRST if isinstance(component, Earliest) else _LAST
                if not component.variable:
                    return _Law(*self._ordered(component), None, None, kind, word, 0)
                mask = self._mask(component.where, self.events.columns[component.column])
                places = [self.kept(np.empty(len(self.events), np.int64)) for _ in range(2)]
                return _Law(None, mask, *places, kind, word, 0)
        raise TypeError(f"{component} is folded in Python")

    def _ordered(self, component: Extreme | Latest) -> tuple[int | None, int | None]:
        column = self.events.columns[component.column]
        values = self._once(
            ("ordered", column.dtype, component.column), lambda: to_ordered(column.values, column.dtype)
        )
        return self.kept(values), self._mask(component.where, column)

    def _scaled(self, name: str, scale: int | None) -> Column:
        column = self.events.columns[name]
        if scale is None:
            return column
        found: Column = self._once(("scaled", name, scale), lambda: scaled(column, scale))
        return found

    def _mask(self, where: Expr | None, column: Column | None) -> int | None:
        """Which events count: the condition holds and the column has a value; None means all."""
        valid = None if column is None else column.valid
        if where is None:
            return self.kept(None if valid is None else np.ascontiguousarray(valid))
        holds = self._once(("where", where), lambda: self.events.where(where))
        return self.kept(np.ascontiguousarray(holds if valid is None else holds & valid))

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data
