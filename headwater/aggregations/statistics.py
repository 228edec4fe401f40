"""Statistics: which components a feature's function is made of, and how their states become its value.

One function of the library turns states into values on every path: what the worker wrote to
Redis, what a SQL engine returned, what backfill computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headwater.aggregations.approx_distinct import estimate_packed
from headwater.aggregations.components import (
    Component,
    Events,
    Extreme,
    Ints,
    States,
    TextExtreme,
    Total,
    Values,
    from_bytes,
    objects_of,
)  # fmt: skip
from headwater.aggregations.distinct_values import DistinctValues
from headwater.aggregations.hash_sets import HashSet
from headwater.aggregations.last_n import LastN
from headwater.aggregations.latest import NONE, Earliest, Latest, Newest, NewestText
from headwater.aggregations.numbers import from_ordered, quotients, unit_of
from headwater.aggregations.quantiles import Buckets, quantiles
from headwater.aggregations.squares import Squares, variances
from headwater.aggregations.value_counts import ValueCounts
from headwater.columns import Column
from headwater.dtypes import FIXED, is_list
from headwater.errors import ReadError
from headwater.plans.plan import Feature


def components_of(feature: Feature) -> tuple[Component, ...]:
    """The components of a feature, in the order in which `finish` takes their states."""
    f, column = feature, feature.column or ""
    scale = f.scale if f.column_dtype == "float64" else None
    match f.function:
        case "count":
            return (Events(f.where),)
        case "sum" | "mean":
            return (Values(column, scale, f.where), Total(column, f.scale, f.where))
        case "var" | "stddev":
            return (
                Values(column, scale, f.where), Total(column, f.scale, f.where), Squares(column, f.scale, f.where),
            )  # fmt: skip
        case "min" | "max" if f.column_dtype in FIXED:
            return (Values(column, None, f.where), Extreme(column, f.column_dtype, f.function == "max", f.where))
        case "min" | "max":
            return (TextExtreme(column, f.function == "max", f.where),)
        case "first" | "last":
            assert f.column_dtype is not None
            return ((Earliest if f.function == "first" else Latest)(column, f.column_dtype, f.where),)
        case "latest":
            assert f.column_dtype is not None
            return ((Newest if f.column_dtype in FIXED else NewestText)(column, f.column_dtype, f.where),)
        case "last_n":
            assert f.column_dtype is not None
            assert f.n is not None
            return (LastN(column, f.column_dtype, f.n, f.where),)
        case "distinct":
            assert f.column_dtype is not None
            assert f.limit is not None
            return (DistinctValues(column, f.column_dtype, f.limit, f.where),)
        case "top_k":
            assert f.column_dtype is not None
            assert f.limit is not None
            return (ValueCounts(column, f.column_dtype, f.limit, f.where),)
        case "approx_quantile":
            return (Buckets(column, f.scale, f.where),)
        case "approx_distinct":
            return (HashSet(column, f.where),)
    raise ReadError(f"Feature {f.name!r} has the function {f.function!r}, which this version does not know.")


def finish(feature: Feature, states: Sequence[States]) -> Column:
    """The values of m windows: `states` are those of `components_of(feature)`, each of m windows.

    Raises:
        ReadError: an integer sum needs more than 64 bits.
    """
    return _FINISH[feature.function](feature, states)


def _count(feature: Feature, states: Sequence[States]) -> Column:
    return Column("int64", states[0].words[:, 0])


def _sum(feature: Feature, states: Sequence[States]) -> Column:
    n, low, high = states[0].words[:, 0], *_pair(states[1])
    if feature.column_dtype == "float64":
        unit = unit_of(feature.column_dtype, feature.scale)
        return _nullable("float64", quotients(low, high, np.full(len(n), unit, np.int64)), n > 0)
    if (high != low >> 63).any():
        raise ReadError(
            f"The sum {feature.name!r} needs more than 64 bits, and an int64 cannot hold it. "
            f"Make the column a double in 'derive' (CAST({feature.column} AS DOUBLE)), or shorten the window."
        )
    return _nullable("int64", low, n > 0)


def _mean(feature: Feature, states: Sequence[States]) -> Column:
    n, low, high = states[0].words[:, 0], *_pair(states[1])
    unit = unit_of(feature.column_dtype, feature.scale)
    return _nullable("float64", quotients(low, high, np.maximum(n, 1), unit), n > 0)


def _var(feature: Feature, states: Sequence[States]) -> Column:
    n, unit = states[0].words[:, 0], unit_of(feature.column_dtype, feature.scale)
    there = np.flatnonzero(n > 1)
    values = np.zeros(len(n))
    values[there] = variances(n[there], states[1].words[there], states[2].words[there], unit)
    return _nullable("float64", values, n > 1)


def _stddev(feature: Feature, states: Sequence[States]) -> Column:
    var = _var(feature, states)
    return Column("float64", np.sqrt(var.values), var.valid)


def _extreme(feature: Feature, states: Sequence[States]) -> Column:
    if len(states) == 1:
        return _texts(feature, states[0])
    dtype = feature.dtype
    return _nullable(dtype, from_ordered(np.ascontiguousarray(states[1].words[:, 0]), dtype), states[0].words[:, 0] > 0)


def _last(feature: Feature, states: Sequence[States]) -> Column:
    if states[0].objects is not None:
        return _texts(feature, states[0])
    values = from_ordered(np.ascontiguousarray(states[0].words[:, 3]), feature.dtype)
    return _nullable(feature.dtype, values, states[0].words[:, 0] != NONE)


def _latest(feature: Feature, states: Sequence[States]) -> Column:
    if states[0].objects is not None:
        return _texts(feature, states[0])
    values = from_ordered(np.ascontiguousarray(states[0].words[:, 3]), feature.dtype)
    return _nullable(feature.dtype, values, states[0].words[:, 4] != 0)


def _last_n(feature: Feature, states: Sequence[States]) -> Column:
    (component,) = components_of(feature)
    assert isinstance(component, LastN)
    return component.values(states[0])


def _distinct(feature: Feature, states: Sequence[States]) -> Column:
    (component,) = components_of(feature)
    assert isinstance(component, DistinctValues)
    return component.counts(states[0])


def _top_k(feature: Feature, states: Sequence[States]) -> Column:
    (component,) = components_of(feature)
    assert isinstance(component, ValueCounts)
    assert feature.n is not None
    return component.top(states[0], feature.n)


def _approx_quantile(feature: Feature, states: Sequence[States]) -> Column:
    assert feature.q is not None
    return _nullable("float64", *quantiles(states[0], feature.q, unit_of(feature.column_dtype, feature.scale)))


def _approx_distinct(feature: Feature, states: Sequence[States]) -> Column:
    assert states[0].objects is not None
    counts = [estimate_packed(p) if p else 0 for p in states[0].objects.tolist()]
    return Column("int64", np.array(counts, np.int64))


_FINISH: dict[str, Callable[[Feature, Sequence[States]], Column]] = {
    "count": _count, "sum": _sum, "mean": _mean, "var": _var, "stddev": _stddev, "min": _extreme, "max": _extreme,
    "first": _last, "last": _last, "latest": _latest, "last_n": _last_n, "distinct": _distinct, "top_k": _top_k,
    "approx_quantile": _approx_quantile, "approx_distinct": _approx_distinct,
}  # fmt: skip
FUNCTIONS = tuple(_FINISH)
"""The functions that this version knows."""


def _pair(states: States) -> tuple[Ints, Ints]:
    return np.ascontiguousarray(states.words[:, 0]), np.ascontiguousarray(states.words[:, 1])


def _nullable(dtype: Any, values: Any, valid: Any) -> Column:
    if valid.all():
        return Column(dtype, values)
    return Column(dtype, np.where(valid, values, np.zeros(1, values.dtype)), valid)


def _texts(feature: Feature, states: States) -> Column:
    assert states.objects is not None
    items = [None if v is None else from_bytes(v, feature.dtype) for v in states.objects.tolist()]
    valid = np.fromiter((v is not None for v in items), np.bool_, len(items))
    filler: Any = [] if is_list(feature.dtype) else b"" if feature.dtype == "bytes" else ""
    return Column(
        feature.dtype, objects_of([filler if v is None else v for v in items]), None if valid.all() else valid
    )
