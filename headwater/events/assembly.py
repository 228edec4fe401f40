"""Columns under construction: values are put at the places of their events, in any order.

What formats with a schema registry share: a batch may hold events of several schemas, each of which is decoded
by itself into the same columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column, normalised
from headwater.dtypes import is_list, numpy_dtype
from headwater.events.cursor import Cursor, Rows, pick
from headwater.events.decode import Decoded
from headwater.events.lists import list_column, list_misfit, object_array
from headwater.plans.plan import Field


class Assembly:
    """The columns of a batch of n events, all null at first."""

    def __init__(self, fields: Sequence[Field], length: int) -> None:
        self._fields, self._length = fields, length
        self._values = {f.name: _empty(f.dtype, length) for f in fields}
        self._valid = {f.name: np.zeros(length, np.bool_) for f in fields}

    def put(self, name: str, rows: Rows, values: Any) -> None:
        """The values of a column at some places, none of them null."""
        self._values[name][rows] = values
        self._valid[name][rows] = True

    def put_lists(self, f: Field, cursor: Cursor, rows: Rows, lists: Sequence[Sequence[Any]]) -> None:
        """The lists of a column at some places, none of them null; events with one that does not fit die."""
        column, bad = list_column(f, lists)
        if bad.any():
            wrong = np.flatnonzero(bad)
            # The place names the field already.
            cursor.fail(pick(rows, bad), lambda i: list_misfit(f, lists[int(wrong[i])]).removeprefix(f"{f.name}: "))
        self.put(f.name, rows, column.values)

    def column(self, name: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The values of a column as they are now, and where there is one."""
        return self._values[name], self._valid[name]

    def decoded(self, failures: Mapping[int, str], ignored: Mapping[int, str]) -> Decoded:
        """The columns of all events that did not fail and are not ignored."""
        keep: Any = slice(None)
        index = np.arange(self._length)
        if failures or ignored:
            index = keep = np.delete(index, [*failures, *ignored])
        columns = {}
        for f in self._fields:
            valid = self._valid[f.name][keep]
            values = self._values[f.name][keep]
            columns[f.name] = normalised(Column(f.dtype, values, None if valid.all() else valid))
        return Decoded(index, columns, dict(failures), dict(ignored))


def _empty(dtype: str, length: int) -> NDArray[Any]:
    if is_list(dtype):
        return object_array([] for _ in range(length))
    if dtype in ("string", "bytes"):
        return np.full(length, "" if dtype == "string" else b"", object)
    return np.zeros(length, numpy_dtype(dtype))
