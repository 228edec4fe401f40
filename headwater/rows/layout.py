"""Which components a view's rows hold, in which groups of tiles, and where each feature finds its own.

A group is the lifetime state (one tile) or the tiles of one hop. The layout follows from the
view's features alone, in their order, so every path derives the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Component, Values
from headwater.aggregations.statistics import components_of
from headwater.plans.plan import Feature, StreamView


@dataclass(frozen=True)
class Group:
    """Tiles of one hop; `hop` and `window` (the longest of the hop) are None for the lifetime state."""

    hop: int | None
    window: int | None
    components: tuple[Component, ...]

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
        hops: list[int | None] = [None] if any(f.hop is None for f in view.features) else []
        longest = view.hops()
        hops += list(longest)
        found: dict[int | None, dict[Component, int]] = {hop: {} for hop in hops}
        places: dict[str, Place] = {}
        for f in view.features:
            known = found[f.hop]
            numbers = tuple(known.setdefault(c, len(known)) for c in components_of(f))
            places[f.name] = Place(hops.index(f.hop), numbers)
        self.places = places
        self.groups = tuple(Group(hop, longest.get(hop) if hop else None, tuple(found[hop])) for hop in hops)
        self.features: dict[str, Feature] = {f.name: f for f in view.features}
        self.variable = any(c.variable for g in self.groups for c in g.components)
        values = (c for g in self.groups for c in g.components if isinstance(c, Values))
        self.scaled = tuple(dict.fromkeys((c.column, c.scale) for c in values if c.scale is not None))

    @property
    def count_words(self) -> int:
        """8-byte words that hold the 16-bit counts of each group's tiles."""
        return -(-len(self.groups) // 4)


@lru_cache(maxsize=256)
def _layout(encoded: bytes) -> RowLayout:
    import msgspec

    return RowLayout(msgspec.json.decode(encoded, type=StreamView))


def layout_of(view: StreamView) -> RowLayout:
    """The layout of a view, made once a definition."""
    import msgspec

    return _layout(msgspec.json.encode(view, order="deterministic"))
