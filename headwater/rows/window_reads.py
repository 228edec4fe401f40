"""What a read takes out of rows, made once for a view and the features asked for: window by window, which words.

Counts, sums, means and extremes are read in bulk: their words follow one of three laws (add, greatest, least), so
one reduction over a window's tiles serves all of them. What other functions keep is merged component by component.
`one_row.py` and `many_rows.py` read by this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Component, Extreme, States, Timed, objects_of
from headwater.aggregations.numbers import unit_of
from headwater.aggregations.statistics import finish
from headwater.errors import ReadError
from headwater.plans.plan import Feature
from headwater.rows.layout import Group, Place, RowLayout


class CountRead(NamedTuple):
    """The feature's place in the answer, and the word that counts."""

    to: int
    counter: int


class SumRead(NamedTuple):
    """A sum or mean: `low` and `low + 1` are the 128-bit total, `unit` its denominator (0: an integer sum)."""

    to: int
    feature: Feature
    counter: int
    low: int
    unit: int
    mean: bool


class ExtremeRead(NamedTuple):
    """A least or greatest value that lies in a word."""

    to: int
    counter: int
    word: int
    greatest: bool
    dtype: str


class OtherRead(NamedTuple):
    """A feature that is merged by its components."""

    to: int
    feature: Feature
    place: Place


@dataclass
class WindowRead:
    """The features of one window. Words count from the start of a tile's record, whose first is the tile's number."""

    number: int
    group: Group
    window: int | None
    counts: list[CountRead] = field(default_factory=list)
    sums: list[SumRead] = field(default_factory=list)
    extremes: list[ExtremeRead] = field(default_factory=list)
    others: list[OtherRead] = field(default_factory=list)

    @property
    def bulk(self) -> bool:
        """Whether anything is read by words alone."""
        return bool(self.counts or self.sums or self.extremes)


@dataclass
class WindowReads:
    """All windows of a request for the features `names`."""

    layout: RowLayout
    names: tuple[str, ...]
    windows: list[WindowRead]
    _absent: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, layout: RowLayout, names: Sequence[str]) -> WindowReads:
        """The reads of these features of the view."""
        found: dict[tuple[int, int | None], WindowRead] = {}
        for to, name in enumerate(names):
            feature, place = layout.features[name], layout.places[name]
            key = (place.group, feature.window)
            if key not in found:
                found[key] = WindowRead(place.group, layout.groups[place.group], feature.window)
            _add(found[key], to, feature, place)
        reads = cls(layout, tuple(names), list(found.values()))
        reads._absent = [reads._of_nothing(name) for name in names]
        return reads

    def absent(self) -> list[Any]:
        """The values where there are no events, in the order of `names`; a new list."""
        return [v.copy() if isinstance(v, list) else v for v in self._absent]

    def _of_nothing(self, name: str) -> Any:
        place = self.layout.places[name]
        components = [self.layout.groups[place.group].components[c] for c in place.components]
        states = [States(np.array([c.empty], np.int64), objects_of([None]) if c.variable else None) for c in components]
        return self.finished(self.layout.features[name], states)[0]

    def finished(self, feature: Feature, states: Sequence[States]) -> list[Any]:
        """The values that states stand for.

        Raises:
            ReadError: a value past its type, or bytes that are no text; with the view's name.
        """
        try:
            return finish(feature, states).to_list()
        except (ReadError, UnicodeDecodeError) as error:
            raise ReadError(f"View {self.layout.view.name!r}: {error}") from None


def seen_states(feature: Feature, component: Component, states: States, at: NDArray[np.int64]) -> States:
    """What the feature's window sees of states when it is read at `at`; only timed ones are not cut to it by tiles."""
    if feature.window is None or feature.hop is None or not isinstance(component, Timed):
        return states
    return component.within(states, (at - feature.window) // feature.hop * feature.hop)


def _add(read: WindowRead, to: int, feature: Feature, place: Place) -> None:
    at = [read.group.offsets[c] for c in place.components]
    match feature.function:
        case "count":
            read.counts.append(CountRead(to, at[0]))
        case "sum" | "mean":
            unit = unit_of(feature.column_dtype, feature.scale)
            whole = feature.function == "sum" and feature.column_dtype != "float64"
            read.sums.append(SumRead(to, feature, at[0], at[1], 0 if whole else unit, feature.function == "mean"))
        case "min" | "max" if isinstance(read.group.components[place.components[-1]], Extreme):
            read.extremes.append(ExtremeRead(to, at[0], at[1], feature.function == "max", feature.dtype))
        case _:
            read.others.append(OtherRead(to, feature, place))
