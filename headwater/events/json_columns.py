"""JSON events -> columns by the compiled reader, which takes what is plain and leaves the rest to decode.py.

The reader takes an event only where decode.py would take it with the same values (tests/events/test_native_json.py
compares them); what it calls odd says nothing of the event but that Python has to look at it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.dtypes import element_of, is_list
from headwater.events.lists import object_array, split
from headwater.events.payloads import Payloads
from headwater.native import address_of, library
from headwater.plans.plan import Field

_OF_TEXTS = ("starts", "lengths", "hashes")
_TYPES = {"int64": 0, "float64": 1, "string": 2, "bool": 3, "timestamp": 4}
MOST_FIELDS = 64
"""More fields than this, or other types, are read in Python."""


class _Field(ctypes.Structure):
    """hw_field of json.c."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("type", "wanted", "list", "name_length")), ("name", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in ("values", "valid", "starts", "lengths", "slots", "hashes")),
        ("slot_mask", ctypes.c_int64), ("count", ctypes.c_int64), ("length", ctypes.c_int64),
        ("firsts", ctypes.c_void_p),
    ]  # fmt: skip


class JsonColumns:
    """Reads the events of one source. `wanted`: the fields whose values are given; all are checked."""

    def __init__(self, native: ctypes.CDLL, fields: Sequence[Field], wanted: Collection[str]) -> None:
        self._read = native.hw_read_json
        self._fields = list(fields)
        self._wanted = [f.name in wanted for f in fields]
        self._names = [f.name.encode() for f in fields]  # what the structures point to
        self._structures = (_Field * len(fields))()
        self._lines: list[dict[str, int]] = []
        lines = 0
        for field, f, name, mine in zip(self._structures, fields, self._names, self._wanted, strict=True):
            field.type, field.wanted, field.list = _TYPES[element_of(f.dtype)], mine, is_list(f.dtype)
            field.length = -1 if f.length is None else f.length
            field.name, field.name_length = name, len(name)
            needed = ["values", *(_OF_TEXTS if f.dtype == "string" and mine else ()), *(["firsts"] * is_list(f.dtype))]
            self._lines.append({attribute: lines + i for i, attribute in enumerate(needed)})
            lines += len(needed)
        self._count = lines

    @classmethod
    def of(cls, fields: Sequence[Field], wanted: Collection[str]) -> JsonColumns | None:
        """A reader; None where there is no compiled library, or it cannot read such a source."""
        native = library()
        if native is None or len(fields) > MOST_FIELDS or any(element_of(f.dtype) not in _TYPES for f in fields):
            return None
        return cls(native, fields, wanted)

    def read(self, payloads: Payloads) -> tuple[dict[str, Column], NDArray[np.int64]]:
        """The wanted columns, an item a record, and which records are odd (rising): their values mean nothing."""
        n, size = len(payloads), len(payloads.data)
        odd, scratch = np.empty(n, np.uint8), np.empty(size, np.uint8)
        # Memory that nothing is written to is never taken, so room for more elements than there are costs nothing.
        store = np.empty(2 * size // 3 + 2 if any(is_list(f.dtype) for f in self._fields) else 0, np.int64)
        # A line a field and purpose, all of them in one piece: asking for memory takes longer than reading few events.
        lines, valid = np.empty((self._count, n), np.int64), np.empty((len(self._fields), n), np.bool_)
        fields, slots = self._told(n, lines, valid)
        count = self._read(
            address_of(payloads.data), address_of(payloads.ends), n, ctypes.addressof(fields), len(fields),
            address_of(odd), address_of(scratch), address_of(store),
        )  # fmt: skip
        del slots
        assert count >= 0
        texts, columns = _Texts(payloads.data, scratch), dict[str, Column]()
        whole: list[bool] = np.asarray(valid.all(axis=1)).tolist()
        for i, (field, f) in enumerate(zip(fields, self._fields, strict=True)):
            if self._wanted[i]:
                mine = {attribute: lines[line] for attribute, line in self._lines[i].items()}
                lists = is_list(f.dtype)
                values = _lists(f.dtype, mine, store, texts) if lists else _values(f.dtype, mine, field.count, texts)
                columns[f.name] = Column(f.dtype, values, None if whole[i] else valid[i])
        return columns, np.flatnonzero(odd) if count else np.empty(0, np.int64)

    def _told(
        self, n: int, lines: NDArray[np.int64], valid: NDArray[np.bool_]
    ) -> tuple[ctypes.Array[_Field], NDArray[np.int32]]:
        """What the reader is told of the fields for n records; and the memory in which it looks for texts it has met."""
        fields = type(self._structures).from_buffer_copy(self._structures)
        size = 1 << max(2 * n, 1).bit_length()
        slots = np.zeros((sum("hashes" in line for line in self._lines), size), np.int32)
        at, valid_at, slots_at = address_of(lines), address_of(valid), address_of(slots)
        for i, (field, mine) in enumerate(zip(fields, self._lines, strict=True)):
            for attribute, line in mine.items():
                setattr(field, attribute, at + 8 * n * line)
            field.valid = valid_at + n * i
            if "hashes" in mine:
                field.slots, field.slot_mask = slots_at, size - 1
                slots_at += 4 * size
        return fields, slots


class _Texts:
    """What the reader's places mean: where a text begins in the data, or ~start in the scratch; and its length."""

    def __init__(self, data: NDArray[np.uint8], scratch: NDArray[np.uint8]) -> None:
        self._whole, self._unescaped = data.data, scratch.data

    def at(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[str]:
        whole, unescaped = self._whole, self._unescaped
        return [
            str(whole[start : start + size], "utf-8") if start >= 0 else str(unescaped[~start : ~start + size], "utf-8")
            for start, size in zip(starts.tolist(), lengths.tolist(), strict=True)
        ]


def _values(dtype: str, mine: dict[str, NDArray[Any]], count: int, texts: _Texts) -> NDArray[Any]:
    if dtype != "string":
        return _typed(dtype, mine["values"])
    # The last one is the filler of nulls, whose code is -1.
    distinct = np.full(count + 1, "", object)
    distinct[:count] = texts.at(mine["starts"][:count], mine["lengths"][:count])
    return distinct.take(mine["values"])


def _lists(dtype: str, mine: dict[str, NDArray[Any]], store: NDArray[np.int64], texts: _Texts) -> NDArray[Any]:
    counts, slots = mine["values"], 2 if dtype == "list[string]" else 1
    # Lists of other columns lie in between.
    before = np.cumsum(counts) - counts
    at = np.repeat(mine["firsts"] - slots * before, counts) + slots * np.arange(counts.sum())
    if slots == 2:
        return object_array(split(texts.at(store[at], store[at + 1]), counts))
    return object_array(split(_typed(element_of(dtype), store[at]).tolist(), counts))


def _typed(dtype: str, slots: NDArray[np.int64]) -> NDArray[Any]:
    if dtype == "float64":
        return slots.view(np.float64)
    return np.asarray(slots != 0) if dtype == "bool" else slots
