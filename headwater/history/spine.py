"""The spine: the rows with keys and times for which feature values are wanted, checked at the border.

Its own columns are never touched; what is read out of it are typed join keys and int64 times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.dtypes import arrow_type
from headwater.errors import UsageError, nearest
from headwater.history.local import Questions
from headwater.plans.plan import Field

TIME = "event_timestamp"
KNOWN_BY = "known_by"


def times(spine: pa.Table, name: str = TIME) -> Column:
    """A time column of the spine as int64 microseconds; naive timestamps are UTC, dates their midnight.

    Raises:
        UsageError: no such column, or not a timestamp.
    """
    column = _column(spine, name, "its time column")
    kind = column.type
    if pa.types.is_null(kind):
        return Column.nulls("timestamp", len(spine))
    if pa.types.is_date(kind):
        return Column.from_arrow("timestamp", column.cast(pa.timestamp("us")))
    if not pa.types.is_timestamp(kind):
        raise UsageError(
            f"The spine's column {name!r} is {kind}, expected a timestamp (without a zone it is UTC). "
            f"Convert it first, for example with pandas.to_datetime."
        )
    return Column.from_arrow("timestamp", _microseconds(column))


def questions(spine: pa.Table, view: str, keys: Sequence[Field], at: Column, rename: dict[str, str]) -> Questions:
    """The rows as one view sees them; `rename` says which of the spine's columns a join key is, if not its own.

    Raises:
        UsageError: a join key that is missing or of another type; names the view, the column and near names.
    """
    columns = [key_column(spine, view, key, rename.get(key.name, key.name)) for key in keys]
    return Questions(columns, at.values, at.valid)


def key_column(spine: pa.Table, view: str, key: Field, name: str) -> Column:
    """A join key of the spine with the type that the view has it in."""
    column = _column(spine, name, f"a join key of view {view!r}")
    if not _fits(column, key.dtype):
        raise UsageError(
            f"The spine's column {name!r} is {column.type}, but the join key of view {view!r} is {key.dtype}. "
            f"Convert the column first; text that looks like a number is not the number."
        )
    if pa.types.is_null(column.type):
        return Column.nulls(key.dtype, len(spine))
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        column = _microseconds(column)
    return Column.from_arrow(key.dtype, column.cast(arrow_type(key.dtype)) if key.dtype != "timestamp" else column)


def _column(spine: pa.Table, name: str, role: str) -> pa.ChunkedArray:
    found = spine.schema.get_all_field_indices(name)
    if len(found) == 1:
        return spine.column(found[0])
    if found:
        raise UsageError(f"The spine has {len(found)} columns named {name!r}, {role}. Rename all but one.")
    raise UsageError(f"The spine has no column {name!r}, {role}. {nearest(name, spine.column_names)}")


def _fits(column: pa.ChunkedArray, dtype: str) -> bool:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return True
    if dtype == "int64" and pa.types.is_floating(kind):
        # pandas turns integers with a missing one into doubles; whole numbers below 2**53 are still the integers.
        return _whole(column)
    is_kind = {
        "int64": pa.types.is_integer, "string": _is_text, "bool": pa.types.is_boolean,
        "timestamp": pa.types.is_timestamp, "bytes": _is_bytes, "float64": pa.types.is_floating,
    }[dtype]  # fmt: skip
    return bool(is_kind(kind)) and not (kind == pa.uint64() and _past_int64(column))


def _whole(column: pa.ChunkedArray) -> bool:
    values = column.cast(pa.float64()).drop_null().to_numpy()
    values = values[~np.isnan(values)]
    return bool(((np.floor(values) == values) & (np.abs(values) < 2.0**53)).all())


def _past_int64(column: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.greater(column, pa.scalar(2**63 - 1, pa.uint64()))).as_py())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps in microseconds with zone UTC; what is finer is cut off, towards the past."""
    kind = column.type
    if kind.unit == "ns":
        whole = _floor_thousand(column.cast(pa.int64()))
        return whole.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    # Casting a naive timestamp to one with a zone reads it as UTC; between zones the instant stays.
    return column.cast(pa.timestamp("us", kind.tz)).cast(pa.timestamp("us", "UTC"))


def _floor_thousand(column: pa.ChunkedArray) -> pa.ChunkedArray:
    valid: NDArray[np.bool_] = column.is_valid().to_numpy()
    values = column.fill_null(0).to_numpy()
    return pa.chunked_array([pa.array(values // 1000, pa.int64(), mask=~valid)])
