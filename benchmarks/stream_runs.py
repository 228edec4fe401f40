"""One timed run of the worker, in a process of its own, and the watch that says which step its time goes to."""

from __future__ import annotations

import logging
import multiprocessing
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stream_servers import Servers

Mark = tuple[int, float, float]


@dataclass(frozen=True)
class Clock:
    """One run: events between the end of the warm-up and the end, wall and CPU seconds; both by step."""

    events: int
    wall: float
    cpu: float
    steps: dict[str, tuple[float, float]]
    peak: int = 0
    """Most memory that the process has had, in MB."""

    @classmethod
    def between(cls, first: Mark, last: Mark, steps: dict[str, tuple[float, float]] | None = None) -> Clock:
        """The run between two marks."""
        events, wall, cpu = (b - a for a, b in zip(first, last, strict=True))
        peak = most_memory() // 1_000_000
        return cls(int(events), wall, cpu, steps or {}, peak)

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.wall

    @property
    def cpu_rate(self) -> float:
        """Events a second of CPU time."""
        return self.events / self.cpu


def most_memory() -> int:
    """Bytes that this process has had at most. Linux's getrusage also counts those of the process it was forked from."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1000
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def mark(events: int) -> Mark:
    """So many events are done now."""
    return events, time.perf_counter(), time.process_time()


def apart(run: Callable[..., Any], *args: Any) -> Any:
    """The result of a run in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *args).result()


def run_worker(own: Servers, project: str, warm: int, count: int, batch: int | None, watched: bool) -> Clock:
    """The worker as `headwater stream` runs it, over `count` events, timed behind the first `warm`."""
    from pipelines.foreground import as_a_worker
    from pipelines.worker import Worker, WorkerSettings

    watch = Stopwatch() if watched else None
    if watch is not None:
        watch.attach()
    settings = WorkerSettings() if batch is None else WorkerSettings(batch=batch)
    worker = Worker(own.redis, {"bootstrap.servers": own.kafka}, project, settings)
    marks: list[Mark] = []

    def done() -> bool:
        if not marks and worker.events >= warm:
            if watch is not None:
                watch.seconds.clear()
            marks.append(mark(worker.events))
        if worker.events >= count:
            marks.append(mark(worker.events))
        return worker.events >= count

    # Without the append-only file Redis keeps nothing, of which the worker warns.
    logging.getLogger("headwater.stream").setLevel(logging.ERROR)
    with as_a_worker():
        worker.run(until=done)
    assert worker.events == count, f"{worker.events:,} events of {count:,}"
    return Clock.between(marks[0], marks[-1], dict(watch.seconds) if watch is not None else None)


class Stopwatch:
    """Wall and CPU seconds by step of the worker, by wrapping the functions that do them; a step's time is its own
    alone, without that of steps inside it. Steps of other threads than the main one have "(beside)" behind their names.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self._threads = threading.local()

    def attach(self) -> None:
        """Wrap each step's functions, in this process."""
        from headwater.events.admission import Admission
        from headwater.online.connection import Connection
        from headwater.rows import table
        from pipelines import feeds
        from pipelines.micro_batches import MicroBatches
        from pipelines.worker import Worker

        steps: list[tuple[str, Any, tuple[str, ...]]] = [
            ("consume", MicroBatches, ("poll",)), ("decode", Admission, ("admit",)),
            ("evaluate", feeds, ("select",)), ("rows", table.RowTable, ("numbers", "load")),
            ("tiles", table.RowTable, ("fold",)), ("merge", table._Ring, ("merge",)),
            ("encode", table.RowTable, ("framed",)), ("Redis", Connection, ("send", "receive")),
            ("rest", Worker, ("_turn",)),
        ]  # fmt: skip
        for step, owner, names in steps:
            for name in names:
                setattr(owner, name, self._timed(step, getattr(owner, name)))

    def _timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            inner: list[tuple[float, float]] = self._threads.__dict__.setdefault("inner", [(0.0, 0.0)])
            inner.append((0.0, 0.0))
            begin = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **named)
            finally:
                took = time.perf_counter() - begin[0], time.thread_time() - begin[1]
                beside = "" if threading.current_thread() is threading.main_thread() else " (beside)"
                own = _sum(took, inner.pop(), -1)
                self.seconds[step + beside] = _sum(self.seconds[step + beside], own)
                inner[-1] = _sum(inner[-1], took)

        return timed


def _sum(a: tuple[float, float], b: tuple[float, float], sign: int = 1) -> tuple[float, float]:
    return a[0] + sign * b[0], a[1] + sign * b[1]
