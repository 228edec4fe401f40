"""The types of every operator and function: which operands it takes, and how numbers are widened.

Apart from the parser's walk because these rules know nothing of sqlglot. The tree that they build is
monomorphic: both sides of an operator have one type, so evaluation and SQL need no rules of types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from headwater.dtypes import NUMERIC, Dtype
from headwater.expressions.subset import MAX_SUBSTR, TRUNC_UNITS
from headwater.expressions.syntax import Call, Expr, Literal

_INT64 = range(-(2**63), 2**63)
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?Z?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Wrong(Exception):
    """What is wrong with a piece of an expression; `parse` adds the place and the whole text."""


class Untyped:
    """A NULL before its surroundings give it a type."""

    dtype = None


Operand = Expr | Untyped


def number(text: str, *, negative: bool) -> Literal:
    """A number literal: an int64, or a double where it has a point or an exponent."""
    sign = "-" if negative else ""
    if re.fullmatch(r"[0-9]+", text):
        if int(sign + text) not in _INT64:
            raise Wrong(f"`{sign}{text}` does not fit a 64-bit integer; write {sign}{text}.0 for a double")
        return Literal(int(sign + text), "int64")
    value = float(sign + text)
    if not math.isfinite(value):
        raise Wrong(f"`{sign}{text}` does not fit a double")
    return Literal(repr(value + 0.0), "float64")


def text(value: str) -> Literal:
    """A string literal."""
    return Literal(value, "string")


def timestamp(value: str, piece: str) -> Literal:
    """A timestamp literal in UTC, as microseconds since the epoch."""
    if not _TIMESTAMP.fullmatch(value):
        raise Wrong(f"`{piece}`: expected TIMESTAMP 'YYYY-MM-DD HH:MM:SS' in UTC, got '{value}'")
    try:
        moment = datetime.fromisoformat(value.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError as error:
        raise Wrong(f"`{piece}`: '{value}' is no time ({error})") from None
    return Literal((moment - _EPOCH) // timedelta(microseconds=1), "timestamp")


def arithmetic(op: str, left: Operand, right: Operand, piece: str) -> Expr:
    """+, - or * of two numbers."""
    args = alike([left, right], piece)
    demand(args[0], NUMERIC, piece)
    return Call(op, tuple(args), args[0].dtype)


def divide(left: Operand, right: Operand, piece: str) -> Expr:
    """Division of doubles."""
    return Call("div", (_double(left, piece), _double(right, piece)), "float64")


def remainder(left: Operand, right: Operand, piece: str) -> Expr:
    """% of integers."""
    args = alike([left, right], piece)
    demand(args[0], ("int64",), piece)
    return Call("mod", tuple(args), "int64")


def negate(value: Operand, piece: str) -> Expr:
    """The unary minus."""
    known = demand(value, NUMERIC, piece)
    return Call("neg", (known,), known.dtype)


def absolute(value: Operand, piece: str) -> Expr:
    """abs(a)."""
    known = demand(value, NUMERIC, piece)
    return Call("abs", (known,), known.dtype)


def square_root(value: Operand, piece: str) -> Expr:
    """sqrt(a)."""
    return Call("sqrt", (_double(value, piece),), "float64")


def floor(value: Operand, piece: str) -> Expr:
    """floor(a), an int64."""
    return _whole("floor", value, piece)


def ceil(value: Operand, piece: str) -> Expr:
    """ceil(a), an int64."""
    return _whole("ceil", value, piece)


def _whole(op: str, value: Operand, piece: str) -> Expr:
    known = demand(value, NUMERIC, piece)
    return known if known.dtype == "int64" else Call(op, (known,), "int64")


def to_double(value: Operand, piece: str) -> Expr:
    """CAST(a AS DOUBLE)."""
    return Literal(None, "float64") if isinstance(value, Untyped) else _double(value, piece)


def comparison(op: str, left: Operand, right: Operand, piece: str) -> Expr:
    """Two values of one type; bool only for = and <>."""
    args = alike([left, right], piece)
    if args[0].dtype == "bool" and op not in ("eq", "ne"):
        raise Wrong(f"`{piece}`: bool has no order, use = or <>")
    return Call(op, tuple(args), "bool")


def logic(op: str, values: Sequence[Operand], piece: str) -> Expr:
    """AND or OR of bools; nested ones of the same kind become one."""
    args: list[Expr] = []
    for value in values:
        known = Literal(None, "bool") if isinstance(value, Untyped) else demand(value, ("bool",), piece)
        args += known.args if isinstance(known, Call) and known.op == op else (known,)
    return Call(op, tuple(args), "bool")


def inverse(value: Operand, piece: str) -> Expr:
    """NOT of a bool."""
    known = Literal(None, "bool") if isinstance(value, Untyped) else demand(value, ("bool",), piece)
    return Call("not", (known,), "bool")


def is_null(value: Operand, piece: str) -> Expr:
    """IS NULL of anything that has a type."""
    if isinstance(value, Untyped):
        raise Wrong(f"`{piece}`: NULL alone has no type")
    return Call("is_null", (value,), "bool")


def one_of(value: Operand, items: Sequence[Operand], piece: str) -> Expr:
    """IN over constants."""
    if any(not isinstance(item, Literal) for item in items) or not items:
        raise Wrong(f"`{piece}`: IN takes constants, none of them NULL")
    return Call("in", tuple(alike([value, *items], piece)), "bool")


def case(conditions: Sequence[Operand], values: Sequence[Operand], piece: str) -> Expr:
    """Condition, value, condition, value, …, default; `values` has one more than `conditions`."""
    known = alike(values, piece)
    args: list[Expr] = []
    for condition, value in zip(conditions, known, strict=False):
        args += [demand(condition, ("bool",), piece), value]
    return Call("case", (*args, known[-1]), known[-1].dtype)


def nullif(left: Operand, right: Operand, piece: str) -> Expr:
    """NULLIF(a, b), which has the type of a."""
    if isinstance(left, Untyped):
        raise Wrong(f"`{piece}`: NULL alone has no type")
    return case([comparison("eq", left, right, piece)], [Untyped(), left], piece)


def several(op: str, values: Sequence[Operand], piece: str) -> Expr:
    """COALESCE, greatest or least of one type."""
    args = alike(values, piece)
    if op != "coalesce":
        demand(args[0], (*NUMERIC, "string", "timestamp"), piece)
    return args[0] if len(args) == 1 else Call(op, tuple(args), args[0].dtype)


def concat(values: Sequence[Operand], piece: str) -> Expr:
    """|| of strings."""
    return Call("concat", tuple(_string(v, piece) for v in values), "string")


def length(value: Operand, piece: str) -> Expr:
    """length(s) in code points."""
    return Call("length", (_string(value, piece),), "int64")


def upper(value: Operand, piece: str) -> Expr:
    """upper(s), A to Z."""
    return Call("upper", (_string(value, piece),), "string")


def lower(value: Operand, piece: str) -> Expr:
    """lower(s), A to Z."""
    return Call("lower", (_string(value, piece),), "string")


def substr(value: Operand, bounds: Sequence[Operand], piece: str) -> Expr:
    """substr(s, start[, n]) with constants, start at least 1."""
    for bound, smallest in zip(bounds, (1, 0), strict=False):
        number = bound.value if isinstance(bound, Literal) and bound.dtype == "int64" else None
        if not isinstance(number, int) or not smallest <= number <= MAX_SUBSTR:
            raise Wrong(
                f"`{piece}`: substr takes whole constants, start from 1 and length from 0, at most {MAX_SUBSTR}"
            )
    known = [bound for bound in bounds if not isinstance(bound, Untyped)]
    return Call("substr", (_string(value, piece), *known), "string")


def like(value: Operand, pattern: Operand, piece: str) -> Expr:
    """LIKE with a constant pattern."""
    if not isinstance(pattern, Literal) or not isinstance(pattern.value, str) or pattern.dtype != "string":
        raise Wrong(f"`{piece}`: LIKE takes a constant text as its pattern")
    if "\\" in pattern.value:
        raise Wrong(f"`{piece}`: a LIKE pattern has no backslash, since engines differ on it")
    return Call("like", (_string(value, piece), pattern), "bool")


def date_trunc(unit: str, value: Operand, piece: str) -> Expr:
    """date_trunc('hour', t)."""
    if unit.lower() not in TRUNC_UNITS:
        raise Wrong(f"`{piece}`: date_trunc knows {', '.join(TRUNC_UNITS)}, got '{unit.lower()}'")
    known = demand(value, ("timestamp",), piece)
    return Call("date_trunc", (Literal(unit.lower(), "string"), known), "timestamp")


def demand(value: Operand, allowed: Sequence[str], piece: str) -> Expr:
    """The value, or an error that says which types are allowed."""
    if isinstance(value, Untyped):
        raise Wrong(f"`{piece}`: expected {' or '.join(allowed)}, got a NULL without a type")
    if value.dtype not in allowed:
        raise Wrong(f"`{piece}`: expected {' or '.join(allowed)}, got {value.dtype}")
    return value


def alike(values: Sequence[Operand], piece: str) -> list[Expr]:
    """The values in one type: NULLs take it, int64 widens to float64 where one is float64."""
    kinds = {v.dtype for v in values if not isinstance(v, Untyped)}
    if not kinds:
        raise Wrong(f"`{piece}`: NULL alone has no type")
    if kinds == {"int64", "float64"}:
        kinds = {"float64"}
    if len(kinds) > 1:
        names = " and ".join(sorted(str(k) for k in kinds))
        raise Wrong(f"`{piece}`: {names} do not go together, and nothing is converted silently")
    dtype = kinds.pop()
    assert dtype is not None
    return [_as(v, dtype, piece) for v in values]


def _as(value: Operand, dtype: Dtype, piece: str) -> Expr:
    if isinstance(value, Untyped):
        return Literal(None, dtype)
    return _double(value, piece) if dtype == "float64" else value


def _double(value: Operand, piece: str) -> Expr:
    if isinstance(value, Untyped):
        return Literal(None, "float64")
    known = demand(value, NUMERIC, piece)
    if known.dtype == "float64":
        return known
    if isinstance(known, Literal):
        return Literal(None if known.value is None else repr(float(known.value)), "float64")
    return Call("to_double", (known,), "float64")


def _string(value: Operand, piece: str) -> Expr:
    return Literal(None, "string") if isinstance(value, Untyped) else demand(value, ("string",), piece)
