"""Events a second of one worker on the shop's `customer_spend`, beside Quix Streams and Bytewax on the same topic.

    python -m benchmarks.stream [--customers 4000,100000] [--events 1000000] [--runs 3] [--json FILE]

Ours is the worker as `headwater stream` runs it: real Kafka (4 partitions), real Redis, JSON events, admission, the
fence with its positions, commits, whole rows of full size: each customer has 40 days of history behind it when the
run begins. With and without approx_distinct, for few and for many customers, with Redis's append-only file off and
on (synced each second, made anew when it has 8 GB): `stream_CUSTOMERS[_distinct][_append_only]`.

The peers have no such view, so each computes the nearest that it has: count, sum, mean and max of `amount` in
tumbling windows of an hour, after the same filter, in its own local state and written nowhere (no changelog, no sink,
no recovery). Quix Streams gives a window's value after each event, as ours does; Bytewax when the window closes.
Figures beside Bytewax end with `_bytewax`. It has wheels for Python up to 3.12 (not for Linux on ARM); elsewhere it is
left out, and the report says so.

Values of all are asserted before anything is timed: ours (all rows, all features) against Polars over all events,
the peers' against sums recomputed for each of their windows. Every timed run of ours begins with the same rows and
must leave the very bytes that were checked.

What is timed, for all alike: each run is a process of its own, and first works through `--warm` events that nobody
times, so that imports, the group's join, the first fetch and (for ours) the first meeting with each row are over.
The clock runs from the moment that these are done until the last event is done, written and acknowledged. Rates of
CPU time count all threads of that process, not the servers.

Behind the table, from runs of their own: where the worker's time goes a step, and the rate over sizes of the batch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import stream_peer_bytewax
from benchmarks.report import Report, begin, quiet, step
from benchmarks.stream_peer import Windows, assert_windows, run_peer
from benchmarks.stream_runs import Clock, apart, run_worker
from benchmarks.stream_servers import Servers, install, produce, rows_of, servers
from benchmarks.stream_shop import PARTITIONS, Drawn, assert_values, draw, history_rows, shop_plan
from headwater.plans.plan import Plan, StreamView

QUIX = "quixstreams, tumbling 1 h"
BYTEWAX = "bytewax, tumbling 1 h"


class Bench:
    """All runs over the events of one number of customers."""

    def __init__(self, own: Servers, folder: Path, sizes: argparse.Namespace, customers: int) -> None:
        self.own, self.folder, self.sizes, self.customers = own, folder, sizes, customers
        self.topic = f"invoice_lines_{customers}"
        self.count = sizes.warm + sizes.events
        step(f"{customers:,} customers: drawing and producing {self.count:,} events")
        self.drawn: Drawn = draw(customers, self.count, sizes.history, sizes.minutes, time.time_ns() // 1000)
        produce(own, shop_plan(self.topic, distinct=True).sources[0], self.drawn.events)

    def run(self, report: Report) -> None:
        """Check and time every kind of run, the peers in turns with ours."""
        peers = [QuixRuns(self), *([BytewaxRuns(self)] if stream_peer_bytewax.there() else [])]
        for distinct in self.sizes.distinct:
            view = ViewRuns(self, distinct)
            for append_only in (False, True):
                name = f"stream_{self.customers}" + "_distinct" * distinct + "_append_only" * append_only
                ours: list[Clock] = []
                theirs: list[list[Clock]] = [[] for _ in peers]
                for i in range(self.sizes.runs):
                    step(f"{name}: run {i + 1} of {self.sizes.runs}")
                    ours.append(view.timed(append_only=append_only))
                    for peer, clocks in zip(peers, theirs, strict=True):
                        clocks.append(peer.timed())
                for peer, clocks in zip(peers, theirs, strict=True):
                    for suffix, pick in (("", "rate"), ("_per_cpu", "cpu_rate")):
                        figures = (statistics.median(getattr(c, pick) for c in those) for those in (ours, clocks))
                        report.add(name + suffix + peer.suffix, "events/s", *figures, peer.name, higher_is_better=True)
            for line in view.notes():
                report.note(line)


class ViewRuns:
    """Runs of the worker on one definition: rows checked once, the same bytes after every run."""

    def __init__(self, bench: Bench, distinct: bool) -> None:
        self.bench, self.distinct = bench, distinct
        self.plan: Plan = shop_plan(bench.topic, distinct=distinct)
        self.view: StreamView = self.plan.stream_views()[0]
        step(
            f"{bench.customers:,} customers{', distinct' * distinct}: writing history, a run, and checking every value"
        )
        self.rows = history_rows(self.view, self.plan.sources[0], bench.drawn)
        self._run()
        self.checked = rows_of(bench.own, self.plan, self.view)
        assert_values(self.view, bench.drawn, self.checked)

    def timed(self, *, append_only: bool = False, batch: int | None = None, watched: bool = False) -> Clock:
        """One run, whose rows must be those that were checked."""
        clock = self._run(append_only, batch, watched)
        assert rows_of(self.bench.own, self.plan, self.view) == self.checked, "a timed run left other rows"
        return clock

    def _run(self, append_only: bool = False, batch: int | None = None, watched: bool = False) -> Clock:
        install(self.bench.own, self.plan, {self.view.name: self.rows}, append_only=append_only)
        warm, count = self.bench.sizes.warm, self.bench.count
        clock: Clock = apart(run_worker, self.bench.own, self.plan.project, warm, count, batch, watched)
        return clock

    def notes(self) -> Iterator[str]:
        """Rows, steps and the curve over batch sizes."""
        size = sum(map(len, self.checked.values())) // len(self.checked)
        yield f"{self.bench.customers:,} customers{', distinct' * self.distinct}: {len(self.checked):,} rows of {size:,} bytes"
        step("where the time goes")
        clock = self.timed(watched=True)
        each = {k: (1e6 * wall / clock.events, 1e6 * cpu / clock.events) for k, (wall, cpu) in clock.steps.items()}
        shares = ", ".join(f"{step} {wall:.2f} ({cpu:.2f})" for step, (wall, cpu) in each.items())
        yield f"  us an event, wall (CPU), watched: {shares}; {1e6 * clock.wall / clock.events:.2f} in all"
        yield f"  most memory of the worker, over {self.bench.count:,} events that all lay there at the start: {clock.peak:,} MB"
        curve = []
        for batch in self.bench.sizes.batches:
            step(f"batches of {batch:,}")
            curve.append(f"{batch:,}: {self.timed(batch=batch).rate:,.0f}")
        if curve:
            yield f"  events/s by most events a batch: {', '.join(curve)}"


class QuixRuns:
    """Runs of Quix Streams over the beginning of the topic."""

    name, suffix = QUIX, ""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.count = min(bench.count, bench.sizes.peer_warm + bench.sizes.peer_events)
        step(f"{bench.customers:,} customers: the values of {self.name}")
        self._check()

    def timed(self) -> Clock:
        """One run."""
        return self._run(run_peer, False)[0]

    def _check(self) -> None:
        assert_windows(self._run(run_peer, True)[1], self.bench.drawn.events)

    def _run(self, run: Callable[..., tuple[Clock, Windows]], kept: bool) -> tuple[Clock, Windows]:
        warm = self.bench.sizes.peer_warm
        found: tuple[Clock, Windows] = apart(
            run, self.bench.own, str(self.bench.folder), self.bench.topic, warm, self.count, kept
        )
        return found


class BytewaxRuns(QuixRuns):
    """Runs of Bytewax over as many events of the beginning of each partition."""

    name, suffix = BYTEWAX, "_bytewax"

    def timed(self) -> Clock:
        """One run."""
        return self._run(stream_peer_bytewax.run_bytewax, False)[0]

    def _check(self) -> None:
        events = self.bench.drawn.events
        fewest = int(events["_partition"].value_counts()["count"].min())
        each = min(self.count // PARTITIONS, fewest)
        self.count = each * PARTITIONS
        windows = self._run(stream_peer_bytewax.run_bytewax, True)[1]
        assert_windows(windows, events)
        lines = events.filter((pl.col("_offset") <= each) & (pl.col("quantity") > 0))
        assert sum(w["count"] for w in windows.values()) == lines.height, "Bytewax left events out"


def main() -> None:
    """Parse the sizes, compare, print."""
    sizes = _options()
    quiet()
    begin(
        "One worker on customer_spend: events a second, beside Quix Streams and Bytewax on the same topic. More is better.",
        customers=" and ".join(f"{c:,}" for c in sizes.customers), events_a_run=sizes.events, warm_up=sizes.warm,
        history_a_customer=sizes.history, peer_events=sizes.peer_events, runs=sizes.runs,
    )  # fmt: skip
    report = Report("One worker on customer_spend, events a second (medians)")
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder, servers(Path(folder)) as own:
        for customers in sizes.customers:
            Bench(own, Path(folder), sizes, customers).run(report)
    if not stream_peer_bytewax.there():
        report.note("Bytewax is left out: it is not installed, and has no wheel for each Python and machine.")
    report.note("per_cpu: of the process's own CPU time; fairer than wall time where others use the machine too.")
    report.print()
    report.write_json(sizes.json)


def _options() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(n) for n in text.split(",") if n]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=numbers, default=[4_000, 100_000], help="default 4000,100000")
    parser.add_argument(
        "--events", type=int, default=1_000_000, help="timed events of a run of ours (default 1,000,000)"
    )
    parser.add_argument("--warm", type=int, default=200_000, help="events before the clock starts (default 200,000)")
    parser.add_argument("--history", type=int, default=80, help="events of each customer before (default 80)")
    parser.add_argument(
        "--minutes", type=float, default=60, help="how long the topic's event times stretch (default 60)"
    )
    parser.add_argument("--peer-events", type=int, default=100_000, help="timed events of the peer (default 100,000)")
    parser.add_argument("--peer-warm", type=int, default=20_000, help="the peer's events before that (default 20,000)")
    kinds = {"without": [False], "with": [True], "both": [False, True]}
    parser.add_argument(
        "--distinct", type=kinds.get, default=[False, True], help="approx_distinct: without, with or both"
    )
    parser.add_argument("--runs", type=int, default=3, help="timed runs each, in turns (default 3)")
    parser.add_argument(
        "--batches", type=numbers, default=[1_000, 5_000, 20_000, 50_000, 100_000], help="sizes of the curve"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
