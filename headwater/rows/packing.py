"""The tiles of a row as packed columns: each word of a record over all tiles, in as few bytes as it needs.

A group of tiles is a matrix of words, int64[tiles, width]. Most of its columns span few values (numbers of tiles that
follow each other, small counts, sums of cents), so a row holds each column as

====================  ======================================================================
u8                    low half: bytes of an item, 0, 1, 2, 4 or 8; high half: bytes of the base, 0, 1, 2, 4 or 8
base                  unsigned, int64 where it has 8 bytes; 0 where it has none
items                 one a tile, unsigned; a tile's word is base + item, modulo 2**64
====================  ======================================================================

Items have the fewest bytes that hold the difference of the column's largest and smallest word; there is no base where
the words themselves fit in as many, and else the base is the smallest. So equal words are equal bytes. A group
without tiles has no columns.

headwater/native/rows.c packs the rows of a table (native_codec.py) and unpacks all, where it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.native import library

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
_SIZES = (0, 1, 2, 4, 8)
_ITEMS = {size: np.dtype(f"<u{size}") for size in _SIZES[1:]}
_KNOWN = np.zeros(256, np.bool_)
_KNOWN[[item | base << 4 for item in _SIZES for base in _SIZES]] = True


@dataclass(slots=True)
class _Column:
    """One word of all tiles of a group: by run of tiles of one row what it takes, and the items."""

    base: NDArray[np.uint64]
    of_base: Ints
    of_item: Ints
    items: NDArray[np.uint64]


class Packing:
    """The packed groups of n rows, to be written where each row has them.

    Attributes:
        sizes: the bytes of each row's groups, int64[n].
    """

    def __init__(self, n: int, groups: Sequence[tuple[Ints, Ints]]) -> None:
        """`groups`: for each group the rows of its tiles, rising, and their records, int64[tiles, width]."""
        self.sizes = np.zeros(n, np.int64)
        self._groups = []
        for row, records in groups:
            starts = np.flatnonzero(np.diff(row, prepend=-1))
            counts = np.diff(starts, append=len(row))
            columns = [_column(records[:, i], starts, counts) for i in range(records.shape[1])] if len(row) else []
            self._groups.append((row[starts], counts, columns))
            for column in columns:
                self.sizes[row[starts]] += 1 + column.of_base + column.of_item * counts

    def write(self, out: Bytes, first: Ints) -> None:
        """Write each row's groups from its byte `first` on."""
        at = first.copy()
        for held, counts, columns in self._groups:
            for column in columns:
                to = at[held]
                out[to] = column.of_item | column.of_base << 4
                for size in _SIZES[1:]:
                    mine = column.of_base == size
                    _put(out, to[mine] + 1, column.base[mine], size)
                    mine = column.of_item == size
                    each = np.repeat(mine, counts)
                    begins = to[mine] + 1 + column.of_base[mine]
                    _put(out, _items_at(begins, counts[mine], size), column.items[each], size)
                at[held] = to + 1 + column.of_base + column.of_item * counts


def _column(words: Ints, starts: Ints, counts: Ints) -> _Column:
    low, high = np.minimum.reduceat(words, starts), np.maximum.reduceat(words, starts)
    of_item = _bytes_of(high.view(np.uint64) - low.view(np.uint64))
    bare = (of_item == 8) | ((low >= 0) & (_bytes_of(high.view(np.uint64)) == of_item))
    base = np.where(bare, 0, low).view(np.uint64)
    return _Column(base, _bytes_of(base), of_item, words.view(np.uint64) - np.repeat(base, counts))


def _bytes_of(values: NDArray[np.uint64]) -> Ints:
    """The fewest bytes, of those an item may have, that hold each value."""
    limits = np.array([1, 1 << 8, 1 << 16, 1 << 32], np.uint64)
    sizes: Ints = np.array(_SIZES, np.int64)[np.searchsorted(limits, values, side="right")]
    return sizes


def _items_at(begins: Ints, counts: Ints, size: int) -> Ints:
    """The first byte of each item, given where the items of each column begin."""
    before = np.cumsum(counts) - counts
    places: Ints = np.repeat(begins - before * size, counts) + np.arange(int(counts.sum())) * size
    return places


def _put(out: Bytes, to: Ints, values: NDArray[np.uint64], size: int) -> None:
    if len(to):
        out[to[:, None] + np.arange(size)] = values.reshape(-1, 1).view(np.uint8)[:, :size]


