"""The values of one row's windows: the cheapest path for a request of few keys.

Apart from many_rows.py because numpy's calls cost more than their work here: a window's tiles are one matrix that
the row's packed columns are unpacked to, three reductions serve every feature in it, and the rest are Python's own numbers.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import States, objects_of
from headwater.aggregations.numbers import INT64_MAX, INT64_MIN, to_int
from headwater.errors import ReadError
from headwater.plans.plan import CODEC_VERSION
from headwater.rows.codec import HEADER, WINDOWED, misfit
from headwater.rows.layout import Group
from headwater.rows.packing import RowUnpacking
from headwater.rows.window_reads import ExtremeRead, OtherRead, SumRead, WindowRead, WindowReads, seen_states

_HEAD = struct.Struct("<8xBBHIQq")
_NARROW = 2**47
"""Sums of at most 65,535 words (a group's tiles) below this cannot wrap."""


class OneRow:
    """Reads the windows of one row at a time."""

    def __init__(self, reads: WindowReads) -> None:
        self._reads = reads
        self._layout = layout = reads.layout
        self._counts = struct.Struct(f"<{4 * layout.count_words}H")
        self._widths = [g.width for g in layout.groups]
        self._unpacking = RowUnpacking(layout.widths)

    def read(self, row: bytes, as_of: int) -> tuple[list[Any], int, int]:
        """The values in the order of the names, the effective time, and the newest event's time.

        Raises:
            ReadError: bytes that are not a row of this view, or a sum past 64 bits.
        """
        newest, tail, words, sections = self._sections(row)
        at = as_of if as_of > newest else newest + 1
        out: list[Any] = self._reads.absent()
        for window in self._reads.windows:
            start, count = sections[window.number]
            if count:
                tiles = _seen(window, words, start, count, at)
                if len(tiles):
                    self._read_window(window, tiles, row, tail, at, out)
        return out, at, newest

    def _sections(self, row: bytes) -> tuple[int, int, NDArray[np.int64], list[tuple[int, int]]]:
        """The newest time, the tail's first byte, the words of all tiles, and for each group its first and how many tiles."""
        layout, size = self._layout, len(row)
        if size % 8 or size < 8 * (HEADER + layout.count_words):
            raise ReadError(f"View {layout.view.name!r} has a row whose length is not that of a row.")
        version, kind, parts, tail_length, state_hash, newest = _HEAD.unpack_from(row)
        if (version, kind, state_hash) != (CODEC_VERSION, WINDOWED, layout.state_hash):
            raise ReadError(f"View {layout.view.name!r} has a row of another codec version or definition.")
        place = 8 * (HEADER + 3 * parts)
        if place + 8 * layout.count_words > size:
            raise misfit(layout)
        counts = self._counts.unpack_from(row, place)[: len(self._widths)]
        sections, words_before = [], 0
        for width, count in zip(self._widths, counts, strict=True):
            sections.append((words_before, count))
            words_before += width * count
        words, tail = self._unpacking.unpack(row, place, counts, place + 8 * layout.count_words, words_before)
        if tail < 0 or (tail + tail_length + 7) // 8 * 8 != size:
            raise misfit(layout)
        return newest, tail, words, sections

    def _read_window(
        self, window: WindowRead, tiles: NDArray[np.int64], row: bytes, tail: int, at: int, out: list[Any]
    ) -> None:
        if window.bulk:
            if len(tiles) == 1:
                total = most = least = tiles[0].tolist()
            else:
                total = np.add.reduce(tiles, 0).tolist()
                most, least = np.maximum.reduce(tiles, 0).tolist(), np.minimum.reduce(tiles, 0).tolist()
            for to, counter in window.counts:
                out[to] = total[counter]
            for read in window.sums:
                if count := total[read.counter]:
                    low = read.low
                    narrow = least[low] >= 0 and most[low] < _NARROW and most[low + 1] == 0 == least[low + 1]
                    out[read.to] = self._sum(read, count, total[low] if narrow else _exact(tiles, low))
            _read_extremes(window.extremes, total, most, least, out)
        for other in window.others:
            out[other.to] = self._other(window.group, other, tiles, row, tail, at)

    def _sum(self, read: SumRead, count: int, total: int) -> float | int:
        # Python's true division of integers is correctly rounded, as `quotients` is.
        if read.mean:
            return total / (count * read.unit)
        if read.unit:
            return total / read.unit
        if not INT64_MIN <= total <= INT64_MAX:
            self._reads.finished(read.feature, _TOO_WIDE)
        return total

    def _other(self, group: Group, read: OtherRead, tiles: NDArray[np.int64], row: bytes, tail: int, at: int) -> Any:
        states = []
        for number in read.place.components:
            component, first = group.components[number], group.offsets[number]
            state = States(tiles[:, first : first + component.width])
            if component.variable:
                pointers = state.words[:, -1].tolist()
                state = States(state.words.copy(), objects_of([_value(row, tail, p) for p in pointers]))
                state.words[:, -1] = 0
            state = state if len(tiles) == 1 else component.merge_runs(state, _FIRST)
            states.append(seen_states(read.feature, component, state, np.array([at])))
        return self._reads.finished(read.feature, states)[0]


def _seen(window: WindowRead, words: NDArray[np.int64], first: int, count: int, at: int) -> NDArray[np.int64]:
    """The records of the tiles that the window sees; tiles lie in rising order."""
    width = window.group.width
    tiles = words[first : first + count * width].reshape(count, width)
    if window.group.hop is None or window.window is None:
        return tiles
    return tiles[int(tiles[:, 0].searchsorted((at - window.window) // window.group.hop)) :]


def _exact(tiles: NDArray[np.int64], low: int) -> int:
    return sum(map(to_int, tiles[:, low].tolist(), tiles[:, low + 1].tolist()))


_TOO_WIDE = [States(np.array([[1]])), States(np.array([[0, 1]]))]
"""A count and a sum of 2**64, over which `finish` says what is wrong."""


def _read_extremes(
    reads: list[ExtremeRead], total: list[int], most: list[int], least: list[int], out: list[Any]
) -> None:
    for to, counter, word, greatest, dtype in reads:
        if total[counter]:
            value = most[word] if greatest else least[word]
            if dtype == "float64":
                # The integers sort like the doubles: numbers.to_ordered.
                out[to] = _DOUBLE.unpack(_WORD.pack(value if value >= 0 else value ^ INT64_MAX))[0]
            else:
                out[to] = value != 0 if dtype == "bool" else value


_WORD, _DOUBLE = struct.Struct("<q"), struct.Struct("<d")


_FIRST = np.zeros(1, np.int64)


def _value(row: bytes, tail: int, pointer: int) -> bytes | None:
    if pointer < 0:
        return None
    first = tail + (pointer >> 32)
    return row[first : first + (pointer & 0xFFFFFFFF)]
