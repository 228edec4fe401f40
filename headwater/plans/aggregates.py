"""Compiles the operators of a view to its features: names, types, windows and hops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from headwater.definitions.facts import OperatorFacts
from headwater.dtypes import NUMERIC, Dtype, counts_of, is_list, list_of
from headwater.durations import format_duration
from headwater.errors import nearest
from headwater.expressions.syntax import Expr
from headwater.plans.plan import Feature
from headwater.plans.problems import Problems
from headwater.windows.law import hop_of

MOST_TILES = 20_000
"""How many tiles of one hop a row may keep."""
MOST_VALUES = 1_000
"""How many values a list may have at most: all of them lie in each row."""
MOST_DISTINCT = 10_000
"""How many distinct values may be told apart at most: all of them lie in each row."""

CLASSES = {
    "count": "Count", "sum": "Sum", "mean": "Mean", "var": "Var", "stddev": "Stddev", "min": "Min", "max": "Max",
    "first": "First", "last": "Last", "last_n": "LastN", "latest": "Latest",
    "distinct": "Distinct", "top_k": "TopK", "approx_distinct": "ApproxDistinct",
    "approx_quantile": "ApproxQuantile",
}  # fmt: skip
_COUNTS: dict[str, dict[str, int]] = {
    "last_n": {"n": MOST_VALUES}, "distinct": {"limit": MOST_DISTINCT},
    "top_k": {"n": MOST_VALUES, "limit": MOST_DISTINCT},
}  # fmt: skip
"""The greatest whole number that an operator may be given, by its name."""
_TAKES: dict[str, tuple[str, ...]] = {
    "sum": NUMERIC, "mean": NUMERIC, "var": NUMERIC, "stddev": NUMERIC, "approx_quantile": NUMERIC,
}  # fmt: skip
_TAKES_LISTS = ("first", "last", "latest")


def compile_operator(
    place: str,
    operator: OperatorFacts,
    columns: Mapping[str, str],
    lengths: Mapping[str, int | None],
    where: Expr | None,
    problems: Problems,
) -> list[Feature]:
    """A feature for each window of the operator; none, and noted, where the operator is wrong.

    Args:
        place: the operator's place in messages.
        columns: name -> type of the columns it may take, derived ones included.
        lengths: name -> how long the lists in it are, where that is fixed.
        where: its parsed condition.
    """
    if operator.function not in CLASSES:
        problems.add(place, f"expected an operator ({', '.join(CLASSES.values())}), got {operator.function}.")
        return []
    before = len(problems.errors)
    dtype = _column_type(place, operator, columns, problems)
    scale = _scale(place, operator, dtype, problems)
    counts, q = _counts(place, operator, problems), _q(place, operator, problems)
    windows = _windows(place, operator, problems)
    names = _names(operator, [text for text, _, _ in windows])
    for name in names:
        problems.name(f"{place}, name", name)
    if len(problems.errors) > before:
        return []
    length = None if operator.column is None else lengths.get(operator.column)
    what, result = (operator.function, operator.column, dtype), _result(operator, dtype)
    return [
        Feature(name, *what, window, hop, where, scale, result, counts.get("n"), counts.get("limit"), q, length)
        for name, (_, window, hop) in zip(names, windows, strict=True)
    ]


def describe(operator: OperatorFacts) -> str:
    """How the operator was written, shortly: Sum('amount')."""
    column = "" if operator.column is None else repr(operator.column)
    return f"{CLASSES.get(operator.function, operator.function)}({column})"


def _column_type(place: str, operator: OperatorFacts, columns: Mapping[str, str], problems: Problems) -> Dtype | None:
    if operator.function == "count":
        return None
    dtype = columns.get(operator.column)
    if dtype is None:
        problems.add(place, f"no column {operator.column!r}. {nearest(str(operator.column), columns)}")
        return None
    takes = _TAKES.get(operator.function)
    if takes and dtype not in takes:
        fitting = [c for c, t in columns.items() if t in takes]
        problems.add(
            place,
            f"{operator.function} needs a column of type {' or '.join(takes)}, '{operator.column}' is {dtype}. "
            f"{nearest(operator.column, fitting)}",
        )
    elif not takes and is_list(dtype) and operator.function not in _TAKES_LISTS:
        problems.add(
            place,
            f"{operator.function} takes no lists, '{operator.column}' is {dtype}. First, Last and Latest take them.",
        )
    return cast(Dtype, dtype)


def _scale(place: str, operator: OperatorFacts, dtype: str | None, problems: Problems) -> int:
    if operator.scale is None:
        return 0
    if not isinstance(operator.scale, int) or isinstance(operator.scale, bool) or not 0 <= operator.scale <= 15:
        problems.add(f"{place}, scale", f"expected a whole number from 0 to 15, got {operator.scale!r}.")
        return 0
    return operator.scale if dtype == "float64" else 0


def _counts(place: str, operator: OperatorFacts, problems: Problems) -> dict[str, int]:
    """The whole numbers that the operator takes beside its column."""
    found = {}
    for name, most in _COUNTS.get(operator.function, {}).items():
        given = getattr(operator, name)
        if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= most:
            problems.add(f"{place}, {name}", f"expected a whole number from 1 to {most:,}, got {given!r}.")
        else:
            found[name] = given
    return found


def _q(place: str, operator: OperatorFacts, problems: Problems) -> float | None:
    q = operator.q
    if operator.function != "approx_quantile":
        return None
    if not isinstance(q, int | float) or isinstance(q, bool) or not 0 <= q <= 1:
        problems.add(f"{place}, q", f"expected a number from 0 to 1, got {q!r}.")
        return None
    return float(q)


_Window = tuple[str | None, int | None, int | None]
"""A window's text, length and hop, microseconds; all None for the lifetime window."""


