"""The search: cases drawn by hypothesis until the time is up, and the first that fails made small.

Hypothesis draws and shrinks; what a failing case is, which of them is the smallest, and when to stop is
said here, since hypothesis itself knows no time limit.
"""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from headwater.errors import MissingExtra, UsageError, nearest
from headwater.plans.plan import Plan, Source, StreamView
from headwater.testing.cases import Case
from headwater.testing.comparison import ROWS, VALUES, Comparison, Outcome
from headwater.testing.pools import LATE, pools_of
from headwater.testing.shrinking import cut, plainer_by

CASES_A_ROUND = 50
"""Cases drawn from one seed; the next round has the next seed, so that a failure is found again at once."""
SHRINK_SECONDS, CUT_SECONDS = 4.0, 6.0
"""How long a failing case is made smaller at most, past the time of the search: by hypothesis, then by shrinking.py."""

Progress = Callable[[str, int], None]
"""Called with a view's name and how many of its cases have run."""


@dataclass(frozen=True)
class Failure:
    """The smallest case that was found to fail, and the seed whose round it is in."""

    case: Case
    outcome: Outcome
    seed: int


@dataclass
class ViewResult:
    """What the search found of one view. `compared`: values that were held against the naive loop's."""

    view: StreamView
    source: Source
    cases: int = 0
    compared: int = 0
    failure: Failure | None = None


def fuzz(
    plan: Plan,
    names: Sequence[str] = (),
    *,
    seconds: float = 10.0,
    seed: int = 0,
    progress: Progress = lambda view, cases: None,
) -> list[ViewResult]:
    """Search in each of the windowed views (those named, or all) for an equal share of `seconds`.

    Raises:
        UsageError: a name that is no windowed view of the plan.
        MissingExtra: hypothesis is not installed.
    """
    try:
        import hypothesis  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("hypothesis", "test", "'headwater test'") from error
    views = _chosen(plan, names)
    return [_Search(view, plan.source(view.source), progress).run(seconds / len(views), seed) for view in views]


class _Fails(Exception):
    """Tells hypothesis that a case fails."""


class _Search:
    """The search in one view."""

    def __init__(self, view: StreamView, source: Source, progress: Progress) -> None:
        # How bytes become columns is another matter: each format has tests of its own.
        source = msgspec.structs.replace(source, format="json")
        self._result, self._progress = ViewResult(view, source), progress
        self._comparison = Comparison(view, source)
        self._found: dict[str, Failure] = {}
        self._until = 0.0
        self._broken: Exception | None = None

    def run(self, seconds: float, seed: int) -> ViewResult:
        """Rounds until the time is up or values differ; at least one case runs, however short the time is."""
        self._until = time.monotonic() + seconds
        while VALUES not in self._found and not self._is_over():
            self._round(seed)
            seed += 1
        failure = self._found.get(VALUES) or self._found.get(ROWS)
        if failure is not None:
            self._until = time.monotonic() + CUT_SECONDS
            self._result.failure = self._cut(failure)
        return self._result

    def _round(self, seed: int) -> None:
        import hypothesis
        from hypothesis.errors import Flaky

        from headwater.testing.generation import cases

        settings = hypothesis.settings(
            max_examples=CASES_A_ROUND, database=None, deadline=None, derandomize=False, report_multiple_bugs=False,
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck), verbosity=hypothesis.Verbosity.quiet,
        )  # fmt: skip

        @hypothesis.seed(seed)
        @settings
        @hypothesis.given(cases(self._result.view, self._result.source))
        def round_of_cases(case: Case) -> None:
            try:
                self._judge(case, seed)
            except Exception as error:
                if isinstance(error, _Fails | unittest.SkipTest):
                    raise
                # An error of the search itself: hypothesis would shrink it, and the end of the time would hide it.
                self._broken = error
                raise unittest.SkipTest("the search is broken") from error

        try:
            round_of_cases()
        except (_Fails, Flaky, unittest.SkipTest):
            # A failure is in `_found` by now, one that came but once (Flaky) too. A skipped test is how
            # hypothesis is told to stop, in the middle of shrinking too.
            if self._broken is not None:
                raise self._broken from None

    def _judge(self, case: Case, seed: int) -> None:
        if self._is_over():
            raise unittest.SkipTest("the time is up")
        outcome = self._comparison.run(case)
        if VALUES not in self._found:
            self._result.cases += 1
            self._result.compared += outcome.compared
            self._progress(self._result.view.name, self._result.cases)
        if outcome.kind == ROWS:
            # Rows that differ give values that differ sooner or later; those say more, so the search goes on.
            self._found.setdefault(ROWS, Failure(case, outcome, seed))
        if outcome.kind == VALUES:
            self._keep(Failure(case, outcome, seed))
            raise _Fails

    def _keep(self, failure: Failure) -> None:
        known = self._found.get(VALUES)
        if known is None:
            self._until = time.monotonic() + SHRINK_SECONDS
        if known is None or _size(failure.case) <= _size(known.case):
            self._found[VALUES] = failure

    def _is_over(self) -> bool:
        return self._result.cases > 0 and time.monotonic() > self._until

    def _cut(self, failure: Failure) -> Failure:
        smallest = failure

        def fails(case: Case) -> bool:
            nonlocal smallest
            if self._is_over() or (outcome := self._comparison.run(case)).kind != failure.outcome.kind:
                return False
            smallest = Failure(case, outcome, failure.seed)
            return True

        source = self._result.source
        plainest = {name: values[0] for name, values in pools_of(self._result.view, source).plain.items()}
        cut(failure.case, plainer_by(plainest, source.event_time, LATE), fails)
        return smallest


def _chosen(plan: Plan, names: Sequence[str]) -> list[StreamView]:
    views = {v.name: v for v in plan.stream_views()}
    for name in names:
        if name in {v.name for v in plan.batch_views()}:
            raise UsageError(f"View {name!r} is a BatchView; only windowed views (StreamView) can be fuzzed.")
        if name not in views:
            raise UsageError(f"No view {name!r} to test. {nearest(name, views)}")
    return [views[name] for name in dict.fromkeys(names)] or list(views.values())


def _size(case: Case) -> tuple[int, int, int]:
    return len(case.records), len(case.deliveries), len(case.reads)