def places_of(counts: Ints, widths: Ints) -> Ints:
    """Where `unpack` puts the words of each row and group, int64[n, groups]."""
    sizes = counts * widths
    places: Ints = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
    return places


def unpack(rows: bytes, first: Ints, ends: Ints, counts: Ints, widths: Ints) -> tuple[Ints, Ints]:
    """The words of many rows' groups, row by row and group by group; and the byte behind each row's groups.

    Args:
        rows: all rows' bytes.
        first, ends: where each row's groups begin, and where the row ends.
        counts: how many tiles each row has of each group, int64[n, groups].
        widths: words of each group's records.

    Returns:
        The words and, for each row, the byte behind its groups: -1 where the bytes are not packed groups.
    """
    words, tails = np.empty(int((counts * widths).sum()), np.int64), first.copy()
    if (native := library()) is not None:
        native.hw_unpack(
            rows, *(c_void_p(a.ctypes.data) for a in (first, ends, counts, widths)),
            c_int64(len(widths)), c_int64(len(first)), *(c_void_p(a.ctypes.data) for a in (words, tails)),
        )  # fmt: skip
        return words, tails
    raw, to = np.frombuffer(rows, np.uint8), places_of(counts, widths)
    for g, width in enumerate(widths.tolist()):
        for column in range(width):
            held = np.flatnonzero((counts[:, g] > 0) & (tails >= 0))
            tails[held] = _unpack_column(
                raw, tails[held], ends[held], counts[held, g], words, to[held, g] + column, width
            )
    return words, tails


def _unpack_column(raw: Bytes, at: Ints, ends: Ints, counts: Ints, words: Ints, to: Ints, width: int) -> Ints:
    """Put one column of many rows into `words`; the byte behind each, or -1."""
    there = at < ends
    mark = np.where(there, raw.take(at, mode="clip"), 0).astype(np.int64)
    of_item, of_base = mark & 15, mark >> 4
    behind = at + 1 + of_base + of_item * counts
    good = there & _KNOWN[mark] & (behind <= ends)
    base = np.zeros(len(at), np.uint64)
    for size in _SIZES[1:]:
        mine = good & (of_base == size)
        base[mine] = _take(raw, at[mine] + 1, size)
    for size in _SIZES:
        mine = good & (of_item == size)
        if not mine.any():
            continue
        places = _items_at(to[mine], counts[mine], width)
        values = np.repeat(base[mine], counts[mine])
        if size:
            values += _take(raw, _items_at(at[mine] + 1 + of_base[mine], counts[mine], size), size)
        words[places] = values.view(np.int64)
    return np.where(good, behind, -1)


def _take(raw: Bytes, at: Ints, size: int) -> NDArray[np.unsignedinteger[Any]]:
    taken: NDArray[np.unsignedinteger[Any]] = raw[at[:, None] + np.arange(size)].view(_ITEMS[size]).ravel()
    return taken


class RowUnpacking:
    """`unpack` for one row at a time, whose calls cost more than their work: what they all need is kept."""

    def __init__(self, widths: Ints) -> None:
        self._array, self._widths = widths, widths.tolist()
        self._native, self._widths_at = library(), widths.ctypes.data

    def unpack(self, row: bytes, counts_at: int, counts: Sequence[int], first: int, size: int) -> tuple[Ints, int]:
        """The words of the row's groups, and the byte behind them (-1: these bytes are not packed groups).

        Args:
            counts_at: where the row has its counts, u16, which are `counts`.
            first: where its groups begin.
            size: how many words these are.
        """
        words = np.empty(size, np.int64)
        if self._native is None:
            return words, self._unpack(row, counts, first, words)
        return words, self._native.hw_unpack_row(
            row, len(row), counts_at, first, self._widths_at, len(counts), words.ctypes.data
        )

    def _unpack(self, row: bytes, counts: Sequence[int], at: int, words: Ints) -> int:
        to, size = 0, len(row)
        for n, width in zip(counts, self._widths, strict=True):
            for column in range(width if n else 0):
                of_item, of_base = (row[at] & 15, row[at] >> 4) if at < size else (0, 9)
                items = at + 1 + of_base
                behind = items + of_item * n
                if of_item not in _SIZES or of_base not in _SIZES or behind > size:
                    return -1
                part = words[to + column : to + n * width : width].view(np.uint64)
                part[:] = int.from_bytes(row[at + 1 : items], "little")
                if of_item:
                    part += np.frombuffer(row, _ITEMS[of_item], n, items)
                at = behind
            to += n * width
        return at