def _windows(place: str, operator: OperatorFacts, problems: Problems) -> list[_Window]:
    over: Any = operator.over
    texts = [over] if over is None or isinstance(over, str) else over
    if not isinstance(texts, list | tuple) or not texts:
        problems.add(f"{place}, over", f"expected windows such as ['1h', '30d'] or 'all', got {over!r}.")
        return []
    given = problems.duration(f"{place}, hop", operator.hop)
    if operator.hop is not None and all(t in (None, "all") for t in texts):
        problems.add(f"{place}, hop", "the lifetime window has no hop; leave it out.")
    windows: list[_Window] = []
    for text in texts:
        if text in (None, "all"):
            windows.append((None, None, None))
            continue
        window = problems.duration(f"{place}, over", text)
        if window is not None:
            windows.append((text, window, given or hop_of(window)))
            _check_tiles(f"{place}, over {text}", window, given or hop_of(window), problems)
    return windows


def _check_tiles(place: str, window: int, hop: int, problems: Problems) -> None:
    if window < hop:
        problems.add(
            place, f"the window is shorter than its hop of {format_duration(hop)}. Widen it, or set a smaller hop=."
        )
    elif -(-window // hop) > MOST_TILES:
        problems.add(
            place,
            f"the window holds {-(-window // hop):,} tiles of {format_duration(hop)}, more than {MOST_TILES:,}. "
            f"Shorten it, or set a greater hop=.",
        )


def _names(operator: OperatorFacts, windows: list[str | None]) -> list[Any]:
    stems = {"count": "count", "latest": operator.column}
    stem = stems.get(operator.function, f"{operator.column}_{operator.function}")
    if operator.name is not None:
        if len(windows) == 1 or not isinstance(operator.name, str):
            return [operator.name for _ in windows]
        stem = operator.name
    return [stem if w is None else f"{stem}_{w}" for w in windows]


def _result(operator: OperatorFacts, dtype: Dtype | None) -> Dtype:
    if operator.function in ("count", "distinct", "approx_distinct") or dtype is None:
        return "int64"
    if operator.function in ("last_n", "top_k"):
        return list_of(dtype) if operator.function == "last_n" else counts_of(dtype)
    return "float64" if operator.function in ("mean", "var", "stddev", "approx_quantile") else dtype
