"""How long an event takes from Kafka to a reader of Redis, while others keep the worker busy.

    python -m benchmarks.freshness [--rates 5000,50000] [--probes 500] [--json FILE]

Four processes: real Kafka and Redis; a producer that sends `rate` events a second to the shop's topic (JSON, 4
partitions, 4,000 customers with rows of full size: 40 days of history); one worker as `headwater stream` runs it; and
a reader, which sends an event of its own every so often and reads that customer's row, like any client of Redis,
until the row has the event. The time counts from the broker's own time of the event (LogAppendTime, whole
milliseconds) to the reader's clock behind the answer; the reader asks every half millisecond.

There is no peer in this table: what other streaming libraries write to Redis, they write in batches or at commits.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import begin, step
from benchmarks.stream_servers import Servers, install, produce, servers
from benchmarks.stream_shop import PARTITIONS, VIEW, draw, history_rows, shop_plan
from headwater.events.json_rows import json_rows, typed
from headwater.plans.plan import Plan

CUSTOMERS, BLOCK = 4_000, 20_000


def keep_busy(kafka: str, topic: str, values: list[bytes], rate: int, stop: Event, sent: Any) -> None:
    """Send values over and over, `rate` a second, every 2 ms what is due; `sent` counts."""
    from confluent_kafka import Producer

    settings = {"linger.ms": 1, "queue.buffering.max.messages": 500_000, "delivery.report.only.error": True}
    producer: Any = Producer({"bootstrap.servers": kafka, **settings})
    messages = [{"value": value} for value in values]
    started, n = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - started) * rate)
        while n < due:
            # Fifty to a partition at a time, in one call: the load should not take the machine that it loads.
            first = n % len(messages)
            some = messages[first : first + min(due - n, 50 - n % 50)]
            producer.produce_batch(topic, some, partition=n // 50 % PARTITIONS)
            n += len(some)
        sent.value = n
        producer.poll(0)
        time.sleep(0.002)
    producer.flush(30)


def work(own: Servers, project: str, stop: Event, done: Any) -> None:
    """The worker, until told to stop."""
    from pipelines.foreground import as_a_worker
    from pipelines.worker import Worker

    logging.getLogger("headwater.stream").setLevel(logging.ERROR)
    worker = Worker(own.redis, {"bootstrap.servers": own.kafka}, project)

    def stopped() -> bool:
        done.value = worker.events
        return stop.is_set()

    with as_a_worker():
        worker.run(until=stopped)


def probe(own: Servers, plan: Plan, values: list[tuple[bytes, bytes]], every: float) -> list[float]:
    """Milliseconds of each probe."""
    from headwater.online.connection import Connection
    from headwater.online.plan_store import load_published
    from pipelines.freshness import FreshnessProbe

    with Connection(own.redis) as connection:
        published = load_published(connection, plan.project)
        assert published is not None
        watcher = FreshnessProbe({"bootstrap.servers": own.kafka}, connection, published, VIEW, patience=20.0)
        watcher.measure(values[:20], 1 / every)  # connections, first fetch
        found = watcher.measure(values[20:], 1 / every)
    assert not found.missed, f"{found.missed} events never came"
    return found.milliseconds


def run(
    own: Servers, plan: Plan, values: list[bytes], rate: int, probes: int, every: float, settle: float
) -> tuple[list[float], float]:
    """All probes at one rate, and how many events a second the worker took meanwhile."""
    context = multiprocessing.get_context("spawn")
    stop, sent, done = context.Event(), context.Value("q", 0), context.Value("q", 0)
    topic = plan.sources[0].topic
    others = [
        context.Process(target=work, args=(own, plan.project, stop, done)),
        context.Process(target=keep_busy, args=(own.kafka, topic, values, rate, stop, sent)),
    ]
    for process in others:
        process.start()
    try:
        deadline = time.monotonic() + 60
        while (done.value < sent.value - rate // 10 or not sent.value) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(settle)
        asked = [(b"probe", v) for v in values[:: max(1, len(values) // (probes + 20))][: probes + 20]]
        before, since = done.value, time.monotonic()
        found = probe(own, plan, asked, every)
        took = (done.value - before) / (time.monotonic() - since)
    finally:
        stop.set()
        for process in others:
            process.join(60)
            if process.exitcode is None:
                process.kill()
    return found, took


def main() -> None:
    """Parse the sizes, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="5000,50000", help="events a second beside the probes (default 5000,50000)")
    parser.add_argument("--probes", type=int, default=500, help="events that are watched (default 500)")
    parser.add_argument("--every", type=float, default=0.02, help="seconds between two of them (default 0.02)")
    parser.add_argument(
        "--settle", type=float, default=60, help="seconds at a rate before it is measured: a broker's first are spent "
        "on compiling itself (default 60)"
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    sizes = parser.parse_args()
    rates = [int(r) for r in sizes.rates.split(",")]
    begin("From the broker's time of an event to a reader of Redis, milliseconds. Less is better.",
          customers=CUSTOMERS, probes=sizes.probes, seconds_between=sizes.every)  # fmt: skip
    figures = {}
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder, servers(Path(folder)) as own:
        plan = shop_plan("invoice_lines", distinct=False)
        source, view = plan.sources[0], plan.stream_views()[0]
        step("drawing events and 40 days of history")
        drawn = draw(CUSTOMERS, BLOCK, 80, 60, time.time_ns() // 1000)
        produce(own, source, drawn.events.head(PARTITIONS))
        install(own, plan, {view.name: history_rows(view, source, drawn)})
        # Returns count for no row, so a probe must not be one.
        events = typed(drawn.events.filter(pl.col("quantity") > 0), source)
        values = list(json_rows(events))
        assert msgspec.json.decode(values[0])
        for rate in rates:
            step(f"{rate:,} events a second")
            found, took = run(own, plan, values, rate, sizes.probes, sizes.every, sizes.settle)
            p50, p90, p99 = np.percentile(found, [50, 90, 99])
            figures[str(rate)] = {"p50": p50, "p90": p90, "p99": p99, "max": max(found), "events_a_second": took}
            print(f"{rate:>8,} events/s (the worker took {took:,.0f}/s): p50 {p50:.1f} ms, p90 {p90:.1f} ms, "
                  f"p99 {p99:.1f} ms, max {max(found):.1f} ms, {len(found):,} events", flush=True)  # fmt: skip
    if sizes.json:
        Path(sizes.json).write_bytes(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
