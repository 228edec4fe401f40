"""Great Expectations suites, compiled from the expectations of a BatchView.

Apart from the gate because a suite is worth having without a run: it is what a person loads
into Great Expectations to look at the same rules over other data. Two rules that every batch
must meet are added always: join keys are there, and one row stands for a key.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headwater.errors import DefinitionError, MissingExtra
from headwater.plans.plan import BatchView, Expectation, StreamView

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite


def great_expectations() -> ModuleType:
    """The package, imported quietly and with its telemetry off (it takes seconds, so only when a gate runs).

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings(), _hidden("pyspark", "pyspark.sql.connect"):
        # Great Expectations 1.24 imports deprecated modules of the standard library.
        warnings.simplefilter("ignore")
        try:
            import great_expectations as gx
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "great_expectations":
                raise
            raise MissingExtra("great_expectations", "validation", "The gate before a batch is published") from error
    return gx  # type: ignore[no-any-return]


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Modules that an import within finds missing, where they are not loaded yet.

    Great Expectations imports PySpark if it can, which takes seconds, and of it Spark Connect, which calls
    sys.exit(0) where the main module has no file (`python -c`): the run would end there, as a success.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def compile_suite(view: BatchView | StreamView) -> ExpectationSuite:
    """The suite of a view. Each expectation's `meta["text"]` says it as people do.

    Columns are the join keys and features; timestamps are int64 microseconds there (`gate` makes them so).

    Raises:
        DefinitionError: an expectation of an unknown kind.
        MissingExtra: Great Expectations is not installed.
    """
    gx = great_expectations()
    rules = [*_structure(gx, view), *(_rule(gx, view, e) for e in view.expectations)]
    return gx.ExpectationSuite(name=view.name, expectations=rules)


def describe(expectation: Expectation) -> str:
    """An expectation in words, such as "'country' is not null (at least 99%)"."""
    share = f" (at least {expectation.mostly:.10g} of the rows)" if expectation.mostly < 1 else ""
    return f"'{expectation.column}' {_condition(expectation)}{share}"


def _condition(expectation: Expectation) -> str:
    low, high = expectation.minimum, expectation.maximum
    if expectation.kind == "not_null":
        return "is not null"
    if expectation.kind == "in_set":
        return f"is one of {', '.join(map(repr, expectation.values))}"
    if low is None:
        return f"is at most {high}"
    return f"is at least {low}" if high is None else f"is between {low} and {high}"


def _structure(gx: ModuleType, view: BatchView | StreamView) -> list[Any]:
    """What holds of every batch: no null in a join key, and one row a key."""
    keys = [k.name for k in view.keys]
    rules = [
        gx.expectations.ExpectColumnValuesToNotBeNull(column=k, meta={"text": f"the join key '{k}' is not null"})
        for k in keys
    ]
    meta = {"text": f"there is one row for each {', '.join(keys)}"}
    if len(keys) == 1:
        return [*rules, gx.expectations.ExpectColumnValuesToBeUnique(column=keys[0], meta=meta)]
    unique = gx.expectations.ExpectCompoundColumnsToBeUnique(
        column_list=keys, ignore_row_if="any_value_is_missing", meta=meta
    )
    return [*rules, unique]


def _rule(gx: ModuleType, view: BatchView | StreamView, expectation: Expectation) -> Any:
    common = {
        "column": expectation.column, "mostly": expectation.mostly, "meta": {"text": describe(expectation)},
    }  # fmt: skip
    match expectation.kind:
        case "not_null":
            return gx.expectations.ExpectColumnValuesToNotBeNull(**common)
        case "in_set":
            return gx.expectations.ExpectColumnValuesToBeInSet(value_set=list(expectation.values), **common)
        case "between":
            bounds = {"min_value": expectation.minimum, "max_value": expectation.maximum}
            return gx.expectations.ExpectColumnValuesToBeBetween(**bounds, **common)
    raise DefinitionError(
        f"View {view.name!r}: an expectation on {expectation.column!r} has the kind {expectation.kind!r}; "
        f"expected between, not_null or in_set."
    )
