"""`headwater check --every`: the check again and again in the foreground, each run kept in the lake.

A part that is away, or a plan that is not there yet, is said once and tried again at the next time: the service ends
when it is stopped, or was asked for a view that does not exist.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from headwater.errors import HeadwaterError, UsageError
from headwater.monitoring.endpoint import MonitorAddress, monitored
from headwater.monitoring.logs import log_to_stderr, say
from headwater.monitoring.signals import stopped_by_signals
from headwater.receipts.results import ViewCheck
from headwater.repository import Repository
from validation.check_command import CheckRun, run_check
from validation.check_metrics import CheckMetrics

SAMPLE = 1_000
"""Receipts drawn a view and run, unless told."""
_log = logging.getLogger("headwater.check")


class _Stopped(Exception):
    """Stopped in the middle of a run, whose results are dropped."""


class CheckService:
    """Runs the check every `every` seconds, counted from start to start; a run that takes longer delays the next."""

    def __init__(
        self,
        repository: Repository,
        views: Sequence[str],
        every: float,
        *,
        sample: int = SAMPLE,
        receipts: bool = False,
    ) -> None:
        self.metrics = CheckMetrics()
        self._repository, self._views, self._every = repository, list(views), every
        self._sample, self._receipts = sample, receipts
        self._stopping = False
        self._said = ""

    def stop(self) -> None:
        """End at the next view; may be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Check until stopped.

        Raises:
            UsageError: a view that the published plan does not have.
        """
        try:
            while not self._stopping:
                began = time.monotonic()
                self._once()
                while not self._stopping and time.monotonic() - began < self._every:
                    self.metrics.turns.turned()
                    time.sleep(min(0.2, self._every))
        except _Stopped:
            return

    def _once(self) -> None:
        began = time.monotonic()
        try:
            found = run_check(
                self._repository, self._views, sample=self._sample, kept_receipts=self._receipts, progress=self._turn
            )
        except UsageError:
            raise
        except HeadwaterError as error:
            self.metrics.failed(str(error))
            self._say_failure(str(error))
            return
        self._account(found, time.monotonic() - began)

    def _turn(self, view: str) -> None:
        self.metrics.turns.turned()
        if self._stopping:
            raise _Stopped

    def _account(self, found: CheckRun, seconds: float) -> None:
        problem = found.problem or found.incomplete
        defects = any(r.defects for r in found.results)
        self.metrics.done(found.results, seconds, "defects" if defects else "incomplete" if problem else "equal")
        if problem is not None:
            self._say_failure(str(problem))
        elif self._said:
            self._said = ""
            _log.warning("The check is whole again.")
        for r in found.results:
            _say(r)

    def _say_failure(self, text: str) -> None:
        if text != self._said:
            self._said = text
            _log.warning("%s The check is tried again every %g s.", text, self._every)


def _say(r: ViewCheck) -> None:
    fields = {"view": r.view, "compared": r.compared, "equal": r.compared_equal, "differences": r.differences}
    level = logging.WARNING if r.defects else logging.INFO
    causes = ", ".join(f"{cause} {n:,}" for cause, n in sorted(r.differences.items()))
    _log.log(
        level, "View %s: %s of %s rows equal, %s of %s receipts equal%s.", r.view, f"{r.compared_equal:,}",
        f"{r.compared:,}", f"{r.drawn_equal + r.kept_equal:,}", f"{r.drawn + r.kept:,}", f"; {causes}" if causes else "",
        extra=fields,
    )  # fmt: skip


def run_service(
    repository: Repository, views: Sequence[str], every: float, *, sample: int | None, receipts: bool,
    monitor: MonitorAddress | None,
) -> None:  # fmt: skip
    """Run the service in the foreground until SIGTERM or Ctrl-C.

    Raises:
        UsageError: a view that is not there, or a port that is taken.
    """
    log_to_stderr()
    service = CheckService(repository, views, every, sample=sample or SAMPLE, receipts=receipts)
    with monitored(service.metrics, monitor) as at, stopped_by_signals(service.stop):
        if at is not None:
            say(f"Metrics: {at}/metrics, and /health and /ready beside it.")
        say(f"Checking project {repository.project!r} every {every:g} s; Ctrl-C stops it.")
        service.run()
