"""The bytes of a windowed row, version 2. Little endian; whole words of 8 bytes.

====================  ======================================================================
word 0                digest: xxh3_64 of all bytes behind it
word 1                codec version u8 (2), kind u8 (1: windowed; 2: plain, see plain.py),
                      u16 number of source partitions, u32 length of the tail in bytes, unpadded
word 2                the view's state hash
word 3                newest event time, i64 microseconds since the epoch
partitions            3 words each, partition rising: partition, born offset, applied offset
counts                u16 each: tiles of each group; zeros to a full word
groups                lifetime first, then hops rising, each as packed columns (packing.py):
                      the tiles' numbers (event time // hop; 0 for lifetime), rising, then
                      each word of the components
tail                  values of any length, group by group, tile by tile, component by
                      component; zeros to a full word
====================  ======================================================================

A word that stands for a value of any length is offset << 32 | length, the offset counted from
the tail's start, or -1 for none. A row depends on its events alone, so equal events are equal
bytes, on every path.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from headwater.aggregations.components import Component, States, objects_of
from headwater.errors import ReadError
from headwater.plans.plan import CODEC_VERSION
from headwater.rows.layout import Group, RowLayout
from headwater.rows.packing import Bytes, Packing, places_of, unpack

Ints = NDArray[np.int64]
WINDOWED, PLAIN = 1, 2
HEADER = 4
"""Words before the partitions."""
_HEADER = struct.Struct("<QBBHIQq")


@dataclass(slots=True)
class Tiles:
    """The tiles of one group for many rows: sorted by row, then by tile.

    Attributes:
        row: the row of each tile, int64[m].
        records: int64[m, width], the tile's number and its components' words; those that stand for values of any
            length are 0.
        objects: for each component its values of any length (m bytes or None), or None where it has none.
    """

    row: Ints
    records: Ints
    objects: list[NDArray[Any] | None]

    @property
    def tile(self) -> Ints:
        """The numbers of the tiles."""
        return self.records[:, 0]

    def states(self, group: Group) -> list[States]:
        """The states of each component; views, not copies."""
        columns = zip(group.components, group.offsets, self.objects, strict=True)
        return [States(self.records[:, at : at + c.width], objects) for c, at, objects in columns]

    def take(self, index: NDArray[Any]) -> Tiles:
        """The tiles at `index`."""
        objects = [None if o is None else o[index] for o in self.objects]
        return Tiles(self.row[index], self.records[index], objects)


@dataclass(slots=True)
class Rows:
    """Many rows taken apart: what `encode` takes and `decode` gives.

    `part_row`, `partition`, `born`, `applied` are one a (row, source partition), sorted so.
    """

    newest: Ints
    part_row: Ints
    partition: Ints
    born: Ints
    applied: Ints
    groups: list[Tiles]

    def __len__(self) -> int:
        return len(self.newest)


@dataclass(frozen=True, slots=True)
class RowHeader:
    """What a row says of itself. `partitions`: (partition, born offset, applied offset)."""

    digest: int
    state_hash: str
    newest: int
    partitions: tuple[tuple[int, int, int], ...]


def read_header(data: bytes) -> RowHeader:
    """The header of one row, windowed or plain (a plain row names no partitions).

    Raises:
        ReadError: not a row of this codec version.
    """
    if len(data) < 8 * HEADER:
        raise ReadError(f"A row of {len(data)} bytes is too short to be one: its header has {8 * HEADER}.")
    digest, version, kind, count, _, state_hash, newest = _HEADER.unpack_from(data)
    if version != CODEC_VERSION or kind not in (WINDOWED, PLAIN):
        raise ReadError(f"A row of codec version {version}, kind {kind}; this Headwater reads version {CODEC_VERSION}.")
    if len(data) < 8 * (HEADER + 3 * count):
        raise ReadError(f"A row of {len(data)} bytes is too short for its {count} source partitions.")
    words = struct.unpack_from(f"<{3 * count}q", data, 8 * HEADER)
    partitions = tuple((words[i], words[i + 1], words[i + 2]) for i in range(0, 3 * count, 3))
    return RowHeader(digest, f"{state_hash:016x}", newest, partitions)


def digest_of(data: bytes | memoryview) -> int:
    """The digest that a row's first word must be."""
    return xxhash.xxh3_64_intdigest(data[8:])


