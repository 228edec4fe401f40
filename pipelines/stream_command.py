"""Runs a worker in the foreground for `headwater stream`: signals, log lines, progress."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence

from click import Abort
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headwater.errors import HeadwaterError, UsageError
from headwater.monitoring.endpoint import MonitorAddress
from headwater.monitoring.logs import log_to_stderr, say
from headwater.native import library
from headwater.online.connection import Connection
from headwater.online.first_fills import Start
from headwater.online.plan_store import load_published
from headwater.online.topic_facts import topic_facts
from headwater.repository import Repository
from pipelines.caught_up import CaughtUp
from pipelines.foreground import as_a_worker, metrics_of, stopped_by_signals
from pipelines.worker import Worker, WorkerSettings

MOST = 1_000_000
"""Events that a batch of one process may have."""


def run(
    repository: Repository,
    *,
    until_caught_up: bool,
    batch: int | None = None,
    engine: str = "python",
    conf: Sequence[str] = (),
    start: str | None = None,
    monitor: MonitorAddress | None = None,
) -> None:
    """Run until stopped, or until caught up.

    `conf`: Spark's settings as KEY=VALUE; `start`: where views begin that have never had rows; `monitor`: where to
    answer who watches.

    Raises:
        UsageError: options that do not go together, or Java or PySpark is missing.
        Unreachable: Redis or Kafka does not answer at the start.
        HeadwaterError: `until_caught_up` without a published plan, or a topic that was changed.
        Abort: it was stopped before it had caught up.
    """
    log_to_stderr()
    begin = Start.parse(start, time.time_ns() // 1000) if start is not None else None
    redis, kafka = repository.need_redis(), repository.need_kafka()
    if until_caught_up:
        with Connection(redis) as connection:
            if load_published(connection, repository.project) is None:
                raise HeadwaterError(
                    f"Project {repository.project!r} has no plan in Redis. Publish one with 'headwater apply'."
                )
    # Later a broker may go and come; one that is not there at the start is more likely a wrong address.
    topic_facts(kafka, ["__headwater"], offsets=False)
    worker = _worker(repository, batch, engine, conf, begin)
    reached = not until_caught_up
    started = time.perf_counter()
    alone = as_a_worker() if engine == "python" else contextlib.nullcontext()
    with alone, metrics_of(worker.metrics, monitor), stopped_by_signals(worker.stop):
        if until_caught_up:
            reached = _until_caught_up(worker, CaughtUp(redis, kafka, repository.project))
        else:
            say(f"Worker of project {repository.project!r} is running; Ctrl-C stops it.")
            worker.run()
    took = max(time.perf_counter() - started, 1e-9)
    say(
        f"{worker.events:,} events in {took:.1f} s ({worker.events / took:,.0f}/s).",
        events=worker.events, seconds=round(took, 3),
    )  # fmt: skip
    if not reached:
        raise Abort


def _worker(repository: Repository, batch: int | None, engine: str, conf: Sequence[str], begin: Start | None) -> Worker:
    if engine == "spark":
        from pipelines.spark_stream import BATCH, start_spark_worker

        return start_spark_worker(repository, WorkerSettings(batch=batch or BATCH, start=begin), _spark_settings(conf))
    if conf:
        raise UsageError(f"--conf {conf[0]!r} is a setting of Spark, and --engine is {engine!r}.")
    if batch is not None and batch > MOST:
        raise UsageError(f"--batch {batch}: expected at most {MOST} with --engine python.")
    if library() is None:
        say("Without the compiled library: slower. 'python hatch_build.py' in a checkout makes it (docs/scaling.md).")
    settings = WorkerSettings(start=begin) if batch is None else WorkerSettings(batch=batch, start=begin)
    redis, kafka = repository.need_redis(), repository.need_kafka()
    return Worker(redis, kafka, repository.project, settings, repository.schema_registry)


def _spark_settings(conf: Sequence[str]) -> dict[str, str]:
    wrong = [pair for pair in conf if "=" not in pair]
    if wrong:
        raise UsageError(f"--conf {wrong[0]!r}: expected KEY=VALUE, such as spark.master=local[8].")
    return dict(pair.split("=", 1) for pair in conf)


def _until_caught_up(worker: Worker, caught_up: CaughtUp) -> bool:
    """Whether it has caught up: a signal may have ended it before."""
    reached = False
    columns = (TextColumn("stream"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("stream", total=None)

        def done() -> bool:
            nonlocal reached
            reached = caught_up()
            progress.update(task, total=caught_up.total or None, completed=caught_up.total - caught_up.remaining)
            return reached

        worker.run(until=done)
    return reached
