"""Rows in memory as rings of tiles: what the worker's cache, backfill and the check fold events into.

A row has, for each group, a ring of as many slots as its longest window can see (slot = tile
mod slots). A separate table tells which tile a slot holds, so nothing is ever cleared: what
left the window is recognised by its number. Merging touches only the tiles that events touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Component, Runs, States, Timed
from headwater.events.select import Selected
from headwater.native import library
from headwater.rows.codec import Rows, Tiles, decode, encode
from headwater.rows.frames import Frames
from headwater.rows.layout import Group, RowLayout
from headwater.rows.native_codec import MOST_GROUPS, Marks, TableEncoder
from headwater.rows.native_fold import TableFolder, compiled

Ints = NDArray[np.int64]
NO_TILE = -(2**62)
NEVER = -(2**62)
"""Newest event time of a row without events."""


class _Ring:
    """The tiles of one group for all rows of a table.

    A slot has a record: the number of the tile that it holds, and its components' words. The numbers lie apart
    once more, so that looking for them touches little memory.
    """

    def __init__(self, group: Group, capacity: int) -> None:
        self.group = group
        self.tiles = np.full(capacity * group.slots, NO_TILE, np.int64)
        self.records = np.zeros((capacity * group.slots, group.width), np.int64)
        self.objects: list[NDArray[Any] | None] = [
            np.full(capacity * group.slots, None, object) if c.variable else None for c in group.components
        ]
        self.others = tuple(sorted({*range(len(group.components))} - {*compiled(group)}))
        """The numbers of the components that the compiled library does not fold."""
        # Line s has the slots in the order of their tiles where the first tile's slot is s.
        self._turned = (np.arange(group.slots)[:, None] + np.arange(group.slots)) % group.slots

    def grow(self, capacity: int) -> None:
        more = capacity * self.group.slots - len(self.tiles)
        self.tiles = np.concatenate([self.tiles, np.full(more, NO_TILE, np.int64)])
        self.records = np.concatenate([self.records, np.zeros((more, self.group.width), np.int64)])
        self.objects = [None if o is None else np.concatenate([o, np.full(more, None, object)]) for o in self.objects]

    def forget(self, rows: Ints) -> None:
        self.tiles.reshape(-1, self.group.slots)[rows] = NO_TILE

    def merge(self, rows: Ints, tiles: Ints, states: Mapping[int, States], read_at: Ints | None = None) -> None:
        """Merge states, by their components' numbers, into tiles; each (row, tile) comes once and lies inside of its
        row's windows.

        `read_at`: when each row is read first, which timed states are trimmed to.
        """
        group = self.group
        at = rows * group.slots + tiles % group.slots
        records = self.records.take(at, axis=0)
        fresh = np.flatnonzero(self.tiles.take(at) != tiles)
        if len(fresh):
            records[fresh, 1:] = group.empty
            records[fresh, 0] = self.tiles[at[fresh]] = tiles[fresh]
            for objects in self.objects:
                if objects is not None:
                    objects[at[fresh]] = None
        for i, new in states.items():
            component, first, objects = group.components[i], group.offsets[i], self.objects[i]
            z = slice(first, first + component.width)
            old = States(records[:, z], None if objects is None else objects[at])
            if isinstance(component, Timed):
                merged = component.merge(old, new, None if read_at is None else group.since(i, read_at))
            else:
                merged = component.merge(old, new)
            records[:, z] = merged.words
            if objects is not None:
                objects[at] = merged.objects
        self.records[at] = records

    def gather(self, rows: Ints, first: Ints) -> Tiles:
        """The tiles of rows from each row's first one on, in order."""
        n = self.group.slots
        at = self._turned.take(first % n, axis=0)
        at += (rows * n)[:, None]
        held = self.tiles.take(at) == first[:, None] + np.arange(n)
        row, at = np.nonzero(held)[0], at[held]
        return Tiles(row, self.records.take(at, axis=0), [None if o is None else o.take(at) for o in self.objects])


