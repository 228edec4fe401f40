"""Avro's types, compiled from a schema's JSON: how each is passed over, for many events or for one.

A file apart from avro.py because that one is about columns: here is what Avro's binary form looks like
(https://avro.apache.org/docs/1.12.0/specification/#binary-encoding). Every type can be passed over for all
events of a batch in step (`skip`), and for one event (`skip_one`), which long lists need: their items are
passed over in step only as long as most events have some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from headwater.events.cursor import BAD_LENGTH, MAX_DEPTH, TOO_DEEP, TOO_EARLY, Cursor, Ints, Rows, pick

IN_STEP = 32
"""Items of a block that are passed over for all events in step."""
_NO_BRANCH = "a union has no branch of that number"


class Unreadable(Exception):
    """One event cannot be read; the message says why."""


class Type(Protocol):
    """One type of a schema. `width`: bytes of every value, None where they differ."""

    name: str
    logical: str

    @property
    def width(self) -> int | None: ...
    def skip(self, cursor: Cursor, rows: Rows) -> None: ...
    def skip_one(self, data: bytes, at: int, end: int, depth: int) -> int:
        """The place behind the value that begins at `at`; raises Unreadable past `end`."""
        ...


@dataclass
class Fixed:
    """null, boolean, float, double and fixed: always the same number of bytes."""

    name: str
    width: int
    logical: str = ""
    scale: int = 0

    def skip(self, cursor: Cursor, rows: Rows) -> None:
        cursor.advance(rows, self.width)

    def skip_one(self, data: bytes, at: int, end: int, depth: int) -> int:
        return _within(at + self.width, end)


@dataclass
class Number:
    """int, long and enum: a number in zigzag form. `symbols` are an enum's."""

    name: str
    logical: str = ""
    symbols: tuple[str, ...] = ()
    width: None = None

    def skip(self, cursor: Cursor, rows: Rows) -> None:
        cursor.varint(rows)

    def skip_one(self, data: bytes, at: int, end: int, depth: int) -> int:
        return _number(data, at, end)[1]


@dataclass
class Sized:
    """string and bytes: their length, then so many bytes."""

    name: str
    logical: str = ""
    scale: int = 0
    width: None = None

    def skip(self, cursor: Cursor, rows: Rows) -> None:
        cursor.advance(rows, cursor.length(rows))

    def skip_one(self, data: bytes, at: int, end: int, depth: int) -> int:
        size, at = _size(data, at, end)
        return at + size


@dataclass
class Union:
    """The number of a branch, then its value."""

    branches: list[Type]
    name: str = "union"
    logical: str = ""
    width: None = None

    def chosen(self, cursor: Cursor, rows: Rows) -> list[tuple[Type, Rows]]:
        """The branches that occur, each with its rows. Rows with a number that names none die."""
        number = cursor.signed(rows)
        first = number[0] if len(number) else 0
        if 0 <= first < len(self.branches) and (number == first).all():
            return [(self.branches[int(first)], rows)]
        wrong = (number < 0) | (number >= len(self.branches))
        if wrong.any():
            cursor.fail(pick(rows, wrong), _NO_BRANCH)
        found = ((branch, pick(rows, number == i)) for i, branch in enumerate(self.branches))
        return [(branch, some) for branch, some in found if len(some)]

    def skip(self, cursor: Cursor, rows: Rows) -> None:
        for branch, some in self.chosen(cursor, rows):
            branch.skip(cursor, some)

    def skip_one(self, data: bytes, at: int, end: int, depth: int) -> int:
        number, at = _number(data, at, end)
        if not 0 <= number < len(self.branches):
            raise Unreadable(_NO_BRANCH)
        return self.branches[number].skip_one(data, at, end, depth)


