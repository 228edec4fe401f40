"""Events a second when more works on the shop's `customer_spend`: workers of one group, then Spark.

    python -m benchmarks.scaling [--customers 4000] [--events 1000000] [--runs 1]

Under four minutes on two quiet cores as it is; `--runs 3` for medians.

Real Kafka (4 partitions), real Redis, JSON events, rows of full size, as in benchmarks.stream, and the same check:
every value once against Polars, and after each run the very bytes that were checked.

What is timed is seen from outside, for all alike: the positions in Redis. The clock runs from the moment that they
have passed `--warm` events to the last event. CPU time is that of the workers' processes (for Spark: the driver, its
JVM and its Python workers) in the same span; of the servers, which share the machine, none.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from benchmarks.report import begin, step
from benchmarks.stream_servers import FILL, Servers, install, produce, rows_of, servers
from benchmarks.stream_shop import PARTITIONS, assert_values, draw, history_rows, shop_plan
from headwater.plans.plan import Plan

TOPIC = "invoice_lines"
PATIENCE = 600.0


@dataclass(frozen=True)
class Arm:
    """What works: `processes` workers in Python, or one driver of Spark on `cores` cores of this machine."""

    name: str
    processes: int = 1
    cores: int = 0


@dataclass(frozen=True)
class Clock:
    """Events between two looks, and the wall and CPU seconds between them."""

    events: int
    wall: float
    cpu: float


ARMS = (
    Arm("1 worker"), Arm("2 workers", processes=2), Arm("3 workers", processes=3),
    Arm("Spark, 1 core", cores=1), Arm("Spark, 2 cores", cores=2),
)  # fmt: skip


def main() -> None:
    """Parse the sizes, run all in turns, print the table."""
    sizes = _options()
    begin(
        "More workers of one group, and Spark, on customer_spend: events a second. More is better.",
        customers=sizes.customers, events_a_run=sizes.events, warm_up=sizes.warm, runs=sizes.runs,
        batch_on_spark=sizes.spark_batch,
    )  # fmt: skip
    count = sizes.warm + sizes.events
    plan = shop_plan(TOPIC, distinct=False)
    view = plan.stream_views()[0]
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder, servers(Path(folder)) as own:
        step(f"drawing and producing {count:,} events")
        drawn = draw(sizes.customers, count, sizes.history, sizes.minutes, time.time_ns() // 1000)
        produce(own, plan.sources[0], drawn.events)
        rows = history_rows(view, plan.sources[0], drawn)
        clocks: dict[Arm, list[Clock]] = {arm: [] for arm in ARMS}
        checked: dict[bytes, bytes] | None = None
        for i in range(sizes.runs):
            for arm in ARMS:
                step(f"{arm.name}: run {i + 1} of {sizes.runs}")
                install(own, plan, {view.name: rows})
                clocks[arm].append(run(own, plan, arm, sizes, count, Path(folder)))
                left = rows_of(own, plan, view)
                if checked is None:
                    assert_values(view, drawn, left)
                    checked = left
                assert left == checked, f"{arm.name} left other rows"
    _print(clocks)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=4_000, help="distinct customers, a row each")
    parser.add_argument("--events", type=int, default=1_000_000, help="timed events of a run (default 1,000,000)")
    parser.add_argument("--warm", type=int, default=200_000, help="events before the clock starts (default 200,000)")
    parser.add_argument("--history", type=int, default=80, help="events that each customer has behind it")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the events' times stretch")
    parser.add_argument("--spark-batch", type=int, default=200_000, help="most events of a micro-batch on Spark")
    parser.add_argument("--runs", type=int, default=1, help="timed runs of each, in turns (default 1)")
    return parser.parse_args()


def run(own: Servers, plan: Plan, arm: Arm, sizes: argparse.Namespace, count: int, folder: Path) -> Clock:
    """One run of an arm, from a Redis that was just filled to the last event."""
    start = multiprocessing.get_context("spawn").Process
    arguments = (own, plan.project, arm.cores, sizes.spark_batch, str(folder))
    workers = [start(target=work, args=arguments) for _ in range(arm.processes)]
    for worker in workers:
        worker.start()
    try:
        return _watched(own, plan, sizes.warm, count, workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(60)


def work(own: Servers, project: str, cores: int, batch: int, folder: str) -> None:
    """A worker, or a driver of Spark, until it is told to end."""

    from pipelines.foreground import as_a_worker, stopped_by_signals
    from pipelines.worker import Worker, WorkerSettings

    # Without the append-only file Redis keeps nothing, of which the worker warns.
    logging.getLogger("headwater.stream").setLevel(logging.ERROR)
    kafka = {"bootstrap.servers": own.kafka}
    worker: Worker
    if cores:
        from pipelines.spark_materialize import start_session
        from pipelines.spark_stream import SparkWorker

        conf = {"spark.master": f"local[{cores}]", "spark.driver.maxResultSize": "0"}
        session = start_session(Path(folder) / "spark.log", app="benchmark", otherwise="python", conf=conf)
        settings = WorkerSettings(batch=batch)
        worker = SparkWorker(session, own.redis, kafka, project, settings, owns_session=True)
    else:
        worker = Worker(own.redis, kafka, project)
    with as_a_worker(), stopped_by_signals(worker.stop):
        worker.run()


def _watched(own: Servers, plan: Plan, warm: int, count: int, workers: list[Any]) -> Clock:
    from headwater.online.connection import Connection
    from headwater.online.keys import position_key

    view = plan.stream_views()[0]
    keys = [position_key(plan.project, view.name, FILL, p) for p in range(PARTITIONS)]
    marks: list[tuple[int, float, float]] = []
    deadline = time.monotonic() + PATIENCE
    with Connection(own.redis) as connection:
        while True:
            # Each partition begins with a record that is nobody's.
            done = sum(int(text.split(b"/")[0]) for text in connection.command("MGET", *keys)) - PARTITIONS
            if (not marks and done >= warm) or done >= count:
                marks.append((done, time.perf_counter(), _cpu(workers)))
            if done >= count:
                (a, b), wall, cpu = (marks[0][0], marks[-1][0]), marks[-1][1] - marks[0][1], marks[-1][2] - marks[0][2]
                assert b > a, "all events were done when the clock should have started: give more --events"
                return Clock(b - a, wall, cpu)
            assert time.monotonic() < deadline, f"{done:,} events of {count:,} after {PATIENCE:.0f} s"
            assert all(worker.is_alive() for worker in workers), "a worker ended"
            time.sleep(0.005)


def _cpu(workers: list[Any]) -> float:
    """CPU seconds of the processes and all that they started."""
    total = 0.0
    for worker in workers:
        root = psutil.Process(worker.pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _print(clocks: dict[Arm, list[Clock]]) -> None:
    first = statistics.median(c.events / c.wall for c in clocks[ARMS[0]])
    print(f"{'':16}{'events/s':>12}{'of 1 worker':>14}{'CPU us an event':>18}")
    for arm, of in clocks.items():
        rate = statistics.median(c.events / c.wall for c in of)
        cpu = statistics.median(1e6 * c.cpu / c.events for c in of)
        print(f"{arm.name:16}{rate:>12,.0f}{rate / first:>13.2f}x{cpu:>18.2f}")
    print("\nMedians of runs in turns; every run left the same bytes. Kafka and Redis share the machine.")


if __name__ == "__main__":
    main()
