"""Compiles expectations, of a source's columns or of a view's features, to the plan's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.definitions.facts import ExpectationFacts
from headwater.dtypes import NUMERIC
from headwater.errors import nearest
from headwater.plans.plan import Expectation
from headwater.plans.problems import Problems

_CLASSES = {"between": "Between", "not_null": "NotNull", "in_set": "InSet"}
_PYTHON: dict[str, tuple[type, ...]] = {
    "int64": (int,), "float64": (int, float), "string": (str,), "bool": (bool,), "timestamp": (int,),
}  # fmt: skip


def compile_expectations(
    place: str,
    facts: Sequence[ExpectationFacts],
    columns: Mapping[str, str],
    what: str,
    problems: Problems,
) -> tuple[Expectation, ...]:
    """The expectations that are right; `columns` maps names to types, `what` is "column" or "feature"."""
    found = []
    for fact in facts:
        where = f"{place}, expectation {_CLASSES.get(fact.kind, fact.kind)}({fact.column!r})"
        wrong = _wrong(fact, columns, what)
        if wrong:
            problems.add(where, wrong)
        else:
            values = tuple(fact.values or ())
            found.append(Expectation(fact.kind, fact.column, fact.minimum, fact.maximum, values, float(fact.mostly)))
    return tuple(found)


def _wrong(fact: ExpectationFacts, columns: Mapping[str, str], what: str) -> str | None:
    if fact.kind not in _CLASSES:
        return "expected Between, NotNull or InSet."
    if fact.column not in columns:
        return f"no {what} {fact.column!r}. {nearest(str(fact.column), columns)}"
    if not _number(fact.mostly) or not 0 < fact.mostly <= 1:
        return f"mostly: expected a number above 0 and at most 1, got {fact.mostly!r}."
    dtype = columns[fact.column]
    if fact.kind == "between":
        return _wrong_between(fact, dtype, what)
    return _wrong_in_set(fact, dtype, what) if fact.kind == "in_set" else None


def _wrong_between(fact: ExpectationFacts, dtype: str, what: str) -> str | None:
    if dtype not in NUMERIC:
        return f"Between needs a numeric {what} (int64 or float64), '{fact.column}' is {dtype}."
    bounds = [b for b in (fact.minimum, fact.maximum) if b is not None]
    if not bounds or not all(_number(b) for b in bounds):
        return f"expected numbers (None leaves one side open), got {fact.minimum!r} and {fact.maximum!r}."
    if len(bounds) == 2 and fact.minimum > fact.maximum:
        return f"the minimum {fact.minimum!r} lies above the maximum {fact.maximum!r}."
    return None


def _wrong_in_set(fact: ExpectationFacts, dtype: str, what: str) -> str | None:
    if dtype not in _PYTHON:
        return f"InSet needs a {what} of another type, '{fact.column}' is {dtype}."
    if not isinstance(fact.values, list | tuple) or not fact.values:
        return f"expected a list of values, got {fact.values!r}."
    wrong = [v for v in fact.values if not _fits(v, dtype)]
    return f"expected values of type {dtype}, got {wrong[0]!r}." if wrong else None


def _fits(value: Any, dtype: str) -> bool:
    return isinstance(value, _PYTHON[dtype]) and (isinstance(value, bool) == (dtype == "bool"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
