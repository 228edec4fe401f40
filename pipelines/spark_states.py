"""What the query of window_states.py returned, as states: the same as rows hold, so that one function finishes all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.approx_distinct import FULL, REGISTERS, pack
from headwater.aggregations.components import (
    Events,
    Extreme,
    States,
    TextExtreme,
    Total,
    Values,
    objects_of,
    tail_values,
)
from headwater.aggregations.distinct_values import DistinctValues
from headwater.aggregations.hash_sets import HashSet
from headwater.aggregations.last_n import LastN
from headwater.aggregations.latest import NONE, Latest, Newest
from headwater.aggregations.numbers import LOW, to_ordered
from headwater.aggregations.quantiles import Buckets
from headwater.aggregations.squares import Squares, words_of
from headwater.aggregations.value_counts import ValueCounts
from headwater.columns import Column
from headwater.dtypes import Dtype

if TYPE_CHECKING:
    import pyarrow as pa

Component = (
    Events | Values | Total | Squares | Extreme | TextExtreme | Latest | LastN | DistinctValues | ValueCounts | Buckets
    | HashSet
)  # fmt: skip


def decoded(component: Component, column: pa.ChunkedArray) -> States:
    """The states of one component for m keys."""
    array = column.combine_chunks()
    match component:
        case Events() | Values():
            return States(_ints(array)[:, None])
        case Total():
            return States(_wide(_ints(_field(array, "high")), _ints(_field(array, "low"))))
        case Squares():
            return States(_squares(array))
        case Extreme():
            return States(_ordered(component.dtype, array, component.empty[0])[:, None])
        case TextExtreme():
            return States(np.zeros((len(array), 1), np.int64), _objects(array, "string"))
        case DistinctValues():
            return component.state_of(_ints(array))
        case ValueCounts():
            return component.state_of([_pairs(s) for s in array.to_pylist()])
        case Buckets():
            return component.state_of([_pairs(s) or [] for s in array.to_pylist()])
        case LastN():
            return component.state_of([[tuple(e.values()) for e in s or ()] for s in array.to_pylist()])
        case Latest():
            return _latest(component, array)
        case HashSet():
            return States(np.zeros((len(array), 1), np.int64), objects_of([_packed(s) for s in array.to_pylist()]))
    raise AssertionError(component)


def _squares(array: pa.Array) -> NDArray[np.int64]:
    """192-bit sums of squares: aa << 64 + ab << 33 + pp << 32 + pq << 17 + qq."""
    names = ("aa_high", "aa_low", "ab_high", "ab_low", "pp", "pq", "qq")
    shifts = (96, 64, 65, 33, 32, 17, 0)
    parts = (_ints(_field(array, name)).astype(object) << shift for name, shift in zip(names, shifts, strict=True))
    total = sum(parts, np.zeros(len(array), object))
    return words_of([(total >> 32 * i & LOW).astype(np.int64) for i in range(6)])


def _wide(high: NDArray[np.int64], low: NDArray[np.int64]) -> NDArray[np.int64]:
    """128-bit sums (low word, high word) of two sums of 32-bit limbs; `low` is never negative."""
    top = high + (low >> 32)
    return np.stack([(top << 32) | (low & LOW), top >> 32], axis=1)


def _latest(component: Latest, array: pa.Array) -> States:
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    words = np.zeros((len(array), component.width), np.int64)
    for i, name in enumerate(("t", "p", "o")):
        words[:, i] = np.where(valid, _ints(_field(array, name)), NONE if i == 0 else 0)
    if component.variable:
        return States(words, _objects(_field(array, "v"), component.dtype))
    value = _field(array, "v")
    words[:, 3] = np.where(valid, _ordered(component.dtype, value, 0), 0)
    if isinstance(component, Newest):
        words[:, 4] = value.is_valid().to_numpy(zero_copy_only=False)
    return States(words)


def _field(array: pa.Array, name: str) -> pa.Array:
    """A field of a struct, null where the struct is."""
    import pyarrow.compute as pc

    return pc.struct_field(array, name)


def _ints(array: pa.Array) -> NDArray[np.int64]:
    import pyarrow as pa

    values: NDArray[np.int64] = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return values


def _ordered(dtype: Dtype, array: pa.Array, empty: int) -> NDArray[np.int64]:
    """Values of 8 bytes as integers that sort alike, `empty` for null."""
    column = Column.from_arrow("int64" if dtype == "timestamp" else dtype, array)
    return np.where(column.mask(), to_ordered(column.values, dtype), empty)


def _objects(array: pa.Array, dtype: str) -> NDArray[Any]:
    return objects_of([None if v is None else tail_values([v], dtype)[0] for v in array.to_pylist()])


def _packed(state: dict[str, Any] | None) -> bytes | None:
    """The packed set of a struct of hashes or registers."""
    if state is None:
        return None
    if state["registers"] is not None:
        registers = np.zeros(REGISTERS, np.uint8)
        for pair in state["registers"]:
            registers[pair["i"]] = pair["r"]
        return FULL + registers.tobytes()
    return pack(np.array(sorted(int(h, 16) for h in state["hashes"]), np.uint64))


def _pairs(state: dict[str, Any] | None) -> list[tuple[Any, int]] | None:
    """The (value, count) pairs of a struct; None where there were more than its limit."""
    if state is None:
        return []
    return None if state["items"] is None else [(item["v"], item["n"]) for item in state["items"]]