def encode(layout: RowLayout, rows: Rows) -> tuple[list[memoryview], NDArray[np.uint64]]:
    """The bytes of many rows, and their digests."""
    n = len(rows)
    parts = np.bincount(rows.part_row, minlength=n)
    counts = np.zeros((n, 4 * layout.count_words), np.uint16)
    for g, tiles in enumerate(rows.groups):
        counts[:, g] = np.bincount(tiles.row, minlength=n)
    tails = tails_of(layout, n, rows.groups) if layout.variable else None
    records = [tiles.records for tiles in rows.groups]
    if tails is not None:
        records = [_pointed(r, pointers) for r, pointers in zip(records, tails.pointers, strict=True)]
    packing = Packing(n, [(tiles.row, r) for tiles, r in zip(rows.groups, records, strict=True)])
    fixed = HEADER + parts * 3 + layout.count_words
    lengths = np.zeros(n, np.int64) if tails is None else tails.lengths
    size = fixed + (packing.sizes + lengths + 7 >> 3)
    ends = np.cumsum(size)
    starts = ends - size
    words = np.zeros(int(ends[-1]) if n else 0, np.int64)
    words[starts + 1] = CODEC_VERSION | WINDOWED << 8 | parts << 16 | lengths << 32
    words[starts + 2] = np.uint64(layout.state_hash).astype(np.int64)
    words[starts + 3] = rows.newest
    to = _places(starts + HEADER, parts, rows.part_row, 3)
    words[to], words[to + 1], words[to + 2] = rows.partition, rows.born, rows.applied
    words[(starts + fixed)[:, None] + np.arange(-layout.count_words, 0)] = counts.view(np.int64)
    raw, first = words.view(np.uint8), 8 * (starts + fixed)
    packing.write(raw, first)
    if tails is not None:
        _put_tails(raw, first + packing.sizes, tails)
    return _finished(words, starts, ends)


def _pointed(records: Ints, pointers: list[tuple[int, Ints]]) -> Ints:
    """Records with what stands for values of any length."""
    if pointers:
        records = records.copy()
        for at, values in pointers:
            records[:, at] = values
    return records


def _put_tails(out: Bytes, first: Ints, tails: Tails) -> None:
    begins = np.cumsum(tails.lengths) - tails.lengths
    for to, begin, length in zip(first.tolist(), begins.tolist(), tails.lengths.tolist(), strict=True):
        out[to : to + length] = tails.joined[begin : begin + length]


def _places(section: Ints, counts: NDArray[Any], row: Ints, width: int) -> Ints:
    """The first word of each record, given where the section of its row begins."""
    ends = np.cumsum(counts, dtype=np.int64)
    return (section - (ends - counts) * width)[row] + np.arange(0, len(row) * width, width)  # type: ignore[no-any-return]


def _blocks(words: Ints, width: int) -> NDArray[np.void]:
    """Every run of `width` words as one item, by its first word: numpy moves a record at once, not word by word."""
    flat = words.reshape(-1)
    return np.ndarray((len(flat) - width + 1,), f"V{8 * width}", flat.data, 0, (8,))


@dataclass(slots=True)
class Tails:
    """The values of any length of many rows.

    Attributes:
        lengths: bytes of each row's tail.
        joined: all tails.
        pointers: for each group (the word's place in a record, what stands there for each tile), by component.
    """

    lengths: Ints
    joined: Bytes
    pointers: list[list[tuple[int, Ints]]]


