"""The bytes of a windowed row, version 1. Little endian, in words of 8 bytes.

====================  ======================================================================
word 0                digest: xxh3_64 of all bytes behind it
word 1                codec version u8 (1), kind u8 (1: windowed; 2: plain, see plain.py),
                      u16 number of source partitions, u32 length of the tail in bytes, unpadded
word 2                the view's state hash
word 3                newest event time, i64 microseconds since the epoch
partitions            3 words each, partition rising: partition, born offset, applied offset
counts                u16 each: tiles of each group; zeros to a full word
groups                lifetime first, then hops rising; tiles rising; a tile is its number
                      (event time // hop; 0 for lifetime) and its components' words
tail                  values of any length, in the order of the words that stand for them;
                      zeros to a full word
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

Ints = NDArray[np.int64]
WINDOWED, PLAIN = 1, 2
HEADER = 4
"""Words before the partitions."""
_HEADER = struct.Struct("<QBBHIQq")


@dataclass(slots=True)
class Tiles:
    """The tiles of one group for many rows: sorted by row, then by tile."""

    row: Ints
    tile: Ints
    states: list[States]


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


def encode(layout: RowLayout, rows: Rows) -> tuple[list[bytes | memoryview], NDArray[np.uint64]]:
    """The bytes of many rows, and their digests."""
    n = len(rows)
    parts = np.bincount(rows.part_row, minlength=n)
    counts = np.zeros((n, 4 * layout.count_words), np.uint16)
    for g, tiles in enumerate(rows.groups):
        counts[:, g] = np.bincount(tiles.row, minlength=n)
    sections = counts[:, : len(layout.groups)] * np.array([g.width for g in layout.groups], np.int64)
    size = HEADER + parts * 3 + layout.count_words + sections.sum(axis=1)
    ends = np.cumsum(size)
    starts = ends - size
    words = np.zeros(int(ends[-1]) if n else 0, np.int64)
    words[starts + 2] = np.uint64(layout.state_hash).astype(np.int64)
    words[starts + 3] = rows.newest
    to = _places(starts + HEADER, parts, rows.part_row, 3)
    words[to], words[to + 1], words[to + 2] = rows.partition, rows.born, rows.applied
    section = starts + HEADER + parts * 3
    words[section[:, None] + np.arange(layout.count_words)] = counts.view(np.int64)
    section = section + layout.count_words
    tails: list[tuple[Ints, Ints, NDArray[Any]]] = []
    for g, (group, tiles) in enumerate(zip(layout.groups, rows.groups, strict=True)):
        to = _places(section, counts[:, g], tiles.row, group.width)
        section = section + sections[:, g]
        _write_tiles(words, to, group, tiles, tails)
    lengths, pieces = _write_tails(words, n, tails)
    words[starts + 1] = CODEC_VERSION | WINDOWED << 8 | parts << 16 | lengths << 32
    return _finished(words, starts, ends, lengths, pieces)


def _places(section: Ints, counts: NDArray[Any], row: Ints, width: int) -> Ints:
    """The first word of each record, given where the section of its row begins."""
    ends = np.cumsum(counts, dtype=np.int64)
    return section[row] + (np.arange(len(row)) - (ends - counts)[row]) * width  # type: ignore[no-any-return]


def _write_tiles(
    words: Ints, to: Ints, group: Group, tiles: Tiles, tails: list[tuple[Ints, Ints, NDArray[Any]]]
) -> None:
    words[to] = tiles.tile
    for component, at, states in zip(group.components, group.offsets, tiles.states, strict=True):
        for i in range(component.width):
            words[to + at + i] = states.words[:, i]
        if component.variable:
            assert states.objects is not None
            tails.append((tiles.row, to + at + component.width - 1, states.objects))


def _write_tails(words: Ints, n: int, tails: list[tuple[Ints, Ints, NDArray[Any]]]) -> tuple[Ints, list[list[bytes]]]:
    """Fills in the words that stand for values of any length; the tail's length and pieces of each row."""
    if not tails:
        return np.zeros(n, np.int64), []
    row, to, values = (np.concatenate([t[i] for t in tails]) for i in range(3))
    order = np.argsort(to, kind="stable")
    row, to, items = row[order], to[order], values[order].tolist()
    size = np.fromiter((-1 if v is None else len(v) for v in items), np.int64, len(items))
    length = np.maximum(size, 0)
    ends = np.cumsum(length)
    totals = np.bincount(row, length, minlength=n).astype(np.int64)
    before = np.cumsum(totals) - totals
    words[to] = np.where(size < 0, -1, (ends - length - before[row]) << 32 | length)
    cuts = np.searchsorted(row, np.arange(n + 1)).tolist()
    return totals, [[v for v in items[cuts[i] : cuts[i + 1]] if v] for i in range(n)]


