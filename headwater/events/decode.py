"""JSON event bytes -> columns, by the schema of a source.

The rules: an event is a JSON object with the schema's field names. Unknown fields are ignored, missing
ones are null, NaN and infinities are null, timestamps are RFC 3339 or integers of microseconds (without
a zone UTC), bytes are base64. What does not fit (broken JSON, another type, a number outside of 64 bits,
a nesting of more than 100, invalid UTF-8) is a failure with its reason; of lists, `lists.py` says what fits.

A batch is read by the compiled reader where there is one (json_columns.py), and what that calls odd here: in one
sweep, or, when anything in it fails, one by one. All ways decide alike, so what becomes of an event never depends on
the batch that it came in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from headwater.columns import Column, normalised
from headwater.dtypes import is_list
from headwater.events.batch import concat_columns
from headwater.events.json_columns import JsonColumns
from headwater.events.lists import list_column, list_misfit
from headwater.events.payloads import Payloads
from headwater.events.timestamps import parse_timestamps
from headwater.plans.plan import Field, Source

MAX_DEPTH = 100
"""Nesting past this is refused; a parser's own limit would depend on the depth of its caller's stack."""

_BLOCK = 2_000
"""Events that are decoded at once: their objects are gone again before they leave the processor's cache."""

_TYPES: dict[str, Any] = {
    "int64": int, "float64": float, "string": str, "bool": bool, "timestamp": str | int, "bytes": bytes,
}  # fmt: skip
_TYPES |= {f"list[{element}]": list.__class_getitem__(kind) for element, kind in _TYPES.items()}
REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, OverflowError, ValueError, TypeError, RecursionError)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRING_OR_NAN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding a batch gives.

    Attributes:
        index: int64[k], which of the batch's values decoded, rising.
        columns: the source's columns of those, in the order of `index`.
        failures: position in the batch -> why it did not decode.
        ignored: position in the batch -> why it is no event of the source at all (debezium.py).
    """

    index: NDArray[np.int64]
    columns: dict[str, Column]
    failures: dict[int, str] = field(default_factory=dict)
    ignored: dict[int, str] = field(default_factory=dict)


class Decoder:
    """Decodes the events of one source. `columns`: those that are needed; None for all."""

    def __init__(self, source: Source, columns: Collection[str] | None = None) -> None:
        self.fields = source.fields
        # Columns that nobody reads are checked like all others; making none of their texts is what is saved.
        self._wanted = {f.name for f in source.fields} if columns is None else {source.event_time, *columns}
        self._native = JsonColumns.of(source.fields, self._wanted)
        # Field names of JSON need not be Python's, so the struct's own are f0, f1, …
        self.slots = [f"f{i}" for i in range(len(source.fields))]
        struct = msgspec.defstruct(
            "Event",
            [(slot, _TYPES[f.dtype] | None, None) for slot, f in zip(self.slots, source.fields, strict=True)],
            rename={slot: f.name for slot, f in zip(self.slots, source.fields, strict=True)},
            gc=False,
        )
        self._parse: Callable[[bytes], Any] = msgspec.json.Decoder(struct).decode

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """The columns of all values that fit the schema, and the reasons of all that do not."""
        if self._native is None or not len(values):
            return self._in_python(values)
        payloads = Payloads.of(values)
        columns, odd = self._native.read(payloads)
        if not len(odd):
            return Decoded(np.arange(len(values)), columns)
        return _with_odd(columns, len(values), odd, self._in_python(payloads.select(odd)))

    def _in_python(self, values: Sequence[bytes | None]) -> Decoded:
        if len(values) <= _BLOCK:
            return self._block(values)
        firsts = range(0, len(values), _BLOCK)
        blocks = [self._block(values[i : i + _BLOCK]) for i in firsts]
        columns = {name: concat_columns([b.columns[name] for b in blocks]) for name in blocks[0].columns}
        index = np.concatenate([b.index + i for i, b in zip(firsts, blocks, strict=True)])
        failures = {i + at: text for i, b in zip(firsts, blocks, strict=True) for at, text in b.failures.items()}
        return Decoded(index, columns, failures)

    def _block(self, values: Sequence[bytes | None]) -> Decoded:
        try:
            _check_texts(values)
            return self._columns(np.arange(len(values)), list(map(self._parse, values)), {})  # type: ignore[arg-type]
        except REFUSALS:
            return self._one_by_one(values)

    def _one_by_one(self, values: Sequence[bytes | None]) -> Decoded:
        index, events, failures = [], [], {}
        for i, value in enumerate(values):
            event = self._one(value)
            if isinstance(event, str):
                failures[i] = event
            else:
                index.append(i)
                events.append(event)
        return self._columns(np.array(index, np.int64), events, failures)

    def _one(self, value: bytes | None) -> Any:
        """The parsed event, or the reason why there is none."""
        if value is None or not value.strip():
            return "empty value: expected a JSON object" + (" (a tombstone)" if value is None else "")
        try:
            value.decode("utf-8")
            if depth_of(value) > MAX_DEPTH:
                return f"nested deeper than {MAX_DEPTH} levels"
            return self._fitting(without_nan(value, self._parse))
        except UnicodeDecodeError as error:
            return f"invalid UTF-8 at byte {error.start}"
        except REFUSALS as error:
            return str(error)

    def _fitting(self, event: Any) -> Any:
        for slot, f in zip(self.slots, self.fields, strict=True):
            item = getattr(event, slot)
            if f.dtype in ("int64", "timestamp") and isinstance(item, int) and not _fits_64_bits(item):
                return f"{f.name}: an integer that does not fit 64 bits"
            if f.dtype == "list[int64]" and not all(map(_fits_64_bits, item or ())):
                return list_misfit(f, item)
        return event

    def _columns(self, index: NDArray[np.int64], events: list[Any], failures: dict[int, str]) -> Decoded:
        found = list(zip(*map(astuple, events), strict=True)) or [()] * len(self.fields)
        items = {f.name: column for f, column in zip(self.fields, found, strict=True)}
        columns, wrong = {}, np.zeros(len(events), np.bool_)
        for f in self.fields:
            if f.dtype == "string" and f.name not in self._wanted:
                continue
            columns[f.name], bad = _column(f, items[f.name])
            if bad is not None and bad.any():
                for i in np.flatnonzero(bad & ~wrong).tolist():
                    failures[int(index[i])] = _misfit(f, items[f.name][i])
                wrong |= bad
        if wrong.any():
            index, columns = index[~wrong], {name: c.take(~wrong) for name, c in columns.items()}
        return Decoded(index, columns, failures)


def _with_odd(columns: dict[str, Column], count: int, odd: NDArray[np.int64], rest: Decoded) -> Decoded:
    """What the compiled reader read, with the odd events put back among the others."""
    plain = np.ones(count, np.bool_)
    plain[odd] = False
    index = np.concatenate([np.flatnonzero(plain), odd[rest.index]])
    order = np.argsort(index)
    together = {name: concat_columns([c.take(plain), rest.columns[name]]).take(order) for name, c in columns.items()}
    return Decoded(index[order], together, {int(odd[i]): text for i, text in rest.failures.items()})


def _misfit(f: Field, item: Any) -> str:
    """Why a timestamp or a list does not fit."""
    if isinstance(item, list):
        return list_misfit(f, item)
    if isinstance(item, int) and not _fits_64_bits(item):
        return f"{f.name}: an integer that does not fit 64 bits"
    return f"{f.name}: {ascii(item)[:60]} is not an RFC 3339 timestamp of the years 1 to 9999"


def _fits_64_bits(item: int) -> bool:
    return -(2**63) <= item < 2**63


def _check_texts(values: Sequence[bytes | None]) -> None:
    """Raise where a value may be invalid UTF-8 or nested too deep; the parser skips unknown fields unread.

    Joined by line ends, so that no two broken values make a whole one. Every object has a brace, so no
    event is too deep where there are not many more of them than events.
    """
    joined = b"\n".join(values)  # type: ignore[arg-type]
    if not joined.isascii():
        joined.decode("utf-8")
    spare = joined.count(b"{") + joined.count(b"[") - len(values)
    if spare >= MAX_DEPTH and any(v.count(b"{") + v.count(b"[") > MAX_DEPTH for v in values if v):
        raise ValueError("perhaps nested too deep")


def without_nan(value: bytes, parse: Callable[[bytes], Any]) -> Any:
    """The value parsed; where JSON has no such numbers as NaN and Infinity, with null for them."""
    try:
        return parse(value)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if b"NaN" not in value and b"Infinity" not in value:
            raise
        return parse(_STRING_OR_NAN.sub(_null_for_nan, value))


def depth_of(value: bytes) -> int:
    """How deep a value is nested; 0 where it has too few braces to be too deep."""
    if value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for char in _STRING.sub(b"", value):
        if char in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in b"}]":
            depth -= 1
    return deepest


def _null_for_nan(match: re.Match[bytes]) -> bytes:
    return match[0] if match[0].startswith(b'"') else b"null"


def _column(f: Field, items: Sequence[Any]) -> tuple[Column, NDArray[np.bool_] | None]:
    """The column, and for timestamps and lists where one does not fit."""
    if is_list(f.dtype):
        return list_column(f, items)
    if f.dtype == "timestamp":
        values, valid, bad = parse_timestamps(items)
        return Column("timestamp", values, None if valid.all() else valid), bad
    if f.dtype == "float64":
        # numpy reads None as NaN, and JSON has no NaN of its own, so NaN marks the nulls.
        return normalised(Column("float64", np.array(items, np.float64))), None
    if f.dtype == "int64":
        try:
            return Column("int64", np.array(items, np.int64)), None
        except TypeError:
            return Column.of("int64", items), None
    return _objects(f, items), None


def _objects(f: Field, items: Sequence[Any]) -> Column:
    try:
        # Joining is the fastest way to learn that nothing is None.
        (b"" if f.dtype == "bytes" else "").join(items)
    except TypeError:
        return Column.of(f.dtype, items)
    values = np.empty(len(items), object)
    values[:] = items
    return Column(f.dtype, values)
