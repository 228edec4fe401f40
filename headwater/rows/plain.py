"""Packed rows of views without windows: one value a feature, as a BatchView's snapshot has them.

Apart from the windowed codec (codec.py) because nothing here is merged or read at a time: a row is
written whole and its values are the answer. The header is the same. Little endian, in words of 8 bytes::

    word         content
    0            xxh3_64 digest of all bytes behind it
    1            byte 0: codec version (2); byte 1: kind (2, plain); bytes 2-3: 0; bytes 4-7: length of the tail
    2            the view's state hash (its 16 hex digits as an unsigned number)
    3            the snapshot's event time, microseconds since the epoch, signed
    4 ...        null bitmap, ceil(n / 64) words for n features: bit i % 64 of word 4 + i // 64 is 1 where
                 feature i is null
    then n       slots in the order of the view's features:
                   int64, timestamp   the value, signed
                   bool               0 or 1
                   float64            the bits of the double (finite, never -0.0)
                   others             offset << 32 | length, offset counted from the tail's start
    then         the tail: the strings (UTF-8), bytes and lists (aggregations/list_values.py) of the row, in the
                 order of the features, unpadded

A null's slot is 0 and it has nothing in the tail, so equal values give equal bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from headwater.aggregations.list_values import pack_list, unpack_list
from headwater.columns import Column
from headwater.dtypes import FIXED
from headwater.errors import ReadError, UsageError, nearest
from headwater.plans.plan import CODEC_VERSION, BatchView
from headwater.rows.reader import RowsRead

KIND = 2
_HEADER = 4
_FORMATS = {"int64": "q", "timestamp": "q", "bool": "q", "float64": "d"}
"""Of the types that fill a slot; the others' slots say where the value lies."""
_MANY = 8
"""From so many rows on, numpy takes less time than struct."""


