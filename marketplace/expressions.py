"""The conditions of features, as text to read: a plan keeps them as trees.

What has no short form here is written as the SQL that engines run, which is correct and harder to read.
"""

from __future__ import annotations

from headwater.expressions.syntax import Call, Expr, Literal, Ref
from headwater.plans.plan import StreamView, View

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "eq": "=", "ne": "<>", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "and": "AND", "or": "OR", "concat": "||",
}  # fmt: skip
_FUNCTIONS = {
    "abs", "sqrt", "floor", "ceil", "upper", "lower", "length", "greatest", "least", "coalesce", "substr",
}  # fmt: skip


def feature_conditions(view: View) -> dict[str, str]:
    """Feature name -> its own `where`, for the features that have one."""
    if not isinstance(view, StreamView):
        return {}
    return {f.name: _whole(f.where) for f in view.features if f.where is not None}


def _whole(expr: Expr) -> str:
    """An expression without the parentheses that would stand around the whole."""
    written = readable(expr)
    return written[1:-1] if isinstance(expr, Call) and expr.op in _INFIX else written


def readable(expr: Expr) -> str:
    """An expression as a person would write it, in parentheses where it has parts."""
    if isinstance(expr, Ref):
        return expr.name
    if isinstance(expr, Literal) and expr.dtype != "timestamp":
        return _constant(expr)
    return _called(expr) if isinstance(expr, Call) else _sql(expr)


def _called(expr: Call) -> str:
    if expr.op in _INFIX:
        return "(" + f" {_INFIX[expr.op]} ".join(readable(a) for a in expr.args) + ")"
    if expr.op in _FUNCTIONS:
        return f"{expr.op}({', '.join(map(readable, expr.args))})"
    if expr.op == "in":
        return f"({readable(expr.args[0])} IN ({', '.join(map(readable, expr.args[1:]))}))"
    if expr.op == "not" and readable(expr.args[0]).endswith(" IS NULL"):
        return readable(expr.args[0]).removesuffix(" IS NULL") + " IS NOT NULL"
    if expr.op == "is_null":
        return f"{readable(expr.args[0])} IS NULL"
    if expr.op == "to_double":
        return readable(expr.args[0])
    return _sql(expr)


def _sql(expr: Expr) -> str:
    from headwater.expressions.sql import to_sql

    return to_sql(expr, "duckdb")


def _constant(literal: Literal) -> str:
    if literal.value is None:
        return "NULL"
    if literal.dtype == "string":
        return "'" + str(literal.value).replace("'", "''") + "'"
    return str(literal.value).upper() if literal.dtype == "bool" else str(literal.value)
