"""Packed records: a state of several entries as bytes in words of 8, and the entries of many states as arrays.

Apart from the components because all that hold lists, sets or counts of values share it. Little endian. Records of
fixed width lie behind each other, and their number follows from the length. Where an entry ends with a value of any
length::

    word 0       number of records k
    k records    `width` words each, the last of which is the value's length in bytes
    then         the values' bytes in the order of the records, zeros to a full word

A state without records is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_PADS = [b"\0" * n for n in range(8)]


@dataclass(slots=True)
class Records:
    """Records of many states: `row` says whose each is, rising; `words` is (m, width) int64.

    `values`: bytes a record, where records end with a value of any length (its word is then the length).
    """

    row: Ints
    words: Ints
    values: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: NDArray[Any]) -> Records:
        """The records at `index`."""
        return Records(self.row[index], self.words[index], None if self.values is None else self.values[index])

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """The records of several parts, those of one state in the order of the parts."""
        row = np.concatenate([p.row for p in parts])
        # Parts are sorted by row, so a stable sort only merges them.
        order = np.argsort(row, kind="stable")
        values = [p.values for p in parts if p.values is not None]
        words = np.concatenate([p.words for p in parts])
        return cls(row[order], words[order], np.concatenate(values)[order] if values else None)


def ranks(row: Ints) -> Ints:
    """How many records of its own state lie before each record; `row` rises."""
    changes = np.ones(len(row), np.bool_)
    changes[1:] = row[1:] != row[:-1]
    starts = np.flatnonzero(changes)
    return np.arange(len(row)) - np.repeat(starts, np.diff(np.append(starts, len(row))))


def merged(old: Records, new: Records, n: int, keys: Sequence[int], value: int, law: np.ufunc) -> Records:
    """Two parts of n states, each sorted by row and keys, as one: the values of one key are combined by `law`.

    `new` is the shorter part: each of its records is sought in its own row by halving. No part has a key twice.
    """
    at, known = _sought(old, new, n, keys)
    words = old.words.copy()
    words[at[known], value] = law(words[at[known], value], new.words[known, value])
    rest = ~known
    return Records(np.insert(old.row, at[rest], new.row[rest]), np.insert(words, at[rest], new.words[rest], axis=0))


def added(records: Records) -> Records:
    """Records of (value, count) with each value of a state once, rising, its counts added; `row` rises."""
    order = np.lexsort((records.words[:, 0], records.row))
    row, words = records.row[order], records.words[order]
    first = np.ones(len(row), np.bool_)
    first[1:] = (row[1:] != row[:-1]) | (words[1:, 0] != words[:-1, 0])
    starts = np.flatnonzero(first)
    counts = np.add.reduceat(words[:, 1], starts) if len(starts) else words[:, 1]
    return Records(row[starts], np.stack([words[starts, 0], counts], axis=1))


def _sought(old: Records, new: Records, n: int, keys: Sequence[int]) -> tuple[Ints, NDArray[np.bool_]]:
    """Where in `old` each new record stands or would stand, and whether its key is there."""
    ends = np.cumsum(np.bincount(old.row, minlength=n))
    low, high = np.concatenate([[0], ends])[new.row], ends[new.row]
    last = high.copy()
    while len(open_ := np.flatnonzero(low < high)):
        middle = (low[open_] + high[open_]) >> 1
        before = _compared(old.words[middle], new.words[open_], keys) < 0
        low[open_], high[open_] = np.where(before, middle + 1, low[open_]), np.where(before, high[open_], middle)
    known = low < last
    known[known] = _compared(old.words[low[known]], new.words[known], keys) == 0
    return low, known


def _compared(a: Ints, b: Ints, keys: Sequence[int]) -> NDArray[np.int8]:
    """-1, 0 or 1 a record, by the first key that differs."""
    out = np.zeros(len(a), np.int8)
    for key in reversed(keys):
        x, y = a[:, key], b[:, key]
        out = np.where(x == y, out, np.where(x < y, np.int8(-1), np.int8(1)))
    return out


def unpack(packed: NDArray[Any], width: int, *, valued: bool = False) -> Records:
    """The records of many packed states; `valued` where they end with values of any length."""
    states = packed.tolist()
    data = b"".join([p for p in states if p is not None])
    words = np.frombuffer(data, "<i8").astype(np.int64, copy=False)
    sizes = np.fromiter((0 if p is None else len(p) >> 3 for p in states), np.int64, len(states))
    if not valued:
        return Records(np.repeat(np.arange(len(states)), sizes // width), words.reshape(-1, width))
    there = np.flatnonzero(sizes)
    first = (np.cumsum(sizes) - sizes)[there]
    counts = words[first]
    row, to = np.repeat(there, counts), _places(first + 1, counts, width)
    found = words[to[:, None] + np.arange(width)]
    lengths = found[:, -1]
    before = np.cumsum(lengths) - lengths
    bases = (first + 1 + counts * width) * 8 - before[np.cumsum(counts) - counts]
    begin = before + np.repeat(bases, counts)
    cuts = zip(begin.tolist(), (begin + lengths).tolist(), strict=True)
    return Records(row, found, objects_of_values([data[a:b] for a, b in cuts]))


def pack(records: Records, n: int) -> NDArray[Any]:
    """The packed states 0 to n - 1, None for those without records."""
    if records.values is not None:
        return _pack_valued(records, n)
    data = np.ascontiguousarray(records.words, "<i8").tobytes()
    ends = np.cumsum(np.bincount(records.row, minlength=n)) * (8 * records.words.shape[1])
    cuts = ends.tolist()
    out = np.empty(n, object)
    out[:] = [data[a:b] if b > a else None for a, b in zip([0, *cuts], cuts, strict=False)]
    return out


def _pack_valued(records: Records, n: int) -> NDArray[Any]:
    assert records.values is not None
    width, counts = records.words.shape[1], np.bincount(records.row, minlength=n)
    there = np.flatnonzero(counts)
    counts = counts[there]
    sizes = 1 + counts * width
    ends = np.cumsum(sizes)
    words = np.zeros(int(ends[-1]) if len(ends) else 0, "<i8")
    first = ends - sizes
    words[first] = counts
    words[_places(first + 1, counts, width)[:, None] + np.arange(width)] = records.words
    data, values = words.tobytes(), records.values.tolist()
    lengths = np.add.reduceat(records.words[:, -1], np.cumsum(counts) - counts) if len(there) else counts
    cuts = zip((first * 8).tolist(), (ends * 8).tolist(), strict=True)
    spans = zip((np.cumsum(counts) - counts).tolist(), np.cumsum(counts).tolist(), (-lengths % 8).tolist(), strict=True)
    out = np.full(n, None, object)
    out[there] = objects_of_values(
        [b"".join((data[a:b], *values[c:d], _PADS[pad])) for (a, b), (c, d, pad) in zip(cuts, spans, strict=True)]
    )
    return out


def _places(first: Ints, counts: Ints, width: int) -> Ints:
    """The first word of each record, given where each state's records begin."""
    before = np.cumsum(counts) - counts
    return np.repeat(first - before * width, counts) + np.arange(int(counts.sum())) * width


def objects_of_values(items: list[bytes]) -> NDArray[Any]:
    """A one-dimensional array of bytes values."""
    out = np.empty(len(items), object)
    out[:] = items
    return out
