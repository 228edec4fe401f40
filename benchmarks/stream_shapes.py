"""Events a second of the worker on other views than `customer_spend`: what views share, what states cost, two workers.

    python -m benchmarks.stream_shapes [--events 400000] [--runs 1] [--only two_workers,ten_views,states]

As benchmarks/stream.py: real Kafka (4 partitions) and Redis, JSON events, 4,000 customers and 3,900 products, rows of
full size from 40 days of history, a warm-up that nobody times. After every run all rows are compared, byte for byte,
with those that one fold over all events gives; after two workers, the values of all features (their rows say other
offsets where a conflict made them take rows again).

* two_workers: `product_demand`, whose rows get events from all partitions, by one worker, then by two that write the
  same rows.
* ten_views: ten views by customer on one topic, beside one of them; "cost" is the time of an event.
* states: one view by customer with `last_n`, with `top_k`, with `distinct`, with `approx_distinct`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import begin, step
from benchmarks.stream_runs import Clock, apart, run_worker
from benchmarks.stream_servers import Rows, Servers, install, produce, rows_of, servers
from benchmarks.stream_shop import Drawn, draw, history_rows, shop_plan
from headwater.plans.plan import Plan, StreamView, stream_state_hash

CUSTOMERS = 4_000
TOPIC = "invoice_lines"


def shop_views(*views: StreamView) -> Plan:
    """A plan of these views over the benchmark's topic."""
    source = shop_plan(TOPIC, distinct=True).sources[0]
    named = [msgspec.structs.replace(v, state_hash=stream_state_hash(v, source)) for v in views]
    return Plan("bench", sources=(source,), views=tuple(named))


def compiled(*made: Any) -> Plan:
    """The plan of views that are made by Feast's and our classes."""
    from feature_repo import definitions as shop
    from headwater.plans.compile import compile_plan

    plan = compile_plan("bench", [shop.invoice_lines, shop.customer, shop.product, shop.market, *made])
    return shop_views(*plan.stream_views())


def product_plan() -> Plan:
    """The shop's `product_demand`."""
    from feature_repo import definitions as shop

    return compiled(shop.product_demand)


def customer_views(count: int) -> Plan:
    """Views by customer: counts, sums and the last value, no two with the same windows and conditions."""
    from headwater.definitions import Count, Last, Max, Sum

    def view(i: int) -> Any:
        return _view(
            f"spend_{i}", Count(over=["1h", f"{i + 1}d"]), Sum("quantity", over=["1d", f"{i + 2}d"]),
            Max("unit_price", over=[f"{i + 3}d"]), Last("country"), where=f"quantity > 0 AND unit_price < {1000 + i}",
        )  # fmt: skip

    return compiled(*(view(i) for i in range(count)))


def state_plan(kind: str) -> Plan:
    """A view by customer with one kind of state."""
    from headwater.definitions import ApproxDistinct, Distinct, LastN, TopK

    features = {
        "last_n": LastN("stock_code", n=10, over=["30d"]),
        "top_k": TopK("country", n=3, over=["30d"]),
        "distinct": Distinct("country", over=["30d"]),
        "approx_distinct": ApproxDistinct("stock_code", over=["30d"]),
    }
    return compiled(_view(f"with_{kind}", features[kind], where="quantity > 0"))


def _view(name: str, *features: Any, where: str) -> Any:
    from feature_repo import definitions as shop
    from headwater.definitions import StreamView as Definition

    return Definition(
        name=name, entity=shop.customer, source=shop.invoice_lines, where=where, features=list(features),
        owner="bench@shop.example", description="A view of the benchmark.", freshness="10s",
    )  # fmt: skip


