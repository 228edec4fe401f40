"""Expressions of one event at a time, in plain Python: the naive loop's own reading of `where` and `derive`.

It takes the typed tree that parsing gave and shares nothing else with `headwater/expressions/`: no
numpy, no columns, a null is None. The meaning of each operator is that of docs/expressions.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from headwater.expressions.syntax import Call, Expr, Literal, Ref

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def value_of(expr: Expr, event: Mapping[str, Any]) -> Any:
    """The expression's value for one event (column -> value); None for null."""
    if isinstance(expr, Ref):
        return event[expr.name]
    if isinstance(expr, Literal):
        return float(expr.value) if expr.dtype == "float64" and expr.value is not None else expr.value
    if expr.op in _LAZY:
        return _tidy(_LAZY[expr.op](expr, event), expr.dtype)
    args = [value_of(arg, event) for arg in expr.args]
    return None if None in args else _tidy(_STRICT[expr.op](*args), expr.dtype)


def holds(condition: Expr | None, event: Mapping[str, Any]) -> bool:
    """Whether a condition is true; unknown is not, no condition always is."""
    return condition is None or value_of(condition, event) is True


def tidy_double(value: float) -> float | None:
    """None for NaN and the infinities; -0.0 becomes 0.0."""
    return value + 0.0 if math.isfinite(value) else None


def _tidy(value: Any, dtype: str) -> Any:
    if value is None:
        return None
    if dtype == "float64":
        return tidy_double(float(value))
    if dtype == "int64":
        return value if -(2**63) <= value < 2**63 else None
    return value


def _divide(a: float, b: float) -> float | None:
    # Python refuses what IEEE calls an infinity or NaN; either is null here.
    return float(a) / float(b) if b else None


def _remainder(a: int, b: int) -> int | None:
    if b == 0:
        return None
    size = abs(a) % abs(b)
    return -size if a < 0 else size


def _substr(text: str, start: int, count: int | None = None) -> str:
    return text[start - 1 :] if count is None else text[start - 1 : start - 1 + count]


def _like(text: str, pattern: str) -> bool:
    parts = {"%": "(?s:.*)", "_": "(?s:.)"}
    return re.fullmatch("".join(parts.get(c) or re.escape(c) for c in pattern), text) is not None


def _letters(text: str, low: str, high: str, by: int) -> str:
    return "".join(chr(ord(c) + by) if low <= c <= high else c for c in text)


def _truncated(unit: str, micros: int) -> int:
    moment = (_EPOCH + timedelta(microseconds=micros)).replace(microsecond=0, second=0)
    if unit != "minute":
        moment = moment.replace(minute=0)
    if unit not in ("minute", "hour"):
        moment = moment.replace(hour=0)
    if unit == "week":
        moment -= timedelta(days=moment.weekday())
    elif unit in ("month", "year"):
        moment = moment.replace(day=1, month=moment.month if unit == "month" else 1)
    return (moment - _EPOCH) // timedelta(microseconds=1)


_STRICT: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "neg": lambda a: -a,
    "abs": abs, "div": _divide, "mod": _remainder, "sqrt": lambda a: math.sqrt(a) if a >= 0 else None,
    "floor": math.floor, "ceil": math.ceil, "to_double": float,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "not": lambda a: not a, "in": lambda a, *items: a in items, "concat": lambda *parts: "".join(parts),
    "length": len, "upper": lambda s: _letters(s, "a", "z", -32), "lower": lambda s: _letters(s, "A", "Z", 32),
    "substr": _substr, "like": _like, "date_trunc": _truncated,
}  # fmt: skip
"""Operators that give null where an argument is null."""


def _and(call: Call, event: Mapping[str, Any]) -> bool | None:
    found = [value_of(arg, event) for arg in call.args]
    return False if False in found else None if None in found else True


def _or(call: Call, event: Mapping[str, Any]) -> bool | None:
    found = [value_of(arg, event) for arg in call.args]
    return True if True in found else None if None in found else False


def _case(call: Call, event: Mapping[str, Any]) -> Any:
    *branches, otherwise = call.args
    for condition, result in zip(branches[::2], branches[1::2], strict=True):
        if value_of(condition, event) is True:
            return value_of(result, event)
    return value_of(otherwise, event)


def _there(call: Call, event: Mapping[str, Any]) -> list[Any]:
    return [v for v in (value_of(arg, event) for arg in call.args) if v is not None]


_LAZY: dict[str, Callable[[Call, Mapping[str, Any]], Any]] = {
    "and": _and, "or": _or, "case": _case,
    "is_null": lambda call, event: value_of(call.args[0], event) is None,
    "coalesce": lambda call, event: next(iter(_there(call, event)), None),
    "greatest": lambda call, event: max(_there(call, event), default=None),
    "least": lambda call, event: min(_there(call, event), default=None),
}  # fmt: skip
"""Operators that have a word of their own on nulls."""
