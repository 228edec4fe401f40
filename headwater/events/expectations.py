"""A source's expectations, held against columns of events: who fails, and the words for it.

Apart from admission because it is arithmetic on columns alone. Nulls meet "between" and "in_set", as in
Great Expectations; only "not_null" speaks of them. The answer for an event depends on that event alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.events.timestamps import format_timestamp
from headwater.plans.plan import Expectation

Mask = NDArray[np.bool_]
_INT64 = np.iinfo(np.int64)


def failing(expectations: Sequence[Expectation], columns: Mapping[str, Column]) -> dict[int, str]:
    """Row -> reason, for every row that fails one or more withholding expectations (`mostly` 1)."""
    reasons: dict[int, list[str]] = {}
    for expectation in expectations:
        if expectation.withholds:
            column = columns[expectation.column]
            for i in np.flatnonzero(fails(expectation, column)).tolist():
                reasons.setdefault(i, []).append(_reason(expectation, column, i))
    return {i: "; ".join(texts) for i, texts in sorted(reasons.items())}


def fails(expectation: Expectation, column: Column) -> Mask:
    """Where the column's values do not meet the expectation, bool[n]."""
    if expectation.kind == "not_null":
        return ~column.mask()
    if expectation.kind == "between":
        return _outside(column, expectation.minimum, expectation.maximum) & column.mask()
    if expectation.kind == "in_set":
        wanted = set(expectation.values)
        outside = np.fromiter((x not in wanted for x in column.values.tolist()), np.bool_, len(column))
        return outside & column.mask()
    raise ValueError(f"Expected an expectation of kind between, not_null or in_set, got {expectation.kind!r}.")


def _outside(column: Column, minimum: float | int | None, maximum: float | int | None) -> Mask:
    outside = np.zeros(len(column), np.bool_)
    if column.dtype == "float64":
        low, high = (None if b is None else float(b) for b in (minimum, maximum))
    else:
        # Integers are compared with integers: a double would round the large ones.
        low = None if minimum is None or minimum == -math.inf else math.ceil(minimum)
        high = None if maximum is None or maximum == math.inf else math.floor(maximum)
        if (low is not None and low > _INT64.max) or (high is not None and high < _INT64.min):
            return ~outside
        low, high = (None if b is None else min(max(b, _INT64.min), _INT64.max) for b in (low, high))
    if low is not None:
        outside |= column.values < low
    if high is not None:
        outside |= column.values > high
    return outside


def _reason(expectation: Expectation, column: Column, row: int) -> str:
    name = expectation.column
    if expectation.kind == "not_null":
        return f"{name}: expected a value, got null"
    value = column.values[row]
    got = (
        format_timestamp(int(value)) if column.dtype == "timestamp" else ascii(getattr(value, "item", lambda: value)())
    )
    if expectation.kind == "between":
        low, high = expectation.minimum, expectation.maximum
        bounds = f"between {low} and {high}" if None not in (low, high) else (
            f"at most {high}" if low is None else f"at least {low}")  # fmt: skip
        return f"{name}: expected a value {bounds}, got {got[:80]}"
    listed = ", ".join(ascii(v) for v in expectation.values[:10]) + (", …" if len(expectation.values) > 10 else "")
    return f"{name}: expected one of {listed}, got {got[:80]}"
