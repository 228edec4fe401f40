"""A typed tree over numpy columns: what the stream computes, and what SQL has to equal.

Apart from the SQL rendering because workers need numpy alone. Inside, constants are arrays of
length 1, so broadcasting does the rest; a bool is always False where it is null, which makes
three-valued AND and OR a few bit operations. Text functions are in `text.py`, calendar
functions in `calendar.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.dtypes import numpy_dtype
from headwater.expressions import calendar, text
from headwater.expressions.syntax import Call, Expr, Literal, Ref

_MIN, _MAX = -(2**63), 2**63 - 1
_FILL: dict[str, Any] = {"string": "", "bytes": b"", "bool": False, "float64": 0.0}


class Value(NamedTuple):
    """Values and where they are not null (None: everywhere); both of the batch's length, or of length 1."""

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None = None


def evaluate(expr: Expr, columns: Mapping[str, Column], length: int) -> Column:
    """The expression's value for each of `length` rows, by the rules of `subset.py`.

    `columns` hold the names that the expression mentions, each of that length. The result has
    nulls and fillers as `Column` wants them; it may share memory with a column. Never raises on
    values: what does not fit is null.
    """
    with np.errstate(all="ignore"):
        values, valid = _value(expr, columns)
    if len(values) != length:
        values = np.broadcast_to(values, length).copy()
    if valid is not None and len(valid) != length:
        valid = np.broadcast_to(valid, length).copy()
    return Column(expr.dtype, values, valid)


def _value(expr: Expr, columns: Mapping[str, Column]) -> Value:
    if isinstance(expr, Ref):
        column = columns[expr.name]
        return Value(column.values, column.valid)
    if isinstance(expr, Literal):
        return _constant(expr)
    if expr.op in _WITH_CONSTANTS:
        return _WITH_CONSTANTS[expr.op](expr, _value_of_operand(expr, columns))
    value = _OPERATORS[expr.op]([_value(arg, columns) for arg in expr.args])
    return _finished(value, expr.dtype)


def _constant(literal: Literal) -> Value:
    kind = numpy_dtype(literal.dtype)
    out = np.empty(1, kind)
    if literal.value is None:
        out[0] = _FILL.get(literal.dtype, 0)
        return Value(out, np.zeros(1, np.bool_))
    out[0] = float(literal.value) if literal.dtype == "float64" else literal.value
    return Value(out)


def _finished(value: Value, dtype: str) -> Value:
    """Doubles normalised, and the filler where the value is null."""
    values, valid = value
    if dtype == "float64":
        values = np.add(values, 0.0)
        finite = np.isfinite(values)
        if not finite.all():
            valid = finite if valid is None else valid & finite
    if valid is None or dtype == "bool":
        return Value(values, valid)
    if valid.all():
        return Value(values)
    return Value(np.where(valid, values, _FILL.get(dtype, 0)), valid)


