"""One column of values with its nulls: what decoding gives and expressions, states and joins take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headwater.dtypes import SCALARS, Dtype, arrow_type, element_of, is_counts, numpy_dtype

if TYPE_CHECKING:
    import pyarrow as pa

_FILL: dict[str, Any] = {"int64": 0, "timestamp": 0, "float64": 0.0, "bool": False, "string": "", "bytes": b""}


@dataclass(frozen=True, slots=True)
class Column:
    """`values` has the dtype of `numpy_dtype(dtype)` (lists are Python's); where `valid` is False the value is null.

    `valid` is None where nothing is null. A null's place in `values` holds a harmless filler
    (0, 0.0, False, "", b"" or []), so that arithmetic over it never fails. Doubles are finite and
    never -0.0; timestamps are int64 microseconds since the epoch.
    """

    dtype: Dtype
    values: NDArray[Any]
    valid: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def mask(self) -> NDArray[np.bool_]:
        """Where the column has a value, as booleans."""
        return np.ones(len(self.values), np.bool_) if self.valid is None else self.valid

    def take(self, index: NDArray[Any]) -> Column:
        """The rows at `index` (integers), or those where it is True (booleans)."""
        return Column(self.dtype, self.values[index], None if self.valid is None else self.valid[index])

    def to_list(self) -> list[Any]:
        """Python values, None for null; timestamps as int microseconds."""
        items: list[Any] = self.values.tolist()
        if self.valid is None:
            return items
        return [x if ok else None for x, ok in zip(items, self.valid.tolist(), strict=True)]

    @classmethod
    def of(cls, dtype: Dtype, items: Iterable[Any]) -> Column:
        """A column of Python values (None for null; doubles are normalised; timestamps are int microseconds)."""
        items = list(items)
        valid = np.fromiter((x is not None for x in items), np.bool_, len(items))
        fill = _fill(dtype)
        if valid.all():
            return normalised(cls(dtype, _array(items, dtype)))
        return normalised(cls(dtype, _array([fill if x is None else x for x in items], dtype), valid))

    @classmethod
    def nulls(cls, dtype: Dtype, length: int) -> Column:
        """A column of nothing but nulls."""
        return cls(dtype, _array([_fill(dtype)] * length, dtype), np.zeros(length, np.bool_))

    @classmethod
    def from_arrow(cls, dtype: Dtype, array: pa.Array | pa.ChunkedArray) -> Column:
        """A column of an Arrow array of any type that widens to `dtype`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from headwater.dtypes import arrow_type

        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        wanted = arrow_type(dtype)
        if array.type != wanted:
            array = _as_arrow(array, wanted)
        valid = None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)
        if dtype not in SCALARS:
            return cls(dtype, _array(_lists(array, dtype), dtype), valid)
        if dtype == "timestamp":
            array = array.cast(pa.int64())
        if valid is not None:
            array = pc.fill_null(array, pa.scalar(_FILL[dtype], array.type))
        values = array.to_numpy(zero_copy_only=False)
        if dtype in ("string", "bytes") and values.dtype != object:
            values = values.astype(object)
        return normalised(cls(dtype, values, valid))

    def to_arrow(self) -> pa.Array:
        """The Arrow array of this column, with the type of `arrow_type(dtype)`."""
        import pyarrow as pa

        from headwater.dtypes import arrow_type

        mask = None if self.valid is None else ~self.valid
        if self.dtype == "timestamp":
            return pa.array(self.values, pa.int64(), mask=mask).cast(arrow_type("timestamp"))
        values = self.values
        if is_counts(self.dtype):
            # Arrow makes structs of tuples, not of lists.
            values = _array([[tuple(pair) for pair in pairs] for pairs in values.tolist()], self.dtype)
        return pa.array(values, arrow_type(self.dtype), mask=mask)


def codes_of(column: Column) -> tuple[list[Any], NDArray[np.int64]]:
    """The distinct values of a column (the fillers of nulls too) as they appear first, and which of them stands where."""
    codes: dict[Any, int] = {}
    items = column.values.tolist()
    found = np.fromiter((codes.setdefault(v, len(codes)) for v in items), np.int64, len(items))
    return list(codes), found


def normalised(column: Column) -> Column:
    """NaN and infinities become null, -0.0 becomes 0.0; other types come back as they are."""
    if column.dtype != "float64":
        return column
    finite = np.isfinite(column.values)
    if finite.all():
        return Column("float64", column.values + 0.0, column.valid)
    valid = finite if column.valid is None else column.valid & finite
    return Column("float64", np.where(valid, column.values, 0.0) + 0.0, valid)


def _fill(dtype: str) -> Any:
    return _FILL[dtype] if dtype in SCALARS else []


_WHOLE: dict[str, Dtype] = {"timestamp": "int64"}
"""What the elements of a list are cast to before they are read."""


def _lists(array: Any, dtype: str) -> list[list[Any]]:
    """Python lists of an Arrow array of lists, [] for null; pairs are lists too, timestamps int microseconds."""
    if element_of(dtype) == "timestamp":
        array = array.cast(arrow_type(dtype.replace("timestamp", "int64")))
    if is_counts(dtype):
        items = array.to_pylist()
        return [[[pair["value"], pair["count"]] for pair in pairs or ()] for pairs in items]
    # Cut from the elements of all of them: Arrow's own way makes a scalar of each.
    ends = np.concatenate([[0], np.cumsum(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))])
    flat = Column.from_arrow(_WHOLE.get(element_of(dtype), element_of(dtype)), array.flatten()).values.tolist()
    return [flat[a:b] for a, b in pairwise(ends.tolist())]


def _array(items: list[Any], dtype: str) -> NDArray[Any]:
    kind = numpy_dtype(dtype)
    if dtype not in SCALARS:
        # Assigning lists to a slice would make numpy look into them.
        return np.fromiter(items, object, len(items))
    if kind.kind != "O":
        return np.array(items, kind)
    out = np.empty(len(items), object)
    out[:] = items
    return out


def _as_arrow(array: Any, wanted: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(array.type) and array.type.tz is None:
        return array.cast(pa.timestamp("us"), safe=False).cast(wanted)
    return array.cast(wanted, safe=not pa.types.is_timestamp(wanted))