def tails_of(layout: RowLayout, n: int, groups: Sequence[Tiles]) -> Tails:
    """The tails of n rows; of `groups` the rows and the objects are read."""
    found, at = [], []
    for g, (group, tiles) in enumerate(zip(layout.groups, groups, strict=True)):
        for c, (component, first, objects) in enumerate(
            zip(group.components, group.offsets, tiles.objects, strict=True)
        ):
            if objects is not None:
                found.append((tiles.row, objects))
                at.append((g, c, first + component.width - 1))
    row, items, order = _in_order(found, [(g, c) for g, c, _ in at])
    size = _sizes(items)
    length = np.maximum(size, 0)
    ends = np.cumsum(length)
    lengths = np.bincount(row, length, minlength=n).astype(np.int64)
    pointer = np.where(size < 0, -1, (ends - length - (np.cumsum(lengths) - lengths)[row]) << 32 | length)
    if order is not None:
        pointer[order] = pointer.copy()
    pointers: list[list[tuple[int, Ints]]] = [[] for _ in layout.groups]
    first = 0
    for (g, _, place), (mine, _) in zip(at, found, strict=True):
        pointers[g].append((place, pointer[first : first + len(mine)]))
        first += len(mine)
    joined = np.frombuffer(b"".join([v or b"" for v in items]), np.uint8)
    return Tails(lengths, joined, pointers)


def _in_order(
    found: list[tuple[Ints, NDArray[Any]]], keys: list[tuple[int, int]]
) -> tuple[Ints, list[bytes | None], Ints | None]:
    """Rows and values in the order of the words that stand for them: by row, group, tile and component.

    The order is None where they have it already.
    """
    if len(found) == 1:
        return found[0][0], found[0][1].tolist(), None
    row, items = (np.concatenate([f[i] for f in found]) for i in range(2))
    group, component = (np.repeat([k[i] for k in keys], [len(f[0]) for f in found]) for i in range(2))
    tile = np.concatenate([np.arange(len(f[0])) for f in found])
    order = np.lexsort((component, tile, group, row))
    return row[order], items[order].tolist(), order


def _sizes(items: list[bytes | None]) -> Ints:
    """The length of each value; -1 for none."""
    try:
        return np.fromiter(map(len, items), np.int64, len(items))  # type: ignore[arg-type]
    except TypeError:
        return np.fromiter((-1 if v is None else len(v) for v in items), np.int64, len(items))


def _finished(words: Ints, starts: Ints, ends: Ints) -> tuple[list[memoryview], NDArray[np.uint64]]:
    xxh, view = xxhash.xxh3_64_intdigest, memoryview(words.data).cast("B")
    spans = list(zip((starts * 8).tolist(), (ends * 8).tolist(), strict=True))
    digests = np.array([xxh(view[a + 8 : b]) for a, b in spans], np.uint64)
    words[starts] = digests.view(np.int64)
    return [view[a:b] for a, b in spans], digests


@dataclass(slots=True)
class Sections:
    """Many rows side by side, checked and not yet taken apart.

    Attributes:
        joined, words: all rows' bytes, as bytes and as words.
        newest: newest event time a row.
        partitions: the first of `words` of each row's partitions, and how many it has.
        tiles: the records of all tiles, unpacked, as words.
        groups: for each group the first of `tiles` of each row, and how many tiles it has.
        tail: the first byte of each row's tail.
    """

    joined: bytes
    words: Ints
    newest: Ints
    partitions: tuple[Ints, Ints]
    tiles: Ints
    groups: list[tuple[Ints, Ints]]
    tail: Ints


