"""Text to typed tree: everything outside of the subset is an error here, before anything runs.

Apart from the tree and its evaluation because only definitions need it: workers and servers
load trees from the plan and never import sqlglot. The walk over sqlglot's tree is here, the
typing of each operator and function is in `typed.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import errors as sqlglot_errors
from sqlglot import exp, parse_one

from headwater.dtypes import Dtype, is_list
from headwater.errors import DefinitionError, nearest
from headwater.expressions import typed
from headwater.expressions.subset import FUNCTIONS, MAX_DEPTH, MAX_TEXT, OPERATORS, REFUSED
from headwater.expressions.syntax import Call, Expr, Literal, Ref
from headwater.expressions.typed import Untyped, Wrong


def parse(text: str, columns: Mapping[str, Dtype], *, place: str) -> Expr:
    """The typed tree of an expression over `columns` (name -> type).

    `place` says where the text stands, such as "where of view 'customer_spend'"; every message
    begins with it. Numbers of different types are widened explicitly, by `to_double` nodes.

    Raises:
        DefinitionError: not SQL, an unknown column, wrong types, or outside of the subset
            (docs/expressions.md); it names the place, the piece of text and what is allowed.
    """
    try:
        tree = _Walk(columns).root(_sql(text))
    except Wrong as wrong:
        raise DefinitionError(f"{place}: {str(wrong).rstrip('.')}. The expression: {text}") from None
    except RecursionError:
        raise DefinitionError(f"{place}: the expression is nested too deeply (at most {MAX_DEPTH} levels)") from None
    if _depth(tree) > MAX_DEPTH:
        raise DefinitionError(f"{place}: the expression is nested too deeply (at most {MAX_DEPTH} levels)")
    return tree


def _sql(text: str) -> exp.Expression:
    if not isinstance(text, str) or not text.strip():
        raise Wrong(f"expected an SQL expression, got {text!r}")
    if len(text) > MAX_TEXT:
        raise Wrong(f"{len(text)} characters are too many (at most {MAX_TEXT})")
    if "\0" in text:
        raise Wrong("a NUL character cannot stand in an expression")
    try:
        return parse_one(text, dialect="duckdb")
    except sqlglot_errors.SqlglotError as error:
        raise Wrong(f"not an SQL expression ({_first_error(error)})") from None


def _first_error(error: sqlglot_errors.SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if not details:
        return str(error).splitlines()[0]
    first = details[0]
    if first.get("description", "").startswith("Required keyword"):
        return "something is missing"
    near = first.get("highlight") or first.get("end_context") or ""
    return f"{first.get('description', 'wrong syntax').rstrip('.')} near '{near}'"


def _depth(tree: Expr) -> int:
    deepest, level = 0, [tree]
    while level:
        deepest += 1
        level = [arg for node in level if isinstance(node, Call) for arg in node.args]
    return deepest


# sqlglot's node -> (our op, the arguments that it may carry besides its operands)
_ARITHMETIC = {exp.Add: "add", exp.Sub: "sub", exp.Mul: "mul"}
_COMPARISON = {exp.EQ: "eq", exp.NEQ: "ne", exp.LT: "lt", exp.LTE: "le", exp.GT: "gt", exp.GTE: "ge"}
_ONE_ARGUMENT: dict[type[exp.Expression], Callable[[Expr | Untyped, str], Expr]] = {
    exp.Abs: typed.absolute, exp.Sqrt: typed.square_root, exp.Length: typed.length,
    exp.Floor: typed.floor, exp.Ceil: typed.ceil, exp.Upper: typed.upper, exp.Lower: typed.lower,
}  # fmt: skip
_HARMLESS = {"this", "expression", "expressions", "typed", "safe", "ignore_nulls", "_type", "is_nvl", "coalesce"}


class _Walk:
    """Turns sqlglot's nodes into ours; `columns` are the names that may be used."""

    def __init__(self, columns: Mapping[str, Dtype]) -> None:
        self.columns = columns

    def root(self, node: exp.Expression) -> Expr:
        tree = self.expr(node)
        if isinstance(tree, Untyped):
            raise Wrong("NULL alone has no type")
        return tree

    def expr(self, node: exp.Expression) -> Expr | Untyped:
        kind, text = type(node), piece(node)
        if isinstance(node, exp.Paren):
            return self.expr(node.this)
        if kind in _SPECIAL:
            return _SPECIAL[kind](self, node)
        if kind in _ARITHMETIC or kind in _COMPARISON or kind in (exp.Div, exp.Mod):
            self.only(node)
            return self.binary(node, text)
        if kind in _ONE_ARGUMENT:
            self.only(node)
            return _ONE_ARGUMENT[kind](self.expr(node.this), text)
        raise refused(node)

    def only(self, node: exp.Expression, *extra: str) -> None:
        """Refuses a node with an argument that has no meaning here, such as floor's second."""
        for name, value in node.args.items():
            if value and name not in _HARMLESS and name not in extra:
                raise Wrong(f"`{piece(node)}` has the part {name!r}, which is not in the subset")

    def binary(self, node: exp.Expression, text: str) -> Expr:
        left, right = self.expr(node.this), self.expr(node.expression)
        if type(node) in _ARITHMETIC:
            return typed.arithmetic(_ARITHMETIC[type(node)], left, right, text)
        if type(node) in _COMPARISON:
            return typed.comparison(_COMPARISON[type(node)], left, right, text)
        return typed.divide(left, right, text) if isinstance(node, exp.Div) else typed.remainder(left, right, text)

    def column(self, node: exp.Expression) -> Expr:
        if len(node.parts) > 1:
            raise Wrong(f"`{piece(node)}`: columns are written by their name alone")
        name = node.name
        if name not in self.columns:
            raise Wrong(f"unknown column '{name}'. {nearest(name, self.columns)}")
        if is_list(self.columns[name]):
            raise Wrong(f"column '{name}' is {self.columns[name]}; expressions take no lists")
        return Ref(name, self.columns[name])

    def literal(self, node: exp.Expression) -> Expr:
        return typed.text(node.this) if node.is_string else typed.number(node.this, negative=False)

    def negative(self, node: exp.Expression) -> Expr:
        inner = node.this.unnest()
        if isinstance(inner, exp.Literal) and not inner.is_string:
            return typed.number(inner.this, negative=True)
        return typed.negate(self.expr(inner), piece(node))

    def logic(self, node: exp.Expression) -> Expr:
        op = "and" if isinstance(node, exp.And) else "or"
        return typed.logic(op, [self.expr(part) for part in node.flatten()], piece(node))

    def inverse(self, node: exp.Expression) -> Expr:
        return typed.inverse(self.expr(node.this), piece(node))

    def is_null(self, node: exp.Expression) -> Expr:
        if not isinstance(node.expression, exp.Null):
            raise Wrong(f"`{piece(node)}`: IS is allowed with NULL only")
        return typed.is_null(self.expr(node.this), piece(node))

    def between(self, node: exp.Expression) -> Expr:
        self.only(node, "low", "high")
        value, text = self.expr(node.this), piece(node)
        low = typed.comparison("ge", value, self.expr(node.args["low"]), text)
        return typed.logic("and", [low, typed.comparison("le", value, self.expr(node.args["high"]), text)], text)

    def one_of(self, node: exp.Expression) -> Expr:
        self.only(node)
        return typed.one_of(self.expr(node.this), [self.expr(e) for e in node.expressions], piece(node))

    def case(self, node: exp.Expression) -> Expr:
        self.only(node, "ifs", "default")
        text = piece(node)
        subject = self.expr(node.this) if node.this else None
        conditions = [self.expr(branch.this) for branch in node.args["ifs"]]
        if subject is not None:
            conditions = [typed.comparison("eq", subject, c, text) for c in conditions]
        values = [self.expr(branch.args["true"]) for branch in node.args["ifs"]]
        default = node.args.get("default")
        return typed.case(conditions, [*values, self.expr(default) if default else Untyped()], text)

    def several(self, node: exp.Expression) -> Expr:
        self.only(node)
        op = {exp.Coalesce: "coalesce", exp.Greatest: "greatest", exp.Least: "least"}[type(node)]
        return typed.several(op, [self.expr(node.this), *map(self.expr, node.expressions)], piece(node))

    def nullif(self, node: exp.Expression) -> Expr:
        self.only(node)
        return typed.nullif(self.expr(node.this), self.expr(node.expression), piece(node))

    def concat(self, node: exp.Expression) -> Expr:
        return typed.concat([self.expr(part) for part in node.flatten()], piece(node))

    def substr(self, node: exp.Expression) -> Expr:
        self.only(node, "start", "length")
        bounds = [self.expr(node.args[name]) for name in ("start", "length") if node.args.get(name) is not None]
        return typed.substr(self.expr(node.this), bounds, piece(node))

    def like(self, node: exp.Expression) -> Expr:
        self.only(node, "negate")
        found = typed.like(self.expr(node.this), self.expr(node.expression), piece(node))
        return typed.inverse(found, piece(node)) if node.args.get("negate") else found

    def cast(self, node: exp.Expression) -> Expr:
        self.only(node, "to")
        inner, wanted = node.this, node.args["to"].sql("duckdb").upper()
        if wanted.startswith("TIMESTAMP") and isinstance(inner, exp.Literal) and inner.is_string:
            return typed.timestamp(inner.this, piece(node))
        if wanted not in ("DOUBLE", "DOUBLE PRECISION", "FLOAT8"):
            raise Wrong(
                f"`{piece(node)}`: CAST is allowed from integers to DOUBLE only; "
                "floor(x) and ceil(x) give an integer of a double"
            )
        return typed.to_double(self.expr(inner), piece(node))

    def date_trunc(self, node: exp.Expression) -> Expr:
        self.only(node, "unit")
        return typed.date_trunc(str(node.args["unit"].name), self.expr(node.this), piece(node))