def _finished(
    words: Ints, starts: Ints, ends: Ints, lengths: Ints, pieces: list[list[bytes]]
) -> tuple[list[bytes | memoryview], NDArray[np.uint64]]:
    xxh = xxhash.xxh3_64_intdigest
    spans = list(zip((starts * 8).tolist(), (ends * 8).tolist(), strict=True))
    if not pieces:
        view = memoryview(words.data).cast("B")
        digests = np.array([xxh(view[a + 8 : b]) for a, b in spans], np.uint64)
        words[starts] = digests.view(np.int64)
        return [view[a:b] for a, b in spans], digests
    out: list[bytes | memoryview] = []
    data, found = words.tobytes(), []
    pads = [b"\0" * (-n % 8) for n in range(8)]
    for (a, b), tail, length in zip(spans, pieces, lengths.tolist(), strict=True):
        body = b"".join((data[a + 8 : b], *tail, pads[length % 8]))
        digest = xxh(body)
        found.append(digest)
        out.append(digest.to_bytes(8, "little") + body)
    return out, np.array(found, np.uint64)


@dataclass(slots=True)
class Sections:
    """Many rows side by side, checked and not yet taken apart.

    Attributes:
        joined, words: all rows' bytes, as bytes and as words.
        newest: newest event time a row.
        partitions: the first word of each row's partitions, and how many it has.
        groups: for each group the first word of each row's tiles, and how many it has.
        tail: the first byte of each row's tail.
    """

    joined: bytes
    words: Ints
    newest: Ints
    partitions: tuple[Ints, Ints]
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
    parts, lengths = words[starts + 1] >> 16 & 0xFFFF, words[starts + 1] >> 32
    section = starts + HEADER + parts * 3
    if ((section - starts + layout.count_words) * 8 > size).any():
        raise ReadError(f"View {layout.view.name!r} has a row whose counts do not fit its length.")
    counts = words[section[:, None] + np.arange(layout.count_words)].view(np.uint16).astype(np.int64)
    section = section + layout.count_words
    groups = []
    for g, group in enumerate(layout.groups):
        groups.append((section, counts[:, g]))
        section = section + counts[:, g] * group.width
    if ((section - starts) * 8 + (lengths + 7) // 8 * 8 != size).any():
        raise ReadError(f"View {layout.view.name!r} has a row whose counts do not fit its length.")
    return Sections(joined, words, words[starts + 3], (starts + HEADER, parts), groups, section * 8)


def decode(layout: RowLayout, data: Sequence[bytes]) -> Rows:
    """Many rows taken apart; `row` in the result counts in the order given.

    Raises:
        ReadError: bytes that are not a row of this layout.
    """
    s = sections(layout, data)
    row, to = records(*s.partitions, 3)
    out = Rows(s.newest, row, s.words[to], s.words[to + 1], s.words[to + 2], [])
    for group, place in zip(layout.groups, s.groups, strict=True):
        row, to = records(*place, group.width)
        states = [states_at(s, c, row, to + at) for c, at in zip(group.components, group.offsets, strict=True)]
        out.groups.append(Tiles(row, s.words[to], states))
    return out


def records(section: Ints, counts: Ints, width: int) -> tuple[Ints, Ints]:
    """Which row each record belongs to, and its first word."""
    row = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return row, section[row] + (np.arange(len(row)) - before[row]) * width


def states_at(s: Sections, component: Component, row: Ints, to: Ints) -> States:
    """A component's states: those of `row[i]` begin at word `to[i]`."""
    state = States(s.words[to[:, None] + np.arange(component.width)])
    if component.variable:
        pointer = state.words[:, -1]
        first = (s.tail[row] + (pointer >> 32)).tolist()
        size = (pointer & 0xFFFFFFFF).tolist()
        found = [None if p < 0 else s.joined[a : a + k] for p, a, k in zip(pointer.tolist(), first, size, strict=True)]
        state.objects = objects_of(found)
        state.words = state.words.copy()
        state.words[:, -1] = 0
    return state