class Shapes:
    """Runs over one topic of drawn events."""

    def __init__(self, own: Servers, sizes: argparse.Namespace) -> None:
        self.own, self.sizes = own, sizes
        self.count = sizes.warm + sizes.events
        step(f"drawing and producing {self.count:,} events")
        self.drawn: Drawn = draw(CUSTOMERS, self.count, 80, 60, time.time_ns() // 1000)
        produce(own, shop_plan(TOPIC, distinct=True).sources[0], self.drawn.events)

    def rate(self, plan: Plan, workers: int = 1) -> float:
        """The median rate of the runs, every row checked."""
        history: Rows = {v.name: history_rows(v, plan.sources[0], self.drawn) for v in plan.stream_views()}
        rates = []
        for i in range(self.sizes.runs):
            step(f"  run {i + 1} of {self.sizes.runs}, {workers} worker{'s' * (workers > 1)}")
            install(self.own, plan, history)
            rates.append(self._one(plan) if workers == 1 else self._several(plan, workers))
            self._check(plan, history)
        return statistics.median(rates)

    def _one(self, plan: Plan) -> float:
        clock: Clock = apart(run_worker, self.own, plan.project, self.sizes.warm, self.count, None, False)
        return clock.rate

    def _several(self, plan: Plan, workers: int) -> float:
        """From the first event after the warm-up, counted by positions in Redis, to the last."""
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        running = [context.Process(target=work, args=(self.own, plan.project, stop)) for _ in range(workers)]
        for process in running:
            process.start()
        try:
            first = self._wait(plan, self.sizes.warm)
            last = self._wait(plan, self.count)
        finally:
            stop.set()
            for process in running:
                process.join(60)
        return (last[0] - first[0]) / (last[1] - first[1])

    def _wait(self, plan: Plan, events: int) -> tuple[int, float]:
        from benchmarks.stream_servers import FILL
        from benchmarks.stream_shop import PARTITIONS
        from headwater.online.connection import Connection
        from headwater.online.keys import position_key

        view = plan.stream_views()[0].name
        deadline = time.monotonic() + 600
        with Connection(self.own.redis) as connection:
            while time.monotonic() < deadline:
                found = [
                    connection.command("GET", position_key(plan.project, view, FILL, p)) for p in range(PARTITIONS)
                ]
                done = sum(int(x.split(b"/")[0]) - 1 for x in found)
                if done >= events:
                    return done, time.perf_counter()
                time.sleep(0.005)
        raise AssertionError(f"{events:,} events were not reached in ten minutes")

    def _check(self, plan: Plan, history: Rows) -> None:
        """Rows against one fold over history and events: the values of every feature."""
        import polars as pl

        from headwater.durations import SECOND
        from headwater.rows.reader import ViewReader

        lines = pl.concat([self.drawn.history, self.drawn.events.select(self.drawn.history.columns)])
        whole = Drawn(CUSTOMERS, self.drawn.events, lines, self.drawn.end)
        for view in plan.stream_views():
            found, right = rows_of(self.own, plan, view), history_rows(view, plan.sources[0], whole)
            assert set(found) == set(right), f"{view.name}: other keys have rows"
            keys, at = sorted(right), self.drawn.end + 7 * SECOND
            values, expected = (ViewReader(view).read([of[k] for k in keys], at).values for of in (found, right))
            assert values == expected, f"{view.name}: other values"


def work(own: Servers, project: str, stop: Any) -> None:
    """A worker, until told to stop."""
    import logging

    from pipelines.foreground import as_a_worker
    from pipelines.worker import Worker

    logging.getLogger("headwater.stream").setLevel(logging.ERROR)
    with as_a_worker():
        Worker(own.redis, {"bootstrap.servers": own.kafka}, project).run(until=stop.is_set)


def two_workers(shapes: Shapes) -> None:
    """product_demand, by one and by two."""
    one, two = (shapes.rate(product_plan(), workers) for workers in (1, 2))
    print(f"product_demand: one worker {one:,.0f} events/s, two on the same rows {two:,.0f} together", flush=True)


def ten_views(shapes: Shapes) -> None:
    """Ten views on one topic, beside one."""
    one, ten = shapes.rate(customer_views(1)), shapes.rate(customer_views(10))
    print(f"one view {one:,.0f} events/s, ten on one topic {ten:,.0f}: {one / ten:.1f}x the cost", flush=True)


def states(shapes: Shapes) -> None:
    """Views with one kind of state each."""
    for kind in ("last_n", "top_k", "distinct", "approx_distinct"):
        print(f"{kind}: {shapes.rate(state_plan(kind)):,.0f} events/s", flush=True)


KINDS: dict[str, Callable[[Shapes], None]] = {"two_workers": two_workers, "ten_views": ten_views, "states": states}


def main() -> None:
    """Parse the sizes, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000, help="timed events of a run (default 400,000)")
    parser.add_argument("--warm", type=int, default=100_000, help="events before the clock starts (default 100,000)")
    parser.add_argument("--runs", type=int, default=1, help="timed runs each (default 1)")
    parser.add_argument("--only", default=",".join(KINDS), help=f"default {','.join(KINDS)}")
    sizes = parser.parse_args()
    begin("The worker on other views: events a second. More is better.", customers=CUSTOMERS,
          events_a_run=sizes.events, warm_up=sizes.warm, runs=sizes.runs)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder, servers(Path(folder)) as own:
        shapes = Shapes(own, sizes)
        for name in sizes.only.split(","):
            KINDS[name](shapes)


if __name__ == "__main__":
    main()