def encode_plain(view: BatchView, columns: Mapping[str, Column], event_time: int | NDArray[np.int64]) -> list[bytes]:
    """The packed rows of a snapshot: n rows of columns that hold the view's features (others are ignored).

    Args:
        columns: for each feature a Column of its dtype, all of the same length n.
        event_time: microseconds, one for all rows or an array of n.

    Raises:
        UsageError: a feature's column is missing or has another dtype or length.
    """
    slots = len(view.features)
    bitmap = -(-slots // 64)
    cells = [_column_of(view, columns, f.name, f.dtype) for f in view.features]
    length = _common_length(view, cells, event_time)
    words = np.zeros((length, _HEADER + bitmap + slots), "<u8")
    tails, sizes = _tails(cells, words[:, _HEADER + bitmap :])
    words[:, 1] = CODEC_VERSION | KIND << 8 | sizes.astype(np.uint64) << np.uint64(32)
    words[:, 2] = int(view.state_hash, 16)
    words[:, 3] = np.asarray(event_time, np.int64).view(np.uint64)
    for i, cell in enumerate(cells):
        if cell.valid is not None:
            words[:, _HEADER + i // 64] |= (~cell.valid).astype(np.uint64) << np.uint64(i % 64)
    return _sealed(words, tails)


class PlainReader:
    """Decodes packed rows of one view: all features, or the named ones in that order.

    Raises:
        UsageError: a name that the view has no feature of.
    """

    def __init__(self, view: BatchView, names: Sequence[str] | None = None) -> None:
        self._view = view
        slots = [f.name for f in view.features]
        wanted = slots if names is None else list(names)
        for name in wanted:
            if name not in slots:
                raise UsageError(f"Feature view '{view.name}' has no feature '{name}'. {nearest(name, slots)}")
        bitmap = -(-len(slots) // 64)
        first = _HEADER + bitmap
        self._struct = struct.Struct(
            "<QQQq" + "Q" * bitmap + "".join(_FORMATS.get(f.dtype, "Q") for f in view.features)
        )
        self._bitmap = slice(_HEADER, first)
        self._slots = first + len(slots)
        self._names = wanted
        picks = [(name, slots.index(name)) for name in wanted]
        self._picks = [(name, first + i, view.features[i].dtype) for name, i in picks]
        self._pick = _picker([at for _, at, _ in self._picks])
        self._bits = [(_HEADER + i // 64, i % 64) for _, i in picks]
        self._bit_words = np.array([w for w, _ in self._bits], np.intp)
        self._bit_shifts = np.array([b for _, b in self._bits], np.uint64)
        self._special = [(name, kind) for name, _, kind in self._picks if kind == "bool" or kind not in FIXED]
        doubles = [(name, at) for name, at, kind in self._picks if kind == "float64"]
        others = [(name, at) for name, at, kind in self._picks if kind != "float64"]
        self._doubles = [name for name, _ in doubles], np.array([at for _, at in doubles], np.intp)
        self._others = [name for name, _ in others], np.array([at for _, at in others], np.intp)
        self._has_tail = any(f.dtype not in FIXED for f in view.features)
        self._mark = CODEC_VERSION | KIND << 8
        nulls = [2**64 - 1] * bitmap
        zeros = [0.0 if f.dtype == "float64" else 0 for f in view.features]
        self._absent = self._struct.pack(0, self._mark, 0, 0, *nulls, *zeros)

    def read(self, rows: Sequence[bytes | None], as_of: int | Sequence[int]) -> RowsRead:
        """The values of n rows (None: no such row) at `as_of` (microseconds; one for all or one a row).

        Raises:
            ReadError: a row that is damaged or of another codec version.
        """
        try:
            return self._read_many(rows, as_of) if len(rows) >= _MANY else self._read_few(rows, as_of)
        except (struct.error, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error

    def _read_few(self, rows: Sequence[bytes | None], as_of: int | Sequence[int]) -> RowsRead:
        absent, unpack, size = self._absent, self._struct.unpack_from, self._struct.size
        times = [as_of] * len(rows) if isinstance(as_of, int) else as_of
        present = [absent if row is None else row for row in rows]
        fields = [unpack(row) for row in present]
        for row, field in zip(present, fields, strict=True):
            if field[1] & 0xFFFFFFFF != self._mark or len(row) != size + (field[1] >> 32):
                raise self._damaged("its header or its length is not what this version writes")
        columns = list(map(list, zip(*fields, strict=True))) or [[] for _ in range(self._slots)]
        values = dict(zip(self._names, self._pick(columns), strict=True))
        for name, kind in self._special:
            values[name] = self._tail_or_bool(present, values[name], kind)
        newest = [None if row is None else field[3] for row, field in zip(rows, fields, strict=True)]
        effective = [q if t is None or t < q else t + 1 for t, q in zip(newest, times, strict=True)]
        status = [self._status(t, q) for t, q in zip(newest, times, strict=True)]
        for r, field in enumerate(fields):
            if status[r] != "PRESENT":
                for column in values.values():
                    column[r] = None
            elif any(field[self._bitmap]):
                for (name, _, _), (word, bit) in zip(self._picks, self._bits, strict=True):
                    if field[word] >> bit & 1:
                        values[name][r] = None
        return RowsRead(values, effective, status, newest)

    def _read_many(self, rows: Sequence[bytes | None], as_of: int | Sequence[int]) -> RowsRead:
        present = [self._absent if row is None else row for row in rows]
        missing = np.fromiter((row is None for row in rows), np.bool_, len(rows)) if None in rows else None
        words = self._words(present)
        values: dict[str, list[Any]] = {name: [] for name, _, _ in self._picks}
        values.update(zip(self._doubles[0], words.view("<f8")[self._doubles[1]].tolist(), strict=True))
        values.update(zip(self._others[0], words.view("<i8")[self._others[1]].tolist(), strict=True))
        for name, kind in self._special:
            values[name] = self._tail_or_bool(present, values[name], kind)
        times = np.asarray(as_of, np.int64)
        newest = words[3].view("<i8")
        old = None if self._view.ttl is None else newest < times - self._view.ttl
        effective = np.where(newest < times, times, newest + 1)
        if missing is not None:
            effective = np.where(missing, times, effective)
        self._blank(values, words, missing, old)
        return RowsRead(values, effective.tolist(), *self._facts(newest, missing, old))

    def _words(self, rows: list[bytes]) -> NDArray[np.uint64]:
        """The fixed words of the rows, transposed: one contiguous line a word."""
        size = self._struct.size
        lengths = np.fromiter(map(len, rows), np.uint64, len(rows))
        if int(lengths.min()) < size:
            raise self._damaged(f"it has {int(lengths.min())} bytes, fewer than the {size} of its header and slots")
        joined = b"".join([row[:size] for row in rows]) if self._has_tail else b"".join(rows)
        if len(joined) != size * len(rows):
            raise self._damaged("its length is not what its header says")
        words = np.ascontiguousarray(np.frombuffer(joined, "<u8").reshape(len(rows), size // 8).T)
        heads = words[1]
        right = (heads & np.uint64(0xFFFFFFFF) == self._mark) & ((heads >> np.uint64(32)) + np.uint64(size) == lengths)
        if not right.all():
            raise self._damaged("its header or its length is not what this version writes")
        return words

    def _blank(
        self,
        values: dict[str, list[Any]],
        words: NDArray[np.uint64],
        missing: NDArray[np.bool_] | None,
        old: NDArray[np.bool_] | None,
    ) -> None:
        """Put None where a value is null, and everywhere in rows that are missing or too old."""
        nulls = words[self._bit_words] >> self._bit_shifts[:, None] & np.uint64(1) != 0
        if old is not None:
            nulls |= old
        if missing is not None:
            nulls |= missing
        for i in np.flatnonzero(nulls.any(axis=1)).tolist():
            column = values[self._picks[i][0]]
            for r in np.flatnonzero(nulls[i]).tolist():
                column[r] = None

    def _facts(
        self, newest: NDArray[np.int64], missing: NDArray[np.bool_] | None, old: NDArray[np.bool_] | None
    ) -> tuple[list[str], list[int | None]]:
        status = ["PRESENT"] * len(newest)
        times: list[int | None] = newest.tolist()
        if old is not None:
            for r in np.flatnonzero(old).tolist():
                status[r] = "OUTSIDE_MAX_AGE"
        if missing is not None:
            for r in np.flatnonzero(missing).tolist():
                status[r], times[r] = "NOT_FOUND", None
        return status, times

    def _tail_or_bool(self, rows: Sequence[bytes], slots: list[Any], kind: str) -> list[Any]:
        if kind == "bool":
            return [slot != 0 for slot in slots]
        base = self._struct.size
        spans = [(row, base + (slot >> 32), slot & 0xFFFFFFFF) for row, slot in zip(rows, slots, strict=True)]
        if kind == "bytes":
            return [row[start : start + length] for row, start, length in spans]
        if kind == "string":
            return [row[start : start + length].decode() for row, start, length in spans]
        return [unpack_list(row[start : start + length], kind) for row, start, length in spans]

    def _status(self, newest: int | None, as_of: int) -> str:
        if newest is None:
            return "NOT_FOUND"
        ttl = self._view.ttl
        return "PRESENT" if ttl is None or newest >= as_of - ttl else "OUTSIDE_MAX_AGE"

    def _damaged(self, why: str) -> ReadError:
        return ReadError(
            f"A row of feature view '{self._view.name}' cannot be read: {why}. "
            f"Write it again with: headwater materialize {self._view.name}"
        )


def _picker(numbers: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """A function that gives the items at these places: itemgetter, which gives one item alone where it has one."""
    if len(numbers) > 1:
        return itemgetter(*numbers)
    return lambda items: [items[n] for n in numbers]


def _column_of(view: BatchView, columns: Mapping[str, Column], name: str, dtype: str) -> Column:
    column = columns.get(name)
    if column is None:
        raise UsageError(f"Feature view '{view.name}': no column for feature '{name}'. {nearest(name, columns)}")
    if column.dtype != dtype:
        raise UsageError(f"Feature view '{view.name}', feature '{name}': expected {dtype}, got {column.dtype}.")
    return column


def _common_length(view: BatchView, cells: list[Column], event_time: int | NDArray[np.int64]) -> int:
    lengths = {len(c) for c in cells} | ({len(event_time)} if isinstance(event_time, np.ndarray) else set())
    if len(lengths) != 1:
        raise UsageError(f"Feature view '{view.name}': columns of one length expected, got {sorted(lengths)}.")
    return lengths.pop()


def _tails(cells: list[Column], slots: NDArray[np.uint64]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Fill the slots (n rows x features); the rows' tails and their lengths."""
    ends = np.zeros(len(slots), np.int64)
    parts: list[list[bytes]] = []
    for i, cell in enumerate(cells):
        if cell.dtype not in FIXED:
            texts = [b"" if v is None else _in_tail(v, cell.dtype) for v in cell.to_list()]
            sizes = np.fromiter(map(len, texts), np.int64, len(texts))
            slot = ends << 32 | sizes
            ends = ends + sizes
            parts.append(texts)
        elif cell.dtype == "float64":
            slot = np.asarray(cell.values, np.float64).view(np.int64)
        else:
            slot = cell.values.astype(np.int64)
        slots[:, i] = slot.view(np.uint64) if cell.valid is None else np.where(cell.valid, slot, 0).view(np.uint64)
    tails = [b"".join(texts) for texts in zip(*parts, strict=True)] if parts else [b""] * len(slots)
    return tails, ends


def _in_tail(value: Any, dtype: str) -> bytes:
    if isinstance(value, list):
        return pack_list(value, dtype)
    return value.encode() if isinstance(value, str) else bytes(value)


def _sealed(words: NDArray[np.uint64], tails: list[bytes]) -> list[bytes]:
    """Rows with the digest in their first word."""
    body, size, digest = words.tobytes(), words.shape[1] * 8, xxhash.xxh3_64_intdigest
    contents = [body[i * size + 8 : (i + 1) * size] + tail for i, tail in enumerate(tails)]
    return [digest(content).to_bytes(8, "little") + content for content in contents]