class RowTable:
    """Rows of one view by number. Not safe for threads; memory grows with the rows it has met.

    `digests` holds, by row, the first word of what Redis is known to hold (0: no row).
    """

    def __init__(self, layout: RowLayout, capacity: int = 1024) -> None:
        self.layout = layout
        self.capacity = capacity
        self.keys: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self.rings = [_Ring(g, capacity) for g in layout.groups]
        self.newest = np.full(capacity, NEVER, np.int64)
        self.digests = np.zeros(capacity, np.uint64)
        self.applied = np.full((capacity, 1), -1, np.int64)
        self.born = np.full((capacity, 1), -1, np.int64)
        self._folder: TableFolder | None = None
        self._encoder: TableEncoder | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def bytes_a_row(self) -> int:
        """Memory that a row takes, without values of any length."""
        return 8 * sum(g.slots * (g.width + sum(c.variable for c in g.components)) for g in self.layout.groups) + 64

    def numbers(self, keys: Sequence[Any]) -> tuple[Ints, Ints]:
        """The row of each key, and the rows that are new and so must be loaded first, if they are anywhere."""
        before, known = len(self.keys), self._numbers
        rows = np.fromiter(map(known.get, keys, repeat(-1)), np.int64, len(keys))
        fresh = np.flatnonzero(rows < 0)
        if len(fresh):
            rows[fresh] = [known.setdefault(keys[i], len(known)) for i in fresh.tolist()]
            self.keys += dict.fromkeys([keys[i] for i in fresh.tolist()])
            self._reserve(len(known))
        return rows, np.arange(before, len(known))

    def forget(self, rows: Ints) -> None:
        """Make rows as if no event had come; they keep their numbers."""
        self.newest[rows], self.digests[rows] = NEVER, 0
        self.applied[rows], self.born[rows] = -1, -1
        for ring in self.rings:
            ring.forget(rows)

    def load(self, rows: Ints, data: Sequence[bytes | None]) -> None:
        """Replace rows by what Redis holds (None: nothing)."""
        self.forget(rows)
        here = [i for i, d in enumerate(data) if d is not None]
        if not here:
            return
        found = [d for d in data if d is not None]
        rows = rows[here]
        self.absorb(rows, found)
        self.digests[rows] = np.fromiter((int.from_bytes(d[:8], "little") for d in found), np.uint64, len(found))

    def absorb(self, rows: Ints, data: Sequence[bytes]) -> None:
        """Merge encoded rows into rows, each of which comes once; none of their events may be in the row already.

        Like all merging it needs no order: a row that is absorbed may itself be of a part of the events alone.
        """
        taken = decode(self.layout, data)
        self._widen(int(taken.partition.max(initial=0)) + 1)
        self.newest[rows] = np.maximum(self.newest[rows], taken.newest)
        at = (rows[taken.part_row], taken.partition)
        self.born[at] = np.where(self.applied[at] < 0, taken.born, self.born[at])
        self.applied[at] = np.maximum(self.applied[at], taken.applied)
        for ring, tiles in zip(self.rings, taken.groups, strict=True):
            seen = tiles.tile >= ring.group.first_tile(self.newest[rows] + 1)[tiles.row]
            if not seen.all():
                tiles = tiles.take(seen)
            states = dict(enumerate(tiles.states(ring.group)))
            ring.merge(rows[tiles.row], tiles.tile, states, self.newest[rows[tiles.row]] + 1)

    def fold(self, rows: Ints, events: Selected, *, born: int | None = None) -> Ints:
        """Apply events to rows (`rows[i]` is that of event i); those already applied are skipped.

        `born`: the born offset of partitions that a row meets for the first time; None: the
        offset of the first such event. Returns the rows that changed, rising.
        """
        self._widen(int(events.partition.max(initial=0)) + 1)
        fresh = events.offset > self.applied[rows, events.partition]
        if not fresh.all():
            rows, events = rows[fresh], events.take(fresh)
        if not len(rows):
            return rows
        if (native := library()) is not None:
            self._folder = self._folder or TableFolder(native, self.rings)
            touched = self._folder.fold(rows, events, self._marks, born)
            parts = [ring.others for ring in self.rings]
            if not any(parts):
                return touched
        else:
            parts = [tuple(range(len(group.components))) for group in self.layout.groups]
        order = _order(rows, events)
        row, time = rows[order], events.time[order]
        starts = _starts(row[1:] != row[:-1])
        touched = row[starts]
        if native is None:
            self.newest[touched] = np.maximum(self.newest[touched], np.maximum.reduceat(time, starts))
            self._apply(rows, events, born)
        self._merge_tiles(row, time, Runs(events, order, starts), parts)
        return touched

    def claim_born(self, rows: Ints, claims: Sequence[Mapping[int, int]]) -> None:
        """Take the born offsets (by partition) that rows claim, where events of the partition were applied."""
        for row, claim in zip(rows.tolist(), claims, strict=True):
            for partition, born in claim.items():
                if partition < self.applied.shape[1] and self.applied[row, partition] >= 0:
                    self.born[row, partition] = born

    def encode(self, rows: Ints) -> tuple[list[memoryview], NDArray[np.uint64]]:
        """The bytes of rows and their digests; `digests` stays what Redis holds until `written`."""
        written = self._written(rows, None)
        if written is None:
            return encode(self.layout, self._taken(rows))
        out, ends, digests = written
        view = memoryview(out.data)
        return [view[a:b] for a, b in pairwise([0, *ends.tolist()])], digests

    def framed(self, rows: Ints, frames: Frames) -> tuple[memoryview, Ints, NDArray[np.uint64]]:
        """The bytes of rows with their frames, behind each other; where each ends; and the rows' digests."""
        written = self._written(rows, frames)
        if written is not None:
            out, ends, digests = written
            return memoryview(out.data), ends, digests
        values, digests = encode(self.layout, self._taken(rows))
        data, edges = frames.around(values)
        return memoryview(data), np.array(edges, np.int64), digests

    def _written(self, rows: Ints, frames: Frames | None) -> tuple[NDArray[np.uint8], Ints, NDArray[np.uint64]] | None:
        """By the compiled encoder, where it is there."""
        if (native := library()) is None or len(self.rings) > MOST_GROUPS:
            return None
        self._encoder = self._encoder or TableEncoder(native, self.layout, self.rings)
        return self._encoder.encode(rows, self._marks, frames)

    @property
    def _marks(self) -> Marks:
        return Marks(self.newest, self.born, self.applied)

    def _taken(self, rows: Ints) -> Rows:
        read_at = self.newest[rows] + 1
        present = self.applied[rows] >= 0
        part_row, partition = np.nonzero(present)
        return Rows(
            self.newest[rows], part_row, partition.astype(np.int64),
            self.born[rows][present], self.applied[rows][present],
            [ring.gather(rows, ring.group.first_tile(read_at)) for ring in self.rings],
        )  # fmt: skip

    def _apply(self, rows: Ints, events: Selected, born: int | None) -> None:
        first = self.applied[rows, events.partition] < 0
        if first.any():
            at = (rows[first], events.partition[first])
            if born is None:
                self.born[at] = 2**62
                np.minimum.at(self.born, at, events.offset[first])
            else:
                self.born[at] = born
        np.maximum.at(self.applied, (rows, events.partition), events.offset)

    def _merge_tiles(self, row: Ints, time: Ints, runs: Runs, parts: Sequence[Sequence[int]]) -> None:
        """Merge sorted events into tiles. `parts`: for each ring the numbers of the components to be merged."""
        done: dict[Component, tuple[int, Ints, States]] = {}
        # Finest hops first: a coarser hop, and the lifetime, merge what a finer one reduced.
        for ring, numbers in sorted(zip(self.rings, parts, strict=True), key=lambda r: r[0].group.hop or 2**62):
            if not numbers:
                continue
            group = ring.group
            tile = group.tile(time)
            starts = _starts((row[1:] != row[:-1]) | (tile[1:] != tile[:-1]))
            mine = Runs(runs.selected, runs.order, starts, runs.memo)
            states = {i: _reduced(group.components[i], group.hop, mine, done) for i in numbers}
            r, t = row[starts], tile[starts]
            seen = t >= group.first_tile(self.newest[r] + 1)
            if not seen.all():
                r, t, states = r[seen], t[seen], {i: s.take(seen) for i, s in states.items()}
            if len(r):
                ring.merge(r, t, states, self.newest[r] + 1)

    def _reserve(self, rows: int) -> None:
        if rows <= self.capacity:
            return
        more = max(rows, 2 * self.capacity) - self.capacity
        self.newest = np.concatenate([self.newest, np.full(more, NEVER, np.int64)])
        self.digests = np.concatenate([self.digests, np.zeros(more, np.uint64)])
        gap = np.full((more, self.applied.shape[1]), -1, np.int64)
        self.applied, self.born = np.concatenate([self.applied, gap]), np.concatenate([self.born, gap])
        self.capacity += more
        for ring in self.rings:
            ring.grow(self.capacity)

    def _widen(self, partitions: int) -> None:
        if partitions > self.applied.shape[1]:
            gap = np.full((self.capacity, partitions - self.applied.shape[1]), -1, np.int64)
            self.applied = np.concatenate([self.applied, gap], axis=1)
            self.born = np.concatenate([self.born, gap], axis=1)


