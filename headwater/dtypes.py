"""The value types: how they are called in plans, and which Feast, Arrow and numpy types they are.

Everything is normalised to 64 bits at the border, so inside there are only these names:
"int64", "float64", "string", "bool", "timestamp" (int64 microseconds since the epoch, UTC)
and "bytes", and lists of one of these ("list[int64]"); of features also lists of pairs [value, count]
("counts[int64]"). A vector is a list whose length is said beside its type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Dtype = Literal[
    "int64", "float64", "string", "bool", "timestamp", "bytes",
    "list[int64]", "list[float64]", "list[string]", "list[bool]", "list[timestamp]", "list[bytes]",
    "counts[int64]", "counts[float64]", "counts[string]", "counts[bool]", "counts[timestamp]", "counts[bytes]",
]  # fmt: skip
DTYPES: tuple[str, ...] = get_args(Dtype)
SCALARS = DTYPES[:6]
"""Types of one value."""
NUMERIC: tuple[str, ...] = ("int64", "float64")
FIXED: tuple[str, ...] = ("int64", "float64", "bool", "timestamp")
"""Types whose value fills one 8-byte slot; the others lie in a row's tail."""

_FEAST = {
    "Int32": "int64", "Int64": "int64", "Float32": "float64", "Float64": "float64", "String": "string",
    "Bool": "bool", "UnixTimestamp": "timestamp", "Bytes": "bytes",
}  # fmt: skip


_ARRAY = re.compile(r"Array\((\w+)(?:, (-?\d+))?\)")


def from_feast(feast_type: Any) -> Dtype | None:
    """Our name of a Feast type (`feast.types.Int64`, `Array(Int64)`), None where we have none. Does not import Feast."""
    array = _ARRAY.fullmatch(str(feast_type))
    dtype = _FEAST.get(array[1] if array else str(feast_type))
    return list_of(dtype) if array and dtype else dtype  # type: ignore[arg-type, return-value]


def vector_length(feast_type: Any) -> int | None:
    """The length that a type's name tells, such as 3 of "Array(Float32, 3)"; None where it tells none."""
    array = _ARRAY.fullmatch(str(feast_type))
    return int(array[2]) if array and array[2] else None


def vector_name(feast_type: Any, length: int) -> str:
    """The name of lists of a fixed length: "Array(Float32, 3)" for lists of Float32."""
    return f"Array({feast_type}, {length})"


def shown(dtype: str, length: int | None = None) -> str:
    """A type as people read it: "int64", "list[float64] of 384"."""
    return dtype if length is None else f"{dtype} of {length}"


def feast_name(dtype: str) -> str:
    """The name of one of our types in Feast, its widest form: "Int64", "Array(Int64)"; "Json" for counts."""
    names = {
        "int64": "Int64", "float64": "Float64", "string": "String",
        "bool": "Bool", "timestamp": "UnixTimestamp", "bytes": "Bytes",
    }  # fmt: skip
    if is_counts(dtype):
        return "Json"
    return f"Array({names[element_of(dtype)]})" if is_list(dtype) else names[dtype]


def is_list(dtype: str) -> bool:
    """Whether a value of the type is a list of values."""
    return dtype.startswith("list[")


def is_counts(dtype: str) -> bool:
    """Whether a value of the type is a list of pairs [value, count]."""
    return dtype.startswith("counts[")


def element_of(dtype: str) -> Dtype:
    """The type of the values in a list or in counts; of another type itself."""
    return dtype.partition("[")[2][:-1] if dtype not in SCALARS else dtype  # type: ignore[return-value]


def list_of(dtype: Dtype) -> Dtype:
    """The type of lists of a type's values."""
    return f"list[{dtype}]"  # type: ignore[return-value]


def counts_of(dtype: Dtype) -> Dtype:
    """The type of counts of a type's values."""
    return f"counts[{dtype}]"  # type: ignore[return-value]


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """How a column of the type lies in memory: int64, float64, bool, or Python objects."""
    kinds = {"int64": np.int64, "timestamp": np.int64, "float64": np.float64, "bool": np.bool_}
    return np.dtype(kinds.get(dtype, object))


def arrow_type(dtype: str) -> pa.DataType:
    """The Arrow type in the lake and in results; timestamps are microseconds with zone UTC."""
    import pyarrow as pa

    if is_list(dtype):
        return pa.list_(arrow_type(element_of(dtype)))
    if is_counts(dtype):
        return pa.list_(pa.struct([("value", arrow_type(element_of(dtype))), ("count", pa.int64())]))
    return {
        "int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"), "bytes": pa.binary(),
    }[dtype]  # fmt: skip