_SPECIAL: dict[type[exp.Expression], Callable[[_Walk, exp.Expression], Expr | Untyped]] = {
    exp.Column: _Walk.column, exp.Literal: _Walk.literal, exp.Neg: _Walk.negative,
    exp.Boolean: lambda _, node: Literal(bool(node.this), "bool"), exp.Null: lambda _, node: Untyped(),
    exp.And: _Walk.logic, exp.Or: _Walk.logic, exp.Not: _Walk.inverse, exp.Is: _Walk.is_null,
    exp.Between: _Walk.between, exp.In: _Walk.one_of, exp.Case: _Walk.case, exp.Nullif: _Walk.nullif,
    exp.Coalesce: _Walk.several, exp.Greatest: _Walk.several, exp.Least: _Walk.several,
    exp.DPipe: _Walk.concat, exp.Substring: _Walk.substr, exp.Like: _Walk.like, exp.Cast: _Walk.cast,
    exp.TimestampTrunc: _Walk.date_trunc, exp.DateTrunc: _Walk.date_trunc,
}  # fmt: skip


def piece(node: exp.Expression) -> str:
    """The node as text, for messages."""
    text: str = node.sql()
    return text if len(text) <= 80 else text[:77] + "..."


def refused(node: exp.Expression) -> Wrong:
    """What to say of a construct outside of the subset: why, what instead, what is allowed."""
    names = [type(node).__name__.lower(), node.name.lower() if isinstance(node, exp.Anonymous) else ""]
    why = next((f": {REFUSED[name]}" for name in names if name in REFUSED), "")
    allowed = f"Allowed are {OPERATORS}, and the functions {', '.join(FUNCTIONS)} (docs/expressions.md)"
    return Wrong(f"`{piece(node)}` is not in the subset{why}. {allowed}; found")
