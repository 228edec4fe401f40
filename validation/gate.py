"""The gate: a batch is held against its view's suite before anything of it is published.

Great Expectations judges, in an ephemeral context on pandas; here the table is brought into
the form that loses nothing on the way (64-bit integers stay integers next to nulls), and the
verdict into ours: which expectation, how many rows, which ones, and examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headwater.dtypes import Dtype
from headwater.errors import HeadwaterError
from headwater.plans.plan import BatchView, StreamView
from validation.suites import compile_suite, great_expectations

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

EXAMPLES = 3
"""How many failing rows a message shows."""


@dataclass(frozen=True)
class Failure:
    """One expectation that does not hold.

    Attributes:
        expectation: in words.
        unexpected: how many rows break it, of `rows_judged` rows.
        rows: their indices in the table, rising.
        examples: the first of them, as `key=value` texts with the column judged.
        tolerated: whether the expectation's `mostly` allows for that many: reported, the gate stays open.
    """

    expectation: str
    unexpected: int
    rows_judged: int
    rows: tuple[int, ...]
    examples: tuple[str, ...]
    tolerated: bool = False

    def __str__(self) -> str:
        shown = "; ".join(self.examples)
        return f"{self.expectation}: {self.unexpected:,} of {self.rows_judged:,} rows break it, such as {shown}"


@dataclass(frozen=True)
class GateResult:
    """What the gate says of a batch: `failures` close it, `tolerated` are reported."""

    failures: tuple[Failure, ...]
    tolerated: tuple[Failure, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the batch may be published."""
        return not self.failures

    def reasons(self) -> dict[int, str]:
        """Why each failing row fails: index -> the expectations that it breaks, joined by "; "."""
        found: dict[int, list[str]] = {}
        for failure in self.failures:
            for row in failure.rows:
                found.setdefault(row, []).append(failure.expectation)
        return {row: "; ".join(texts) for row, texts in sorted(found.items())}


def gate(view: BatchView | StreamView, table: pa.Table) -> GateResult:
    """Judge a batch: its columns are the view's join keys and features in their declared types.

    Raises:
        HeadwaterError: an expectation that cannot be evaluated over its column.
        MissingExtra: Great Expectations is not installed.
    """
    gx = great_expectations()
    suite = compile_suite(view)
    with warnings.catch_warnings():
        # What Great Expectations makes pandas warn about is nothing that a reader of the verdict can act on.
        warnings.simplefilter("ignore")
        verdict = _context(gx, view.name).get_batch({"dataframe": _frame(view, table)}).validate(
            suite, result_format={"result_format": "COMPLETE"}
        )  # fmt: skip
    found = [_failure(view, table, r) for r in verdict.results]
    broken = [f for f in found if f is not None]
    return GateResult(tuple(f for f in broken if not f.tolerated), tuple(f for f in broken if f.tolerated))


def _context(gx: Any, name: str) -> Any:
    """A whole-frame batch definition in a context that lives in memory and draws no progress bars."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return (
        context.data_sources.add_pandas("batch").add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    )


def _frame(view: BatchView | StreamView, table: pa.Table) -> pd.DataFrame:
    """The judged columns as pandas' nullable types, with the index 0, 1, 2, …"""
    import pandas as pd

    dtypes = _dtypes(view)
    return pd.DataFrame({name: _series(dtypes[name], table[name]) for name in dtypes})


def _dtypes(view: BatchView | StreamView) -> dict[str, Dtype]:
    return {f.name: f.dtype for f in (*view.keys, *view.outputs())}


def _series(dtype: Dtype, column: pa.ChunkedArray) -> pd.Series[Any]:
    import pandas as pd
    import pyarrow as pa

    if dtype == "timestamp":
        column = column.cast(pa.int64())
    # Masked types, by pandas' own reader of Arrow: by way of numpy, integers beside a null would become doubles.
    masked = {"int64": pd.Int64Dtype(), "timestamp": pd.Int64Dtype(), "bool": pd.BooleanDtype()}.get(dtype)
    series: pd.Series[Any] = column.to_pandas(types_mapper=lambda _: masked)
    return series


def _failure(view: BatchView | StreamView, table: pa.Table, result: Any) -> Failure | None:
    """One of the suite's results as ours; None where no row breaks it."""
    config = result.expectation_config
    text = config.meta["text"]
    rows = sorted(int(i) for i in result.result.get("unexpected_index_list") or ())
    # Where Great Expectations could not evaluate, there are no rows: that must not pass for "none breaks it".
    if (problem := _problem(result.exception_info)) or (not rows and not result.success):
        raise HeadwaterError(
            f"View {view.name!r}: the expectation that {text} cannot be evaluated ({problem or 'no result'}). "
            f"Does it fit the type of the column?"
        )
    if not rows:
        return None
    column = config.kwargs.get("column")
    shown = list(dict.fromkeys([*(k.name for k in view.keys), *([column] if column else [])]))
    examples = tuple(_example(table, shown, row) for row in rows[:EXAMPLES])
    return Failure(text, len(rows), table.num_rows, tuple(rows), examples, tolerated=bool(result.success))


def _problem(info: dict[str, Any]) -> str:
    """The last line of what was raised while evaluating; exceptions come flat, or one a metric."""
    entries = [info] if "raised_exception" in info else list(info.values())
    raised = [str(e.get("exception_message")) for e in entries if e.get("raised_exception")]
    return raised[0].strip().splitlines()[-1] if raised else ""


def _example(table: pa.Table, names: Sequence[str], row: int) -> str:
    return ", ".join(f"{name}={_shown(table[name][row])}" for name in names)


def _shown(scalar: Any) -> str:
    import pyarrow as pa

    if scalar.is_valid and pa.types.is_timestamp(scalar.type):
        seconds, micros = divmod(scalar.cast(pa.int64()).as_py(), 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros).isoformat().replace("+00:00", "Z")
    value = scalar.as_py()
    return "null" if value is None else repr(value)
