"""Avro event bytes -> columns, by the schema that wrote them and the source's own.

The rules: fields are found by name; those that the source does not have are passed over, those that the
schema does not have are null. Numbers widen (int, long -> Int64; those and float, double -> Float64);
`conversions.py` says what else can be read as what. A union is read by the branch that each event has.
Where a field's type cannot be read as the source's column, the event is a failure that names the schema.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from headwater.dtypes import is_list
from headwater.errors import MissingExtra
from headwater.events.assembly import Assembly
from headwater.events.avro_envelopes import EnvelopeReader, rows_of
from headwater.events.avro_lists import list_reader
from headwater.events.avro_types import Blocks, Fixed, Number, Record, Sized, Type, Union, compile_type
from headwater.events.conversions import Decimals, conversion
from headwater.events.cursor import Cursor, Rows, pick
from headwater.events.schemas import Schema
from headwater.plans.plan import Field, Source

Reader = Callable[[Cursor, Rows, Assembly], None]
"""Reads one value of some events into the column of a field."""
_LOGICAL = {
    ("int", "date"): "date", ("int", "time-millis"): "time", ("long", "time-micros"): "time",
    **{("long", f"{local}timestamp-{unit}"): unit for local in ("", "local-") for unit in ("millis", "micros", "nanos")},
}  # fmt: skip


class AvroReader:
    """Reads the events of one Avro schema into the columns of one source.

    Raises:
        ValueError: the registry's text is no Avro schema.
    """

    def __init__(self, source: Source, schema: Schema) -> None:
        self._top = parse_type(schema)
        self._event_time = source.event_time
        self._wanted = {f.name: f for f in source.fields}
        self._envelope = None if source.envelope is None else EnvelopeReader(source, self._top, self._record)
        records: list[Any] = self._top.branches if isinstance(self._top, Union) else [self._top]
        if self._envelope is not None:
            records = list(rows_of(self._top))
        self._readers = {id(r): self._fields_of(r) for r in records if isinstance(r, Record)}

    def read(self, cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        """Read whole events; nothing may be left of them."""
        if self._envelope is not None:
            self._envelope.read(cursor, rows, columns)
        elif isinstance(self._top, Union):
            for branch, some in self._top.chosen(cursor, rows):
                self._record(branch, cursor, some, columns)
        else:
            self._record(self._top, cursor, rows, columns)
        left = cursor.end[rows] - cursor.at[rows]
        if left.any():
            cursor.fail(pick(rows, left > 0), lambda i: f"{left[left > 0][i]} bytes are left behind the record")

    def _record(self, type_: Type, cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        if not isinstance(type_, Record):
            cursor.fail(rows, f"expected a record, the schema has {described(type_)}")
            return
        readers = self._readers[id(type_)]
        if not any(name == self._event_time for name, _ in readers):
            cursor.fail(rows, f"it has no field {self._event_time!r}, which is the event time")
            return
        place = cursor.place
        for name, read in readers:
            cursor.place = f"{place}{name}: "
            read(cursor, rows, columns)
        cursor.place = place

    def _fields_of(self, record: Record) -> list[tuple[str, Reader]]:
        return [
            (name, _reader(type_, self._wanted[name]) if name in self._wanted else _skipper(type_))
            for name, type_ in record.fields
        ]


def parse_type(schema: Schema) -> Type:
    """The type that a schema describes.

    Raises:
        ValueError: its text, or one that it refers to, is no Avro schema.
    """
    parsed, named = parsed_schema(schema)
    try:
        return compile_type(parsed, named, {})
    except RecursionError as error:
        raise ValueError("its types are nested too deep") from error


def parsed_schema(schema: Schema, *, defaults: bool = False) -> tuple[Any, dict[str, Any]]:
    """The schema as fastavro parses it, and its named types.

    Defaults mean nothing to who reads what a schema wrote, and wrong ones are common: they are left out.

    Raises:
        ValueError: as `parse_type`.
    """
    try:
        from fastavro.schema import SchemaParseException, UnknownType, parse_schema
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "fastavro", "avro", "Reading Avro events") from error
    import msgspec

    named: dict[str, Any] = {}
    parsed: Any = None
    try:
        for _, text in (*schema.references, ("", schema.text)):
            plain = msgspec.json.decode(text)
            parsed = parse_schema(plain if defaults else _without_defaults(plain), named)
    except (SchemaParseException, UnknownType, msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"it is no Avro schema ({type(error).__name__}: {error})") from error
    return parsed, named


def _without_defaults(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_defaults(item) for item in schema]
    if isinstance(schema, dict):
        return {k: _without_defaults(v) for k, v in schema.items() if k != "default"}
    return schema


def described(type_: Type) -> str:
    """A type in words, such as "long (timestamp-millis)"."""
    return f"{type_.name} ({type_.logical})" if type_.logical else type_.name


def _skipper(type_: Type) -> Reader:
    return lambda cursor, rows, columns: type_.skip(cursor, rows)


def _reader(type_: Type, field: Field) -> Reader:
    if isinstance(type_, Union):
        return _union_reader(type_, field)
    if type_.name == "null":
        return lambda cursor, rows, columns: None
    if is_list(field.dtype) and isinstance(type_, Blocks) and type_.name == "array":
        return list_reader(type_, field, _reader)
    kind, raw = _raw(type_, field.dtype)
    found = conversion(kind, field.dtype)
    if found is None:
        refusal = f"{described(type_)} cannot be read as the source's {field.dtype}"
        return lambda cursor, rows, columns: cursor.fail(rows, refusal)
    convert = found.convert

    def read(cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        values, bad, reason = convert(raw(cursor, rows))
        if bad is not None and bad.any():
            wrong = np.flatnonzero(bad)
            cursor.fail(pick(rows, bad), lambda i: reason(int(wrong[i])))
        columns.put(field.name, rows, values)

    return read


def _union_reader(union: Union, field: Field) -> Reader:
    readers = {id(branch): _reader(branch, field) for branch in union.branches}

    def read(cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        for branch, some in union.chosen(cursor, rows):
            readers[id(branch)](cursor, some, columns)

    return read


def _raw(type_: Type, dtype: str) -> tuple[str, Callable[[Cursor, Rows], Any]]:
    """What kind of value the type is for a column of `dtype`, and how it is read."""
    if isinstance(type_, Number):
        if type_.name == "enum":
            return "name", _symbols(type_.symbols)
        return _LOGICAL.get((type_.name, type_.logical), "integer"), lambda cursor, rows: cursor.signed(rows)
    if isinstance(type_, Sized) and type_.name == "string":
        return "text", lambda cursor, rows: cursor.texts(rows, cursor.length(rows))
    if isinstance(type_, Sized):
        return _binary(type_, dtype, lambda cursor, rows: cursor.strings(rows, cursor.length(rows)))
    if isinstance(type_, Fixed) and type_.name == "fixed":
        return _binary(type_, dtype, lambda cursor, rows: cursor.strings(rows, type_.width))
    if type_.name == "boolean":
        return "boolean", _booleans
    if type_.name == "float":
        return "double", lambda cursor, rows: cursor.word(rows, 4).astype(np.uint32).view(np.float32)
    if type_.name == "double":
        return "double", lambda cursor, rows: cursor.word(rows, 8).view(np.float64)
    return type_.name, lambda cursor, rows: None


def _binary(
    type_: Fixed | Sized, dtype: str, strings: Callable[[Cursor, Rows], list[bytes]]
) -> tuple[str, Callable[[Cursor, Rows], Any]]:
    if type_.logical == "decimal" and dtype != "bytes":
        scale = type_.scale

        def decimals(cursor: Cursor, rows: Rows) -> Decimals:
            unscaled = [int.from_bytes(b, "big", signed=True) for b in strings(cursor, rows)]
            return Decimals(unscaled, [scale] * len(unscaled))

        return "decimal", decimals
    if type_.logical == "uuid" and type_.width == 16 and dtype == "string":
        return "text", lambda cursor, rows: [str(uuid.UUID(bytes=b.rjust(16, b"\0"))) for b in strings(cursor, rows)]
    return "binary", strings


def _booleans(cursor: Cursor, rows: Rows) -> Any:
    found = cursor.byte(rows)
    if (found > 1).any():
        cursor.fail(pick(rows, found > 1), "a boolean is neither 0 nor 1")
    return found == 1


def _symbols(symbols: tuple[str, ...]) -> Callable[[Cursor, Rows], Any]:
    names = np.array([*symbols, ""], object)

    def read(cursor: Cursor, rows: Rows) -> Any:
        number = cursor.signed(rows)
        wrong = (number < 0) | (number >= len(symbols))
        if wrong.any():
            cursor.fail(pick(rows, wrong), lambda i: f"the enum has no symbol of the number {number[wrong][i]}")
            number = np.where(wrong, len(symbols), number)
        return names[number]

    return read
