"""A batch as the view declares it: what an engine returned, checked and brought to the declared types.

Apart from the engines because both go through it: DuckDB and Spark give the same value in
different types (128-bit integers, decimals of other scales, 32-bit integers), and the number
that is published must not depend on which of them it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.columns import Column
from headwater.dtypes import Dtype, arrow_type
from headwater.errors import DefinitionError, HeadwaterError, nearest
from headwater.plans.plan import BatchView, Field, StreamView

if TYPE_CHECKING:
    import pyarrow as pa


def as_declared(view: BatchView, result: pa.Table) -> pa.Table:
    """The join keys and features of a result, in the plan's order and types, sorted by key.

    Doubles are normalised (NaN and infinities are null, -0.0 is 0.0). A decimal becomes the
    double nearest to it. Columns that the view does not declare are left out.

    Raises:
        DefinitionError: a column is missing, stands twice or has a type that is not the declared one.
        HeadwaterError: a value does not fit 64 bits.
    """
    fields = (*view.keys, *view.features)
    return in_key_order(view, [_column(view, field, result) for field in fields])


def in_key_order(view: BatchView | StreamView, columns: Sequence[Column]) -> pa.Table:
    """Columns of the join keys and features as a table whose rows are sorted by key, whichever engine made them."""
    import pyarrow as pa

    fields = (*view.keys, *view.outputs())
    table = pa.table({f.name: c.to_arrow() for f, c in zip(fields, columns, strict=True)})
    return table.sort_by([(k.name, "ascending") for k in view.keys])


def _column(view: BatchView, field: Field, result: pa.Table) -> Column:
    lower = [name.lower() for name in result.column_names]
    found = [i for i, name in enumerate(lower) if name == field.name.lower()]
    if len(found) != 1:
        what = f"{len(found)} columns" if found else "no column"
        raise DefinitionError(
            f"BatchView {view.name!r}: its SQL returns {what} named {field.name!r}, expected one of type "
            f"{field.dtype}. {nearest(field.name, result.column_names)}"
        )
    return Column.from_arrow(field.dtype, _converted(view, field, result.column(found[0])))


def _converted(view: BatchView, field: Field, array: pa.ChunkedArray) -> pa.ChunkedArray:
    """The array in the declared Arrow type (timestamps in any unit: Column takes them)."""
    import pyarrow as pa

    kind = array.type
    if not _fits(kind, field.dtype):
        raise DefinitionError(
            f"BatchView {view.name!r}: its SQL returns {field.name!r} as {kind}, declared is {field.dtype}. "
            f"Convert it in the SQL, for example CAST(… AS {_SQL[field.dtype]}), or declare its type in schema."
        )
    try:
        if pa.types.is_decimal(kind) and field.dtype == "float64":
            # By way of its text: Arrow's own cast divides by a power of ten in doubles, and rounds twice.
            return array.cast(pa.string()).cast(pa.float64())
        if pa.types.is_date(kind):
            return array.cast(pa.timestamp("us"))
        if pa.types.is_timestamp(kind):
            return array
        return array.cast(arrow_type(field.dtype), safe=field.dtype == "int64")
    except pa.ArrowInvalid as error:
        raise HeadwaterError(
            f"BatchView {view.name!r}: a value of {field.name!r} does not fit {field.dtype}: {error}"
        ) from error


_SQL = {
    "int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR", "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ", "bytes": "BLOB",
}  # fmt: skip


def _fits(kind: pa.DataType, dtype: Dtype) -> bool:
    import pyarrow as pa

    t = pa.types
    if t.is_null(kind):
        return True
    whole = t.is_integer(kind) or (t.is_decimal(kind) and kind.scale == 0)
    return bool(
        {
            "int64": whole,
            "float64": whole or t.is_floating(kind) or t.is_decimal(kind),
            "string": t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind),
            "bool": t.is_boolean(kind),
            "timestamp": t.is_timestamp(kind) or t.is_date(kind),
            "bytes": t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind),
        }[dtype]
    )
