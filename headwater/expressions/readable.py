"""A typed tree as the text that a person would write: what `headwater plan` and the catalog show.

Plans keep conditions of features as trees alone. Parsing the text gives the same tree again, so it can
be copied into a definition; the SQL that engines run (`sql.py`) says the same, and much more.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from headwater.expressions.syntax import Call, Expr, Literal, Ref

_INFIX = {
    "or": ("OR", 1), "and": ("AND", 2), "eq": ("=", 4), "ne": ("<>", 4), "lt": ("<", 4), "le": ("<=", 4),
    "gt": (">", 4), "ge": (">=", 4), "concat": ("||", 6), "add": ("+", 7), "sub": ("-", 7), "mul": ("*", 8),
    "div": ("/", 8), "mod": ("%", 8),
}  # fmt: skip
"""How an operator is written, and how tightly it binds."""
_NOT, _RANGE, _MINUS, _ATOM = 3, 5, 9, 10
_LEFT_TO_RIGHT = {"add", "sub", "mul", "div", "mod"}
_RANGES = {"is_null", "in", "like"}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED_WORDS = (
    "all and any array as asc between both by case cast check collate column create cross default desc distinct do "
    "else end except exists false fetch for foreign from full group having ilike in inner intersect interval into is "
    "join left like limit natural not null offset on or order outer over partition primary references right select "
    "set some table then to true union unique using values view when where window with"
)
_RESERVED = frozenset(_RESERVED_WORDS.split())


def readable(expr: Expr) -> str:
    """The expression with as few parentheses as it needs."""
    return _written(expr)[0]


def _written(expr: Expr) -> tuple[str, int]:
    """The text, and how tightly its outermost operator binds."""
    if isinstance(expr, Ref):
        plain = _PLAIN_NAME.fullmatch(expr.name) and expr.name.lower() not in _RESERVED
        return expr.name if plain else '"' + expr.name.replace('"', '""') + '"', _ATOM
    if isinstance(expr, Literal):
        return _constant(expr), _ATOM
    if expr.op in _INFIX:
        return _infix(expr)
    if expr.op in _RANGES:
        return _range(expr, ""), _RANGE
    if expr.op == "not":
        return _inverse(expr)
    if expr.op == "neg":
        return "-" + _within(expr.args[0], _ATOM, negative=True), _MINUS
    return _called(expr), _ATOM


def _within(expr: Expr, least: int, *, negative: bool = False) -> str:
    """The text as an operand, in parentheses where it binds less tightly than `least`."""
    text, binds = _written(expr)
    return f"({text})" if binds < least or (negative and text.startswith("-")) else text


def _infix(call: Call) -> tuple[str, int]:
    sign, binds = _INFIX[call.op]
    args = _bare(call)
    first = binds if call.op in _LEFT_TO_RIGHT else binds + 1
    operands = [_within(args[0], first), *(_within(arg, binds + 1) for arg in args[1:])]
    return f" {sign} ".join(operands), binds


def _bare(call: Call) -> tuple[Expr, ...]:
    """The operands without the widening that happens by itself: of an integer that meets a double."""
    wide = [isinstance(arg, Call) and arg.op == "to_double" for arg in call.args]
    null = [isinstance(arg, Literal) and arg.value is None for arg in call.args]
    if call.op != "div" and all(w or n for w, n in zip(wide, null, strict=True)):
        return call.args
    return tuple(arg.args[0] if w and isinstance(arg, Call) else arg for arg, w in zip(call.args, wide, strict=True))


def _inverse(call: Call) -> tuple[str, int]:
    (inner,) = call.args
    if isinstance(inner, Call) and inner.op in _RANGES:
        return _range(inner, "NOT "), _RANGE
    return f"NOT {_within(inner, _RANGE)}", _NOT


def _range(call: Call, inverse: str) -> str:
    args = _bare(call) if call.op == "in" else call.args
    value = _within(args[0], _RANGE + 1)
    if call.op == "is_null":
        return f"{value} IS {inverse}NULL"
    if call.op == "like":
        return f"{value} {inverse}LIKE {readable(args[1])}"
    return f"{value} {inverse}IN ({', '.join(map(readable, args[1:]))})"


def _called(call: Call) -> str:
    if call.op == "to_double":
        return f"CAST({readable(call.args[0])} AS DOUBLE)"
    if call.op == "case":
        branches = zip(call.args[0:-1:2], call.args[1:-1:2], strict=True)
        text = " ".join(f"WHEN {readable(c)} THEN {readable(v)}" for c, v in branches)
        last = call.args[-1]
        none = isinstance(last, Literal) and last.value is None
        return f"CASE {text} END" if none else f"CASE {text} ELSE {readable(last)} END"
    return f"{call.op}({', '.join(map(readable, call.args))})"


def _constant(literal: Literal) -> str:
    if literal.value is None:
        return "NULL"
    if literal.dtype == "string":
        return "'" + str(literal.value).replace("'", "''") + "'"
    if literal.dtype == "timestamp":
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(literal.value))
        return f"TIMESTAMP '{moment.replace(tzinfo=None).isoformat(' ')}'"
    return str(literal.value).upper() if literal.dtype == "bool" else str(literal.value)
