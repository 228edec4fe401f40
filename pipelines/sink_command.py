"""Runs a sink in the foreground for `headwater sink`: signals, log lines, progress."""

from __future__ import annotations

import sys
import time

from click import Abort
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headwater.errors import HeadwaterError
from headwater.lake import Lake
from headwater.monitoring.endpoint import MonitorAddress
from headwater.monitoring.logs import log_to_stderr, say
from headwater.online.connection import Connection
from headwater.online.plan_store import load_published
from headwater.online.topic_facts import topic_facts
from headwater.repository import Repository
from pipelines.caught_up import LakeCaughtUp
from pipelines.foreground import metrics_of, stopped_by_signals
from pipelines.sink import Sink, SinkSettings


def run(
    repository: Repository, *, until_caught_up: bool, every: float, batch: int, monitor: MonitorAddress | None = None
) -> None:
    """Run until stopped, or until caught up; meanwhile answer who watches, at `monitor`.

    Raises:
        Unreachable: Redis or Kafka does not answer at the start.
        HeadwaterError: `until_caught_up` without a published plan, or a topic that was changed.
        Abort: it was stopped before it had caught up.
    """
    log_to_stderr()
    redis, kafka, lake = repository.need_redis(), repository.need_kafka(), Lake(repository.lake)
    caught_up = _caught_up(repository, kafka, lake) if until_caught_up else None
    topic_facts(kafka, ["__headwater"], offsets=False)
    settings = SinkSettings(every=every, batch=batch)
    sink = Sink(redis, kafka, lake, repository.project, settings, repository.schema_registry)
    reached = caught_up is None
    started = time.perf_counter()
    with metrics_of(sink.metrics, monitor), stopped_by_signals(sink.stop):
        if caught_up is not None:
            reached = _until(sink, caught_up)
        else:
            say(f"Sink of project {repository.project!r} is running; Ctrl-C stops it.")
            sink.run()
    took = max(time.perf_counter() - started, 1e-9)
    say(
        f"{sink.records:,} records kept in {took:.1f} s ({sink.records / took:,.0f}/s), {sink.rejected:,} of them not "
        "admitted.",
        records=sink.records, rejected=sink.rejected, seconds=round(took, 3),
    )  # fmt: skip
    if not reached:
        raise Abort


def _caught_up(repository: Repository, kafka: dict[str, str], lake: Lake) -> LakeCaughtUp:
    with Connection(repository.need_redis()) as connection:
        published = load_published(connection, repository.project)
    if published is None:
        raise HeadwaterError(
            f"Project {repository.project!r} has no plan in Redis. Publish one with 'headwater apply'."
        )
    return LakeCaughtUp(kafka, lake, {s.topic for s in published.plan.sources})


def _until(sink: Sink, caught_up: LakeCaughtUp) -> bool:
    """Whether it has caught up: a signal may have ended it before."""
    reached = False
    columns = (TextColumn("sink"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("sink", total=caught_up.total)

        def done() -> bool:
            nonlocal reached
            reached = caught_up()
            progress.update(task, completed=caught_up.total - caught_up.remaining)
            return reached

        sink.run(until=done)
    return reached
