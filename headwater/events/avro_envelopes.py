"""Debezium's envelopes in Avro: a record with the fields `op` and `after` (debezium.py says which are events).

The whole envelope is passed over first, for its `op` comes behind its rows; then `after` is read, of the events alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headwater.events.assembly import Assembly
from headwater.events.avro_types import Record, Sized, Type, Union
from headwater.events.cursor import Cursor, Ints, Rows
from headwater.events.debezium import judged
from headwater.plans.plan import Source

Read = Callable[[Type, Cursor, Rows, Assembly], None]


def rows_of(top: Type) -> list[Record]:
    """The records that `after` of an envelope may hold; none where the type is no envelope."""
    fields = dict(top.fields) if isinstance(top, Record) else {}
    op, after = fields.get("op"), fields.get("after")
    if not isinstance(op, Sized) or op.name != "string" or after is None:
        return []
    return [t for t in (after.branches if isinstance(after, Union) else [after]) if isinstance(t, Record)]


class EnvelopeReader:
    """Reads envelopes of one type; `read_row` reads a record into the columns of the source."""

    def __init__(self, source: Source, top: Type, read_row: Read) -> None:
        self._source, self._read_row = source, read_row
        self._fields = top.fields if isinstance(top, Record) and rows_of(top) else None

    def read(self, cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        """Read the events, ignore what is none; positions are then behind the envelopes of all others."""
        if self._fields is None:
            cursor.fail(rows, "expected a Debezium envelope, a record with the fields 'op' and 'after'")
            return
        places = cursor.places(rows)
        began, ops = cursor.at[places], np.full(len(places), "", object)
        for name, type_ in self._fields:
            if name == "op":
                ops[:] = cursor.texts(places, cursor.length(places))
            else:
                type_.skip(cursor, places)
        behind = cursor.at[places]
        self._judge(cursor, places, ops)
        alive = cursor.alive(places)
        cursor.at[places[alive]] = began[alive]
        self._read_after(cursor, places[alive], columns)
        alive = cursor.alive(places)
        cursor.at[places[alive]] = behind[alive]

    def _judge(self, cursor: Cursor, places: Ints, ops: np.ndarray[tuple[int], np.dtype[np.object_]]) -> None:
        for op in set(ops[cursor.alive(places)].tolist()):
            ignored, wrong = judged(op, self._source)
            some = places[(ops == op) & cursor.alive(places)]
            if ignored is not None:
                cursor.ignore(some, ignored)
            elif wrong is not None:
                cursor.fail(some, wrong)

    def _read_after(self, cursor: Cursor, places: Ints, columns: Assembly) -> None:
        assert self._fields is not None
        for name, type_ in self._fields:
            if name == "after":
                for branch, some in type_.chosen(cursor, places) if isinstance(type_, Union) else [(type_, places)]:
                    if branch.name == "null":
                        cursor.fail(some, "after: an event has no row")
                    else:
                        self._read_row(branch, cursor, some, columns)
                return
            type_.skip(cursor, places)
