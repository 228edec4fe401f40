"""What the check as a service shows on /metrics: the last result of each view, and how runs ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from headwater.monitoring.endpoint import Turns
from headwater.monitoring.families import by_label, counters, gauges
from headwater.receipts.results import CAUSES, ViewCheck

ENDS = ("equal", "defects", "incomplete", "failed")
"""How a run may end. Incomplete: not everything could be compared; failed: nothing."""


class CheckMetrics:
    """Written by the service after each run, read by the endpoint."""

    def __init__(self) -> None:
        self.turns = Turns()
        self._runs: Counter[str] = Counter()
        self._compared: Counter[str] = Counter()
        self._receipts: Counter[str] = Counter()
        self._last: dict[str, ViewCheck] = {}
        self._seconds = 0.0
        self._missing = ["no run is done yet"]

    def done(self, results: Sequence[ViewCheck], seconds: float, ended: str) -> None:
        """A run compared what it could. `ended`: one of ENDS."""
        for r in results:
            self._compared[r.view] += r.compared
            self._receipts[r.view] += r.drawn + r.kept
        self._last = {r.view: r for r in results}
        self._seconds, self._missing = seconds, []
        self._runs[ended] += 1

    def failed(self, why: str) -> None:
        """A run could not begin, or not go on."""
        self._runs["failed"] += 1
        self._missing = [why]

    def not_ready(self) -> list[str]:
        """Why there is no result of the last run."""
        return self._missing

    def collect(self) -> Iterable[Any]:
        """prometheus_client's metric families."""
        last = self._last
        runs: dict[tuple[str, ...], float] = {(end,): self._runs[end] for end in ENDS}
        yield counters("headwater_check_runs", "Runs by how they ended.", ("result",), runs)
        yield counters("headwater_check_rows_compared", "Rows recomputed from the lake and compared.", ("view",),
                       by_label(self._compared))  # fmt: skip
        yield counters("headwater_check_receipts_replayed", "Receipts replayed from the lake.", ("view",),
                       by_label(self._receipts))  # fmt: skip
        yield gauges("headwater_check_differences", "Differences that the last run found.", ("view", "cause"),
                     {(v, cause): r.differences.get(cause, 0) for v, r in last.items() for cause in CAUSES})  # fmt: skip
        yield gauges("headwater_check_rows", "Rows that the last run compared.", ("view",),
                     {(v,): r.compared for v, r in last.items()})  # fmt: skip
        yield gauges("headwater_check_rows_equal", "Rows that the last run found equal.", ("view",),
                     {(v,): r.compared_equal for v, r in last.items()})  # fmt: skip
        yield gauges("headwater_check_rows_waiting", "Rows that the last run could not compare yet.", ("view",),
                     {(v,): r.waiting for v, r in last.items()})  # fmt: skip
        yield gauges("headwater_check_last_run_timestamp_seconds", "When a view was last compared.", ("view",),
                     {(v,): r.checked_at / 1e6 for v, r in last.items()})  # fmt: skip
        yield gauges("headwater_check_duration_seconds", "How long the last run took.", (), {(): self._seconds})
