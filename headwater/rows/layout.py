"""Which components a view's rows hold, in which groups of tiles, and where each feature finds its own.

A group is the lifetime state (one tile) or the tiles of one hop. Timed components lie beside the lifetime states
whatever their windows are, and are trimmed to the longest of them. The layout follows from the
view's features alone, in their order, so every path derives the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Component, Timed, Values
from headwater.aggregations.statistics import components_of
from headwater.plans.plan import Feature, StreamView


@dataclass(frozen=True)
class Group:
    """Tiles of one hop; `hop` and `window` (the longest of the hop) are None for the lifetime state."""

    hop: int | None
    window: int | None
    components: tuple[Component, ...]
    trims: tuple[tuple[tuple[int, int], ...], ...] = ()
    """For each component the windows and hops that its states are trimmed to; () for none."""

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first word of each component in a tile's record; word 0 is the tile's number."""
        widths = [c.width for c in self.components]
        return tuple(1 + sum(widths[:i]) for i in range(len(widths)))

    @cached_property
    def width(self) -> int:
        """8-byte words of a tile's record."""
        return 1 + sum(c.width for c in self.components)

    @cached_property
    def slots(self) -> int:
        """How many tiles a row can hold at most."""
        return 1 if self.hop is None or self.window is None else -(-self.window // self.hop) + 1

    @cached_property
    def empty(self) -> NDArray[np.int64]:
        """The words of the state of no events, without the tile's number."""
        return np.array([w for c in self.components for w in c.empty], np.int64)

    def first_tile(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first tile that the group's longest window sees when it is read at `at`."""
        if self.hop is None or self.window is None:
            return np.zeros(len(at), np.int64)
        return (at - self.window) // self.hop

    def since(self, number: int, at: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """From when on a component's states are kept in rows read at `at`; None: for ever."""
        trims = self.trims[number] if self.trims else ()
        starts = [(at - window) // hop * hop for window, hop in trims]
        return np.minimum.reduce(starts) if starts else None

    def tile(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tile of event times."""
        return np.zeros(len(time), np.int64) if self.hop is None else time // self.hop


@dataclass(frozen=True)
class Place:
    """Where a feature's states lie: its group, and its components' numbers in that group."""

    group: int
    components: tuple[int, ...]


class RowLayout:
    """The layout of a windowed view's rows.

    Attributes:
        groups: the lifetime group first where there is one, then hops rising.
        places: where each feature's states lie, by name.
        state_hash: the view's, as the 64-bit word of the row's header.
        scaled: the columns of doubles that enter sums as integers, with their scales.
    """

    def __init__(self, view: StreamView) -> None:
        self.view = view
        self.state_hash = int(view.state_hash, 16)
        components = {f.name: components_of(f) for f in view.features}
        hop_of = {f.name: None if isinstance(components[f.name][0], Timed) else f.hop for f in view.features}
        longest: dict[int | None, int] = {}
        for f in view.features:
            if (hop := hop_of[f.name]) is not None and f.window is not None:
                longest[hop] = max(longest.get(hop, 0), f.window)
        hops = [*([None] if None in hop_of.values() else []), *sorted(hop for hop in longest if hop is not None)]
        found: dict[int | None, dict[Component, int]] = {hop: {} for hop in hops}
        places: dict[str, Place] = {}
        for f in view.features:
            hop = hop_of[f.name]
            numbers = tuple(found[hop].setdefault(c, len(found[hop])) for c in components[f.name])
            places[f.name] = Place(hops.index(hop), numbers)
        self.places = places
        self.groups = tuple(
            Group(hop, longest.get(hop), tuple(found[hop]), _trims(view, found[None]) if hop is None else ())
            for hop in hops
        )
        self.features: dict[str, Feature] = {f.name: f for f in view.features}
        self.variable = any(c.variable for g in self.groups for c in g.components)
        values = (c for g in self.groups for c in g.components if isinstance(c, Values))
        self.scaled = tuple(dict.fromkeys((c.column, c.scale) for c in values if c.scale is not None))

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """8-byte words of a tile's record, by group."""
        return np.array([g.width for g in self.groups], np.int64)

    @property
    def count_words(self) -> int:
        """8-byte words that hold the 16-bit counts of each group's tiles."""
        return -(-len(self.groups) // 4)


def _trims(view: StreamView, components: Iterable[Component]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each component of the lifetime group the windows that look into it, where all of them have an end."""
    windows: dict[Component, dict[tuple[int, int] | None, None]] = {}
    for f in view.features:
        for c in components_of(f):
            window = None if f.window is None or f.hop is None else (f.window, f.hop)
            windows.setdefault(c, {})[window] = None
    return tuple(
        tuple(w for w in windows[c] if w is not None) if isinstance(c, Timed) and None not in windows[c] else ()
        for c in components
    )


@lru_cache(maxsize=256)
def _layout(encoded: bytes) -> RowLayout:
    return RowLayout(_view.decode(encoded))


_view = msgspec.json.Decoder(StreamView)


def layout_of(view: StreamView) -> RowLayout:
    """The layout of a view, made once a definition."""
    return _layout(msgspec.json.encode(view, order="deterministic"))
