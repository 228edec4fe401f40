"""Protobuf event bytes -> columns, by the message that wrote them and the source's own.

The rules: fields are found by name; those that the source does not have are ignored, those that the message
type does not have are null. A field that tracks presence (`optional`, a message, a member of a oneof) is null
where it is absent, unless its type has a default (proto2); another is its default, as Protobuf has it. Numbers
widen; `conversions.py` says what else can be read as what, and the messages Timestamp, Date, Decimal and the
wrappers are read as what they mean.

Google's own parser reads one event after the other: it alone decides what is a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from headwater.dtypes import element_of, is_list
from headwater.events.assembly import Assembly
from headwater.events.conversions import Decimals, conversion
from headwater.events.cursor import MAX_DEPTH, Cursor, Ints, Rows, pick
from headwater.events.lists import split
from headwater.events.protobuf_files import message_class, parsed_file
from headwater.events.schemas import Schema
from headwater.plans.plan import Field, Source

_DOUBLE, _FLOAT, _BOOL, _STRING, _MESSAGE, _BYTES, _ENUM, _GROUP = 1, 2, 8, 9, 11, 12, 14, 10
_NAMES = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 8: "bool", 9: "string",
    10: "group", 11: "message", 12: "bytes", 13: "uint32", 14: "enum", 15: "sfixed32", 16: "sfixed64", 17: "sint32",
    18: "sint64",
}  # fmt: skip
_WRAPPERS = {
    f"google.protobuf.{name}Value": kind
    for kind, names in {
        "integer": ("Int32", "Int64", "UInt32", "UInt64"), "double": ("Float", "Double"), "boolean": ("Bool",),
        "text": ("String",), "binary": ("Bytes",),
    }.items()
    for name in names
}  # fmt: skip
_EPOCH = date(1970, 1, 1).toordinal()

Column = Callable[[Cursor, Ints, Sequence[Any], Assembly], None]
"""Puts one field of some events' messages into its column."""
Unread = tuple[list[int], str]
"""Places of values that mean nothing, and why."""


