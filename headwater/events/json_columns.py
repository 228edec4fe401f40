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
from headwater.events.payloads import Payloads
from headwater.native import library
from headwater.plans.plan import Field

_TYPES = {"int64": 0, "float64": 1, "string": 2, "bool": 3, "timestamp": 4}
MOST_FIELDS = 64
"""More fields than this, or other types, are read in Python."""


class _Field(ctypes.Structure):
    """hw_field of json.c."""

    _fields_ = [
        ("type", ctypes.c_int32), ("wanted", ctypes.c_int32), ("name_length", ctypes.c_int32), ("name", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in ("values", "valid", "starts", "lengths", "slots", "hashes")),
        ("slot_mask", ctypes.c_int64), ("count", ctypes.c_int64),
    ]  # fmt: skip


class JsonColumns:
    """Reads the events of one source. `wanted`: the fields whose values are given; all are checked."""

    def __init__(self, native: ctypes.CDLL, fields: Sequence[Field], wanted: Collection[str]) -> None:
        self._read = native.hw_read_json
        self._fields = list(fields)
        self._wanted = [f.name in wanted for f in fields]
        self._names = [f.name.encode() for f in fields]

    @classmethod
    def of(cls, fields: Sequence[Field], wanted: Collection[str]) -> JsonColumns | None:
        """A reader; None where there is no compiled library, or it cannot read such a source."""
        native = library()
        if native is None or len(fields) > MOST_FIELDS or any(f.dtype not in _TYPES for f in fields):
            return None
        return cls(native, fields, wanted)

    def read(self, payloads: Payloads) -> tuple[dict[str, Column], NDArray[np.int64]]:
        """The wanted columns, an item a record, and which records are odd (rising): their values mean nothing."""
        n = len(payloads)
        odd, scratch = np.empty(n, np.uint8), np.empty(len(payloads.data), np.uint8)
        arrays: list[dict[str, NDArray[Any]]] = []
        fields = (_Field * len(self._fields))()
        for field, f, name, wanted in zip(fields, self._fields, self._names, self._wanted, strict=True):
            mine: dict[str, NDArray[Any]] = {"values": np.empty(n, np.int64), "valid": np.empty(n, np.uint8)}
            if f.dtype == "string" and wanted:
                slots = 1 << max(2 * n, 1).bit_length()
                mine |= {"starts": np.empty(n, np.int64), "lengths": np.empty(n, np.int64)}
                mine |= {"hashes": np.empty(n, np.uint64), "slots": np.zeros(slots, np.int32)}
                field.slot_mask = slots - 1
            field.type, field.wanted, field.name, field.name_length = _TYPES[f.dtype], wanted, name, len(name)
            for attribute, array in mine.items():
                setattr(field, attribute, array.ctypes.data)
            arrays.append(mine)
        count = self._read(
            ctypes.c_void_p(payloads.data.ctypes.data), ctypes.c_void_p(payloads.ends.ctypes.data), ctypes.c_int64(n),
            fields, ctypes.c_int32(len(fields)), ctypes.c_void_p(odd.ctypes.data), ctypes.c_void_p(scratch.ctypes.data),
        )  # fmt: skip
        assert count >= 0
        columns = {}
        for field, f, mine, wanted in zip(fields, self._fields, arrays, self._wanted, strict=True):
            if wanted:
                valid = mine["valid"].view(np.bool_)
                values = _values(f.dtype, mine, field.count, payloads.data, scratch)
                columns[f.name] = Column(f.dtype, values, None if valid.all() else valid)
        return columns, np.flatnonzero(odd) if count else np.empty(0, np.int64)


def _values(
    dtype: str, mine: dict[str, NDArray[Any]], count: int, data: NDArray[np.uint8], scratch: NDArray[np.uint8]
) -> NDArray[Any]:
    values = mine["values"]
    if dtype == "float64":
        return values.view(np.float64)
    if dtype == "bool":
        return np.asarray(values != 0)
    if dtype != "string":
        return values
    # The last one is the filler of nulls, whose code is -1.
    texts = np.full(count + 1, "", object)
    whole, unescaped = data.data, scratch.data
    spans = zip(mine["starts"][:count].tolist(), mine["lengths"][:count].tolist(), strict=True)
    texts[:count] = [
        str(whole[start : start + size], "utf-8") if start >= 0 else str(unescaped[~start : ~start + size], "utf-8")
        for start, size in spans
    ]
    return texts.take(values)