def sections(layout: RowLayout, data: Sequence[bytes]) -> Sections:
    """Where everything lies in many rows.

    Raises:
        ReadError: bytes that are not a row of this layout.
    """
    n = len(data)
    size = np.fromiter(map(len, data), np.int64, n)
    if (size % 8).any() or (n and int(size.min()) < 8 * (HEADER + layout.count_words)):
        raise ReadError(f"View {layout.view.name!r} has a row whose length is not that of a row.")
    joined = b"".join(data)
    words = np.frombuffer(joined, np.int64)
    starts = (np.cumsum(size) - size) >> 3
    kind, own = words[starts + 1] & 0xFFFF, np.uint64(layout.state_hash).astype(np.int64)
    if (kind != CODEC_VERSION | WINDOWED << 8).any() or (words[starts + 2] != own).any():
        raise ReadError(f"View {layout.view.name!r} has a row of another codec version or definition.")
    parts, lengths = words[starts + 1] >> 16 & 0xFFFF, words[starts + 1] >> 32 & 0xFFFFFFFF
    section = starts + HEADER + parts * 3
    if ((section - starts + layout.count_words) * 8 > size).any():
        raise misfit(layout)
    counts = words[section[:, None] + np.arange(layout.count_words)].view(np.uint16)[:, : len(layout.groups)]
    counts = np.ascontiguousarray(counts, np.int64)
    ends = starts * 8 + size
    tiles, tail = unpack(joined, (section + layout.count_words) * 8, ends, counts, layout.widths)
    if ((tail < 0) | (tail + lengths + 7 & -8 != ends)).any():
        raise misfit(layout)
    first = places_of(counts, layout.widths)
    groups = [(first[:, g], counts[:, g]) for g in range(len(layout.groups))]
    return Sections(joined, words, words[starts + 3], (starts + HEADER, parts), tiles, groups, tail)


def misfit(layout: RowLayout) -> ReadError:
    """What to raise for a row that its own counts do not describe."""
    return ReadError(f"View {layout.view.name!r} has a row whose counts do not fit its length.")


def decode(layout: RowLayout, data: Sequence[bytes]) -> Rows:
    """Many rows taken apart; `row` in the result counts in the order given.

    Raises:
        ReadError: bytes that are not a row of this layout.
    """
    s = sections(layout, data)
    row, to = records(*s.partitions, 3)
    out = Rows(s.newest, row, s.words[to], s.words[to + 1], s.words[to + 2], [])
    for group, place in zip(layout.groups, s.groups, strict=True):
        out.groups.append(_tiles(s, group, *records(*place, group.width)))
    return out


def _tiles(s: Sections, group: Group, row: Ints, to: Ints) -> Tiles:
    if not len(to):
        none = [objects_of([]) if c.variable else None for c in group.components]
        return Tiles(row, np.empty((0, group.width), np.int64), none)
    found = _blocks(s.tiles, group.width).take(to).view(np.int64).reshape(-1, group.width)
    objects: list[NDArray[Any] | None] = []
    for component, at in zip(group.components, group.offsets, strict=True):
        last = at + component.width - 1
        objects.append(_objects(s, row, found[:, last]) if component.variable else None)
        if component.variable:
            found[:, last] = 0
    return Tiles(row, found, objects)


def records(section: Ints, counts: Ints, width: int) -> tuple[Ints, Ints]:
    """Which row each record belongs to, and its first word."""
    row = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return row, section[row] + (np.arange(len(row)) - before[row]) * width


def states_at(s: Sections, component: Component, row: Ints, to: Ints) -> States:
    """A component's states: those of `row[i]` begin at word `to[i]`."""
    words = s.tiles[to[:, None] + np.arange(component.width)]
    if not component.variable:
        return States(words)
    objects = _objects(s, row, words[:, -1])
    words[:, -1] = 0
    return States(words, objects)


def _objects(s: Sections, row: Ints, pointer: Ints) -> NDArray[Any]:
    """The values that words stand for."""
    first = s.tail[row] + (pointer >> 32)
    ends, joined = first + (pointer & 0xFFFFFFFF), s.joined
    if (pointer >= 0).all():
        return objects_of([joined[a:b] for a, b in zip(first.tolist(), ends.tolist(), strict=True)])
    spans = zip((pointer >= 0).tolist(), first.tolist(), ends.tolist(), strict=True)
    return objects_of([joined[a:b] if there else None for there, a, b in spans])