def _both(a: NDArray[np.bool_] | None, b: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if a is None:
        return b
    return a if b is None else a & b


def _all(values: list[Value]) -> NDArray[np.bool_] | None:
    return reduce(_both, [v.valid for v in values], None)


def _mask(value: Value) -> NDArray[np.bool_]:
    return np.ones(len(value.values), np.bool_) if value.valid is None else value.valid


def _is_int(value: Value) -> bool:
    return value.values.dtype == np.int64


# Arithmetic


def _bounds(values: NDArray[Any]) -> tuple[int, int]:
    return (int(values.min()), int(values.max())) if len(values) else (0, 0)


def _fits(low: int, high: int) -> bool:
    return low >= _MIN and high <= _MAX


def _add(args: list[Value]) -> Value:
    (a, b), valid = (v.values for v in args), _all(args)
    out = a + b
    if _is_int(args[0]):
        (a0, a1), (b0, b1) = _bounds(a), _bounds(b)
        if not _fits(a0 + b0, a1 + b1):
            valid = _both(valid, ((a ^ out) & (b ^ out)) >= 0)
    return Value(out, valid)


def _sub(args: list[Value]) -> Value:
    (a, b), valid = (v.values for v in args), _all(args)
    out = a - b
    if _is_int(args[0]):
        (a0, a1), (b0, b1) = _bounds(a), _bounds(b)
        if not _fits(a0 - b1, a1 - b0):
            valid = _both(valid, ((a ^ b) & (a ^ out)) >= 0)
    return Value(out, valid)


def _mul(args: list[Value]) -> Value:
    (a, b), valid = (v.values for v in args), _all(args)
    out = a * b
    if _is_int(args[0]):
        corners = [x * y for x in _bounds(a) for y in _bounds(b)]
        if not _fits(min(corners), max(corners)):
            valid = _both(valid, _product_fits(a, b, out))
    return Value(out, valid)


def _product_fits(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> NDArray[np.bool_]:
    # Dividing back finds every wrapped product but -1 * INT64_MIN, where the quotient wraps too.
    divisor = np.where(b == 0, 1, b)
    back = (b == 0) | (out // divisor == a) & (out % divisor == 0)
    wraps = ((b == -1) & (a == _MIN)) | ((a == -1) & (b == _MIN))
    fits: NDArray[np.bool_] = back & ~wraps
    return fits


def _neg(args: list[Value]) -> Value:
    ((values, valid),) = args
    return Value(-values, _both(valid, values != _MIN) if _is_int(args[0]) else valid)


def _abs(args: list[Value]) -> Value:
    ((values, valid),) = args
    return Value(np.abs(values), _both(valid, values != _MIN) if _is_int(args[0]) else valid)


def _div(args: list[Value]) -> Value:
    (a, b), valid = (v.values for v in args), _all(args)
    return Value(np.divide(a, b), valid)  # by zero: not finite, so null


def _mod(args: list[Value]) -> Value:
    (a, b), valid = (v.values for v in args), _all(args)
    zero = b == 0
    # x % -1 is 0 as x % 1 is, but INT64_MIN % -1 traps on some machines.
    out = np.fmod(a, np.where(zero | (b == -1), 1, b))
    return Value(out, _both(valid, ~zero) if zero.any() else valid)


def _sqrt(args: list[Value]) -> Value:
    ((values, valid),) = args
    return Value(np.sqrt(values), valid)  # below zero: NaN, so null


def _whole(rounding: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[list[Value]], Value]:
    def whole(args: list[Value]) -> Value:
        ((values, valid),) = args
        out = rounding(values)
        fits = (out >= -(2.0**63)) & (out < 2.0**63)
        if fits.all():
            return Value(out.astype(np.int64), valid)
        return Value(np.where(fits, out, 0.0).astype(np.int64), _both(valid, fits))

    return whole


def _to_double(args: list[Value]) -> Value:
    ((values, valid),) = args
    return Value(values.astype(np.float64), valid)


# Comparison and logic


def _comparison(ufunc: Callable[..., NDArray[Any]]) -> Callable[[list[Value]], Value]:
    def compare(args: list[Value]) -> Value:
        (a, b), valid = (v.values for v in args), _all(args)
        out = ufunc(a, b).astype(np.bool_, copy=False)
        return Value(out if valid is None else out & valid, valid)

    return compare


def _and(args: list[Value]) -> Value:
    true = reduce(np.logical_and, [v.values for v in args])
    if all(v.valid is None for v in args):
        return Value(true)
    false = reduce(np.logical_or, [_mask(v) ^ v.values for v in args])
    return Value(true, true | false)


def _or(args: list[Value]) -> Value:
    true = reduce(np.logical_or, [v.values for v in args])
    if all(v.valid is None for v in args):
        return Value(true)
    false = reduce(np.logical_and, [_mask(v) ^ v.values for v in args])
    return Value(true, true | false)


def _not(args: list[Value]) -> Value:
    ((values, valid),) = args
    return Value(~values if valid is None else valid ^ values, valid)


def _is_null(args: list[Value]) -> Value:
    (value,) = args
    return Value(np.zeros(1, np.bool_) if value.valid is None else ~value.valid)


def _in(args: list[Value]) -> Value:
    value, items = args[0], [v.values[0] for v in args[1:]]
    if value.values.dtype == object:
        out = text.member(value.values, items)
    else:
        out = np.isin(value.values, np.array(items, value.values.dtype))
    return Value(out if value.valid is None else out & value.valid, value.valid)


# Choosing


def _case(args: list[Value]) -> Value:
    out = args[-1]
    for condition, value in zip(args[-3::-2], args[-2::-2], strict=True):
        out = _choose(condition.values, value, out)
    return out


def _choose(first: NDArray[np.bool_], a: Value, b: Value) -> Value:
    valid = None if a.valid is None and b.valid is None else np.where(first, _mask(a), _mask(b))
    return Value(np.where(first, a.values, b.values), valid)


def _coalesce(args: list[Value]) -> Value:
    out = args[-1]
    for value in args[-2::-1]:
        out = value if value.valid is None else _choose(value.valid, value, out)
    return out


def _extreme(wanted: Callable[..., NDArray[Any]]) -> Callable[[list[Value]], Value]:
    def extreme(args: list[Value]) -> Value:
        return reduce(better, args)

    def better(a: Value, b: Value) -> Value:
        first = wanted(a.values, b.values).astype(np.bool_, copy=False)
        if a.valid is None and b.valid is None:
            return Value(np.where(first, a.values, b.values))
        known_a, known_b = _mask(a), _mask(b)
        return Value(np.where(known_a & (first | ~known_b), a.values, b.values), known_a | known_b)

    return extreme


# Text and time


def _of_text(function: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[list[Value]], Value]:
    return lambda args: Value(function(args[0].values), args[0].valid)


def _concat(args: list[Value]) -> Value:
    return Value(reduce(np.add, [v.values for v in args]), _all(args))


_OPERATORS: dict[str, Callable[[list[Value]], Value]] = {
    "add": _add, "sub": _sub, "mul": _mul, "neg": _neg, "abs": _abs, "div": _div, "mod": _mod, "sqrt": _sqrt,
    "floor": _whole(np.floor), "ceil": _whole(np.ceil), "to_double": _to_double,
    "eq": _comparison(np.equal), "ne": _comparison(np.not_equal), "lt": _comparison(np.less),
    "le": _comparison(np.less_equal), "gt": _comparison(np.greater), "ge": _comparison(np.greater_equal),
    "and": _and, "or": _or, "not": _not, "is_null": _is_null, "in": _in,
    "case": _case, "coalesce": _coalesce,
    "greatest": _extreme(np.greater_equal), "least": _extreme(np.less_equal),
    "concat": _concat, "length": _of_text(text.length), "upper": _of_text(text.upper), "lower": _of_text(text.lower),
}  # fmt: skip


def _value_of_operand(expr: Call, columns: Mapping[str, Column]) -> Value:
    return _value(expr.args[1 if expr.op == "date_trunc" else 0], columns)


def _literal(expr: Expr) -> Any:
    assert isinstance(expr, Literal)
    return expr.value


def _substr(expr: Call, value: Value) -> Value:
    return Value(text.substr(value.values, *map(_literal, expr.args[1:])), value.valid)


def _like(expr: Call, value: Value) -> Value:
    out = text.like(value.values, _literal(expr.args[1]))
    return Value(out if value.valid is None else out & value.valid, value.valid)


def _date_trunc(expr: Call, value: Value) -> Value:
    return _finished(Value(calendar.truncate(_literal(expr.args[0]), value.values), value.valid), "timestamp")


_WITH_CONSTANTS: dict[str, Callable[[Call, Value], Value]] = {
    "substr": _substr, "like": _like, "date_trunc": _date_trunc,
}  # fmt: skip
"""Operators some of whose arguments are constants of the tree, not columns."""