def _reduced(
    component: Component, hop: int | None, runs: Runs, done: dict[Component, tuple[int, Ints, States]]
) -> States:
    """The states of a component for these runs, of a finer hop's where it divides this one."""
    known = done.get(component)
    if known is not None and (hop is None or hop % known[0] == 0):
        return component.merge_runs(known[2], np.searchsorted(known[1], runs.starts))
    states = component.reduce(runs)
    if hop is not None:
        done[component] = (hop, runs.starts, states)
    return states


def _starts(changes: NDArray[np.bool_]) -> Ints:
    return np.flatnonzero(np.concatenate(([True], changes)))


def _order(rows: Ints, events: Selected) -> Ints:
    """The order by (row, event time, partition, offset), by two sorts of packed integers where they fit."""
    n = len(rows)
    in_place = np.lexsort((events.offset, events.partition))
    time = events.time[in_place]
    low, high = int(time.min()), int(time.max())
    bits = n.bit_length()
    if (high - low) >> (63 - bits) or int(rows.max()) >> (63 - bits):
        return np.lexsort((events.offset, events.partition, events.time, rows))
    index, mask = np.arange(n), (1 << bits) - 1
    by_time = np.sort((time - low) << bits | index) & mask
    in_place = in_place.take(by_time)
    by_row = np.sort(rows[in_place] << bits | index) & mask
    return np.asarray(in_place.take(by_row), np.int64)
