"""A batch as the view declares it: what an engine returned, checked and brought to the declared types.

Apart from the engines because both go through it: DuckDB and Spark give the same value in
different types (128-bit integers, decimals of other scales, 32-bit integers), and the number
that is published must not depend on which of them it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.columns import Column
from headwater.dtypes import Dtype, arrow_type, element_of, is_list, shown
from headwater.errors import DefinitionError, HeadwaterError, nearest
from headwater.expressions.sql import sql_type
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
    array = _converted(view, field, result.column(found[0]))
    column = Column.from_arrow(field.dtype, array)
    return _check_lists(view, field, column, array) if is_list(field.dtype) else column


def _converted(view: BatchView, field: Field, array: pa.ChunkedArray) -> pa.ChunkedArray:
    """The array in the declared Arrow type (timestamps in any unit: Column takes them)."""
    import pyarrow as pa

    kind = array.type
    if not _fits(kind, field.dtype):
        raise DefinitionError(
            f"BatchView {view.name!r}: its SQL returns {field.name!r} as {kind}, declared is {field.dtype}. "
            f"Convert it in the SQL, for example CAST(… AS {sql_type(field.dtype, 'duckdb')}), or declare its type in "
            f"schema."
        )
    try:
        if pa.types.is_decimal(kind) and field.dtype == "float64":
            # By way of its text: Arrow's own cast divides by a power of ten in doubles, and rounds twice.
            return array.cast(pa.string()).cast(pa.float64())
        if _is_list(kind):
            # Lists of any kind first: a fixed size, or large offsets.
            array = array.cast(pa.list_(kind.value_type))
            wanted = arrow_type(field.dtype)
            return array.cast(wanted, safe=not pa.types.is_timestamp(wanted.value_type))
        if pa.types.is_date(kind):
            return array.cast(pa.timestamp("us"))
        if pa.types.is_timestamp(kind):
            return array
        return array.cast(arrow_type(field.dtype), safe=field.dtype == "int64")
    except pa.ArrowInvalid as error:
        raise HeadwaterError(
            f"BatchView {view.name!r}: a value of {field.name!r} does not fit {field.dtype}: {error}"
        ) from error


def _check_lists(view: BatchView, field: Field, column: Column, array: pa.ChunkedArray) -> Column:
    """The lists, none of which has a null, NaN or infinity in it; vectors are of their length.

    Raises:
        HeadwaterError: one has.
    """
    import pyarrow.compute as pc

    elements = pc.list_flatten(array)
    broken = elements.null_count > 0
    if element_of(field.dtype) == "float64" and not broken:
        broken = not pc.all(pc.is_finite(elements.cast("float64")), min_count=0).as_py()
    lengths = {len(v) for v in column.to_list() if v is not None}
    if broken or (field.length is not None and lengths - {field.length}):
        got = "a null, NaN or an infinity in a list" if broken else f"a list of {max(lengths - {field.length})}"
        raise HeadwaterError(
            f"BatchView {view.name!r}: {field.name!r} is {shown(field.dtype, field.length)}, and its SQL returns {got}. "
            f"Leave such elements or rows out in the SQL."
        )
    return column


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _fits(kind: pa.DataType, dtype: Dtype) -> bool:
    import pyarrow as pa

    t = pa.types
    if t.is_null(kind):
        return True
    if is_list(dtype):
        return _is_list(kind) and _fits(kind.value_type, element_of(dtype))
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