@dataclass
class Record:
    """The values of its fields, one after the other."""

    name: str
    fields: list[tuple[str, Type]] = field(default_factory=list)
    logical: str = ""
    width: int | None = None

    def skip(self, cursor: Cursor, rows: Rows) -> None:
        if not enter(cursor, rows):
            return
        for _, type_ in self.fields:
            type_.skip(cursor, rows)
        cursor.depth -= 1

    def skip_one(self, data: bytes, at: int, end: int, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise Unreadable(TOO_DEEP)
        for _, type_ in self.fields:
            at = type_.skip_one(data, at, end, depth + 1)
        return at


@dataclass
class Blocks:
    """array and map: blocks of a count and so many items, until a count of 0. A negative count is followed by bytes."""

    name: str
    item: Type
    logical: str = ""
    width: None = None

    def skip(self, cursor: Cursor, rows: Rows) -> None:
        left = cursor.places(rows)
        if not enter(cursor, rows):
            return
        while len(left):
            count = cursor.signed(left)
            sized = count < 0
            if sized.any():
                some = left[sized]
                cursor.advance(some, cursor.length(some))
            if (count > 0).any():
                self._items(cursor, left[count > 0], count[count > 0])
            left = left[(count != 0) & cursor.alive(left)]
        cursor.depth -= 1

    def _items(self, cursor: Cursor, rows: Ints, count: Ints) -> None:
        room = cursor.end[rows] - cursor.at[rows]
        # An item without bytes takes no time; of others there is a byte each at least.
        too_many = count > (room // self.item.width if self.item.width else room)
        if self.item.width == 0:
            return
        if too_many.any():
            cursor.fail(rows[too_many], TOO_EARLY)
            rows, count = rows[~too_many], count[~too_many]
        if self.item.width is not None:
            cursor.advance(rows, count * self.item.width)
            return
        for _ in range(IN_STEP):
            self.item.skip(cursor, rows)
            count = count - 1
            more = (count > 0) & cursor.alive(rows)
            rows, count = rows[more], count[more]
            if not len(rows):
                return
        for row, some in zip(rows.tolist(), count.tolist(), strict=True):
            self._rest(cursor, row, some)

    def _rest(self, cursor: Cursor, row: int, count: int) -> None:
        at, end = int(cursor.at[row]), int(cursor.end[row])
        try:
            for _ in range(count):
                at = self.item.skip_one(cursor.data, at, end, cursor.depth)
            cursor.at[row] = at
        except Unreadable as error:
            cursor.fail(np.array([row]), str(error))

    def skip_one(self, data: bytes, at: int, end: int, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise Unreadable(TOO_DEEP)
        while True:
            count, at = _number(data, at, end)
            if count == 0:
                return at
            if count < 0:
                size, at = _size(data, at, end)
                at += size
            elif self.item.width is not None:
                at = _within(at + count * self.item.width, end)
            else:
                if count > end - at:
                    raise Unreadable(TOO_EARLY)
                for _ in range(count):
                    at = self.item.skip_one(data, at, end, depth + 1)


def enter(cursor: Cursor, rows: Rows) -> bool:
    """Go a level deeper; False, and the rows die, where that is too deep. Who went deeper comes back."""
    if cursor.depth >= MAX_DEPTH:
        cursor.fail(rows, TOO_DEEP)
        return False
    cursor.depth += 1
    return True


def block_size(data: bytes, at: int, end: int) -> tuple[int, int]:
    """How many items the next block of an array has, 0 behind the last one, and where they begin."""
    count, at = _number(data, at, end)
    if count < 0:
        _, at = _size(data, at, end)
    return abs(count), at


def _within(at: int, end: int) -> int:
    if at > end:
        raise Unreadable(TOO_EARLY)
    return at


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    number = shift = 0
    while at < end:
        byte = data[at]
        if shift == 63 and byte > 1:
            raise Unreadable("a number of more than 64 bits")
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
    raise Unreadable(TOO_EARLY)


def _size(data: bytes, at: int, end: int) -> tuple[int, int]:
    size, at = _number(data, at, end)
    if not 0 <= size <= end - at:
        raise Unreadable(BAD_LENGTH)
    return size, at


# ---- schemas

_FIXED = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def compile_type(schema: Any, named: Mapping[str, Any], made: dict[str, Type]) -> Type:
    """The type of a schema that fastavro has parsed.

    Args:
        named: the parsed schemas of all named types.
        made: the named types that are compiled already, or are being compiled; grows.
    """
    if isinstance(schema, list):
        return Union([compile_type(branch, named, made) for branch in schema])
    if isinstance(schema, str):
        if schema in _FIXED:
            return Fixed(schema, _FIXED[schema])
        if schema in ("int", "long"):
            return Number(schema)
        if schema in ("string", "bytes"):
            return Sized(schema)
        return made[schema] if schema in made else compile_type(named[schema], named, made)
    return _compile_complex(schema, named, made)


def _compile_complex(schema: Mapping[str, Any], named: Mapping[str, Any], made: dict[str, Type]) -> Type:
    kind, logical = schema["type"], str(schema.get("logicalType", ""))
    scale = int(schema.get("scale", 0))
    if kind in ("record", "error"):
        record = made[schema["name"]] = Record(schema["name"])
        record.fields = [(f["name"], compile_type(f["type"], named, made)) for f in schema["fields"]]
        widths = [t.width for _, t in record.fields]
        record.width = None if None in widths else sum(w for w in widths if w is not None)
        return record
    if kind == "fixed":
        made[schema["name"]] = Fixed("fixed", int(schema["size"]), logical, scale)
        return made[schema["name"]]
    if kind == "enum":
        made[schema["name"]] = Number("enum", logical, tuple(schema["symbols"]))
        return made[schema["name"]]
    if kind == "array":
        return Blocks("array", compile_type(schema["items"], named, made))
    if kind == "map":
        return Blocks(
            "map", Record("entry", [("key", Sized("string")), ("value", compile_type(schema["values"], named, made))])
        )
    plain = compile_type(kind, named, made)
    if isinstance(plain, Number):
        return Number(plain.name, logical)
    return Sized(plain.name, logical, scale) if isinstance(plain, Sized) else plain