class ProtobufReader:
    """Reads the events of one Protobuf schema into the columns of one source.

    Raises:
        ValueError: a file that the schema imports is nowhere.
        RegistryUnreachable: the registry gave no serialised file.
    """

    def __init__(self, source: Source, schema: Schema) -> None:
        self._source = source
        self._pool, self._file = parsed_file(schema)
        self._messages: dict[tuple[int, ...], _Message | None] = {}

    def read(self, cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        """Read whole events: which message of the schema each is, and that message."""
        count = cursor.signed(rows)
        if not count.any():
            self._read_message((0,), cursor, cursor.places(rows), columns)
            return
        bad = (count < 0) | (count > MAX_DEPTH)
        if bad.any():
            cursor.fail(pick(rows, bad), "the path to its message is broken")
        for length in np.unique(count[~bad]).tolist():
            some = pick(rows, count == length)
            paths = (
                np.stack([cursor.signed(some) for _ in range(length)], 1) if length else np.zeros((len(some), 1), int)
            )
            alive = cursor.alive(some)
            for path in sorted({tuple(p) for p in paths[alive].tolist()}):
                self._read_message(path, cursor, some[alive & (paths == path).all(1)], columns)

    def _read_message(self, path: tuple[int, ...], cursor: Cursor, rows: Ints, columns: Assembly) -> None:
        if path not in self._messages:
            made = message_class(self._pool, self._file, path)
            self._messages[path] = None if made is None else _Message(self._source, made)
        message = self._messages[path]
        if message is None:
            cursor.fail(rows, f"it has no message of the path {list(path)}")
        else:
            message.read(cursor, rows, columns)


class _Message:
    """One message type."""

    def __init__(self, source: Source, made: Any) -> None:
        self._event_time, self._made = source.event_time, made
        self.name = made.DESCRIPTOR.full_name
        fields = made.DESCRIPTOR.fields_by_name
        self._columns = [(f.name, _column(fields[f.name], f)) for f in source.fields if f.name in fields]

    def read(self, cursor: Cursor, rows: Ints, columns: Assembly) -> None:
        if not any(name == self._event_time for name, _ in self._columns):
            cursor.fail(rows, f"{self.name} has no field {self._event_time!r}, which is the event time")
            return
        values = cursor.strings(rows, cursor.end[rows] - cursor.at[rows])
        messages = self._parsed(cursor, rows, values)
        place = cursor.place
        for name, column in self._columns:
            cursor.place = f"{place}{name}: "
            column(cursor, rows, messages, columns)
        cursor.place = place

    def _parsed(self, cursor: Cursor, rows: Ints, values: list[bytes]) -> list[Any]:
        from google.protobuf.message import DecodeError

        try:
            return list(map(self._made.FromString, values))
        except DecodeError:
            pass
        messages, wrong = [], []
        for i, value in enumerate(values):
            try:
                messages.append(self._made.FromString(value))
            except DecodeError:
                messages.append(self._made())
                wrong.append(i)
        cursor.fail(rows[wrong], f"the bytes are no message {self.name}")
        return messages


def described(descriptor: Any) -> str:
    """A field's type in words, such as "repeated string" or "message shop.Money"."""
    kind = descriptor.message_type or descriptor.enum_type
    name = f"{_NAMES[descriptor.type]} {kind.full_name}" if kind is not None else _NAMES[descriptor.type]
    if is_repeated(descriptor):
        entry = descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry
        return "map" if entry else f"repeated {name}"
    return name


def is_repeated(descriptor: Any) -> bool:
    """Whether a field is a list or a map. `label` is on its way out of Google's package."""
    found = getattr(descriptor, "is_repeated", None)
    return bool(descriptor.label == descriptor.LABEL_REPEATED) if found is None else bool(found)


def _list_column(descriptor: Any, field: Field) -> Column | None:
    """Reads a repeated field; None where its elements cannot be read as the column's. An empty list is never null."""
    element = element_of(field.dtype)
    kind, values = _values_of(descriptor, element)
    found, get = conversion(kind, element), attrgetter(descriptor.name)
    if found is None or described(descriptor) == "map":
        return None
    convert = found.convert

    def put(cursor: Cursor, rows: Ints, messages: Sequence[Any], columns: Assembly) -> None:
        items = list(map(get, messages))
        counts = np.fromiter(map(len, items), np.int64, len(items))
        owner = np.repeat(rows, counts)
        raw, (wrong, why) = values(list(chain.from_iterable(items)))
        if wrong:
            cursor.fail(owner[wrong], why)
        converted, bad, reason = convert(raw)
        if bad is not None and bad.any():
            places = np.flatnonzero(bad)
            cursor.fail(owner[places], lambda i: reason(int(places[i])))
        flat = converted.tolist() if isinstance(converted, np.ndarray) else converted
        columns.put_lists(field, cursor, rows, list(split(flat, counts)))

    return put


def _column(descriptor: Any, field: Field) -> Column:
    if is_list(field.dtype) and is_repeated(descriptor) and (lists := _list_column(descriptor, field)) is not None:
        return lists
    kind, values = _values_of(descriptor, field.dtype)
    found = None if is_repeated(descriptor) else conversion(kind, field.dtype)
    if found is None:
        refusal = f"{described(descriptor)} cannot be read as the source's {field.dtype}"
        if descriptor.has_presence:
            return _refuse_present(descriptor.name, refusal)
        return lambda cursor, rows, messages, columns: cursor.fail(rows, refusal)
    convert, name = found.convert, descriptor.name
    get, plain = attrgetter(name), descriptor.message_type is None
    absent_is_null = descriptor.has_presence and (
        descriptor.message_type is not None or not descriptor.has_default_value
    )

    def put(cursor: Cursor, rows: Ints, messages: Sequence[Any], columns: Assembly) -> None:
        items = list(map(get, messages))
        if absent_is_null:
            # Of plain values, only what looks like a default can be absent.
            there = [(plain and bool(x)) or m.HasField(name) for x, m in zip(items, messages, strict=True)]
            if not all(there):
                rows, items = rows[np.array(there, np.bool_)], [x for x, ok in zip(items, there, strict=True) if ok]
        raw, (wrong, why) = values(items)
        if wrong:
            cursor.fail(rows[wrong], why)
        converted, bad, reason = convert(raw)
        if bad is not None and bad.any():
            places = np.flatnonzero(bad)
            cursor.fail(rows[places], lambda i: reason(int(places[i])))
        columns.put(field.name, rows, converted)

    return put


def _refuse_present(name: str, refusal: str) -> Column:
    def refuse(cursor: Cursor, rows: Ints, messages: Sequence[Any], columns: Assembly) -> None:
        there = [i for i, m in enumerate(messages) if m.HasField(name)]
        if there:
            cursor.fail(rows[there], refusal)

    return refuse


def _values_of(descriptor: Any, dtype: str) -> tuple[str, Callable[[list[Any]], tuple[Any, Unread]]]:
    """What kind of value a field is for a column of `dtype`, and how a list of its values becomes what is converted."""
    kind = descriptor.type
    if kind in (_MESSAGE, _GROUP):
        return _message_values(descriptor.message_type.full_name)
    if kind == _ENUM and dtype == "string":
        return "name", _enum_names(descriptor.enum_type)
    if kind == _STRING:
        return "text", _texts
    return {_DOUBLE: "double", _FLOAT: "double", _BOOL: "boolean", _BYTES: "binary"}.get(kind, "integer"), _as_they_are


def _message_values(name: str) -> tuple[str, Callable[[list[Any]], tuple[Any, Unread]]]:
    if name == "google.protobuf.Timestamp":
        return "micros", lambda items: ([t.seconds * 1_000_000 + t.nanos // 1000 for t in items], ([], ""))
    if name == "google.type.Date":
        return "date", _days
    if name == "confluent.type.Decimal":
        return "decimal", _decimals
    if name in _WRAPPERS:
        return _WRAPPERS[name], lambda items: ([w.value for w in items], ([], ""))
    return "message", _as_they_are


def _as_they_are(items: list[Any]) -> tuple[Any, Unread]:
    return items, ([], "")


def _texts(items: list[Any]) -> tuple[Any, Unread]:
    # proto2 promises no UTF-8; what is none comes as bytes.
    wrong = [i for i, x in enumerate(items) if isinstance(x, bytes)]
    for i in wrong:
        items[i] = ""
    return items, (wrong, "a text is not UTF-8")


def _enum_names(enum: Any) -> Callable[[list[Any]], tuple[Any, Unread]]:
    names = {number: value.name for number, value in enum.values_by_number.items()}

    def read(items: list[Any]) -> tuple[Any, Unread]:
        found = [names.get(x) for x in items]
        wrong = [i for i, x in enumerate(found) if x is None]
        return [x or "" for x in found], (wrong, f"the enum {enum.full_name} has no value of that number")

    return read


def _days(items: list[Any]) -> tuple[Any, Unread]:
    days, wrong = [], []
    for i, item in enumerate(items):
        try:
            days.append(date(item.year, item.month, item.day).toordinal() - _EPOCH)
        except ValueError:
            days.append(0)
            wrong.append(i)
    return days, (wrong, "a date that is no day of the calendar")


def _decimals(items: list[Any]) -> tuple[Any, Unread]:
    unscaled = [int.from_bytes(d.value, "big", signed=True) for d in items]
    return Decimals(unscaled, [d.scale for d in items]), ([], "")
