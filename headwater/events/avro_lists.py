"""Avro arrays as columns of lists.

Where the elements begin is found event by event; then each element is read as an event of its own would be, all of
them in step, so that whatever can be read as a column's value can be read as an element of its lists.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headwater.dtypes import element_of
from headwater.events.assembly import Assembly
from headwater.events.avro_types import Blocks, Type, Unreadable, block_size
from headwater.events.cursor import MAX_DEPTH, TOO_DEEP, TOO_EARLY, Cursor, Ints, Rows
from headwater.events.lists import split
from headwater.plans.plan import Field

Reader = Callable[[Cursor, Rows, Assembly], None]
_NULL = "element {} is null; the elements of a list are not"


def list_reader(type_: Blocks, field: Field, reader_of: Callable[[Type, Field], Reader]) -> Reader:
    """Reads arrays into the column of a field; `reader_of` makes the reader of an element."""
    element = Field(field.name, element_of(field.dtype))
    read_element = reader_of(type_.item, element)

    def read(cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        places = cursor.places(rows)
        ends = cursor.end[places]
        starts, counts = _starts(cursor, places, type_.item)
        owner = np.repeat(np.arange(len(places)), counts)
        inner = cursor.within(starts, ends[owner])
        elements = Assembly((element,), len(starts))
        read_element(inner, slice(None), elements)
        values, valid = elements.column(element.name)
        first = np.cumsum(counts) - counts
        reasons = {i: _NULL.format(i - first[owner[i]]) for i in np.flatnonzero(~valid).tolist()} | inner.reasons
        for i, reason in sorted(reasons.items()):
            cursor.fail(places[owner[i] : owner[i] + 1], reason)
        columns.put_lists(field, cursor, rows, list(split(values.tolist(), counts)))

    return read


def _starts(cursor: Cursor, places: Ints, item: Type) -> tuple[Ints, Ints]:
    """Where each element begins, and how many each event has; the events' positions are then behind their arrays."""
    found, counts = [], np.zeros(len(places), np.int64)
    for i, row in enumerate(places.tolist()):
        try:
            starts, at = _of_one(cursor.data, int(cursor.at[row]), int(cursor.end[row]), item, cursor.depth)
        except Unreadable as error:
            cursor.fail(places[i : i + 1], str(error))
            continue
        cursor.at[row] = at
        found += starts
        counts[i] = sum(map(len, starts))
    return np.concatenate(found) if found else np.zeros(0, np.int64), counts


def _of_one(data: bytes, at: int, end: int, item: Type, depth: int) -> tuple[list[Ints], int]:
    if depth >= MAX_DEPTH:
        raise Unreadable(TOO_DEEP)
    starts: list[Ints] = []
    while True:
        count, at = block_size(data, at, end)
        if count == 0:
            return starts, at
        if item.width == 0:
            raise Unreadable(_NULL.format(0))
        if count * (item.width or 1) > end - at:
            raise Unreadable(TOO_EARLY)
        if item.width is not None:
            starts.append(at + item.width * np.arange(count))
            at += count * item.width
            continue
        block = np.empty(count, np.int64)
        for i in range(count):
            block[i] = at
            at = item.skip_one(data, at, end, depth + 1)
        starts.append(block)
