"""Events a second of one worker on the shop's `customer_spend`, beside Quix Streams on the same topic.

    python -m benchmarks.stream [--events 400000] [--customers 4000] [--runs 3] [--without-distinct] [--json FILE]

Ours is the worker as `headwater stream` runs it: real Kafka, real Redis (append-only file each second),
admission, the fence, whole rows of three windows, a lifetime value and a distinct count. The peer has no such
view, so it computes the nearest that it has: count, sum, mean and max of `amount` in tumbling windows of an hour,
after the same filter, in its own local state and written nowhere (no changelog, no sink). Values of both are
asserted before anything is timed: ours (all rows, all features) against a slow loop over the events, the peer's
against sums recomputed for each of its windows. Every timed run of ours must leave the very bytes that were checked.

What is timed, for both alike: each run is a process of its own, and first works through `--warm` events that
nobody times, so that imports, the group's join and the first fetch are over. The clock runs from the moment
that these are done (for the worker: from the end of the batch that has the last of them) until the last event
is done, written and acknowledged. Rates of CPU time count all threads of that process, not the servers.
"""

from __future__ import annotations

import argparse
import gc
import math
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import Report
from headwater.plans.plan import Feature, Plan, StreamView

TOPIC, VIEW = "invoice_lines", "customer_spend"
BEGIN = 1_767_225_600_000_000
HOUR_MS = 3_600_000
MINUTES = 60_000_000


@dataclass(frozen=True)
class Servers:
    """Where this benchmark's own broker and Redis answer."""

    kafka: str
    redis: str


@dataclass(frozen=True)
class Clock:
    """One timed run: events between the warm-up's end and the end, wall and CPU seconds, seconds by step."""

    events: int
    wall: float
    cpu: float
    steps: dict[str, float]

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.wall

    @property
    def cpu_rate(self) -> float:
        """Events a second of CPU time."""
        return self.events / self.cpu


@dataclass(frozen=True)
class Line:
    """One event, as the slow loop reads it. `time` in microseconds."""

    customer: int
    time: int
    quantity: int
    price: float
    stock: str
    country: str


def main() -> None:
    """Parse the sizes, compare, print."""
    sizes = _options()
    _quiet()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder, servers(Path(folder)) as own:
        compare(own, Path(folder), sizes).write_json(sizes.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000, help="timed events of a run of ours")
    parser.add_argument("--peer-events", type=int, help="timed events of a run of the peer (default: a quarter)")
    parser.add_argument("--customers", type=int, default=4_000, help="distinct customers")
    parser.add_argument("--days", type=float, default=1.0, help="how long the events' times stretch")
    parser.add_argument("--warm", type=int, default=40_000, help="events worked through before the clock starts")
    parser.add_argument("--runs", type=int, default=3, help="timed runs each, in turns")
    parser.add_argument("--without-distinct", action="store_true", help="leave approx_distinct out of the view")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    return parser.parse_args()


def compare(own: Servers, folder: Path, sizes: argparse.Namespace) -> Report:
    """Check values, then time both in turns."""
    count = sizes.warm + sizes.events
    peer_count = min(count, sizes.warm + (sizes.peer_events or sizes.events // 4))
    plan = shop_plan(without_distinct=sizes.without_distinct)
    view = plan.stream_views()[0]
    projects = [f"bench{i}" for i in range(sizes.runs + 2)]
    publish_empty(own, plan, projects)
    lines = draw(count, sizes.customers, sizes.days)
    produce(own, lines)
    apart(run_worker, own, projects[0], sizes.warm, count, False)
    assert_values(own, projects[0], view, lines)
    checked = rows_of(own, projects[0], view)
    assert_windows(apart(run_peer, own, str(folder), sizes.warm, peer_count, True)[1], own, lines, peer_count)
    ours, peers = [], []
    for project in projects[1:-1]:
        ours.append(apart(run_worker, own, project, sizes.warm, count, False))
        assert rows_of(own, project, view) == checked, "a timed run left other rows than the checked one"
        peers.append(apart(run_peer, own, str(folder), sizes.warm, peer_count, False)[0])
    steps = apart(run_worker, own, projects[-1], sizes.warm, count, True)
    return report(sizes, ours, peers, steps, rows=len(checked), size=sum(map(len, checked.values())))


def report(
    sizes: argparse.Namespace, ours: list[Clock], peers: list[Clock], steps: Clock, *, rows: int, size: int
) -> Report:
    """The figures, and where the worker's time goes."""
    what = f"{VIEW}{' without approx_distinct' if sizes.without_distinct else ''}"
    made = Report(f"One worker on {what}: {sizes.events:,} events, {rows:,} customers, rows of {size // rows:,} bytes")
    name = "stream" + ("_without_distinct" if sizes.without_distinct else "")
    for suffix, pick in (("", "rate"), ("_per_cpu", "cpu_rate")):
        mine, other = (statistics.median(getattr(c, pick) for c in clocks) for clocks in (ours, peers))
        made.add(name + suffix, "events/s", mine, other, "quixstreams, tumbling 1 h", higher_is_better=True)
    made.note(f"Median of {len(ours)} runs in turns; all values checked, every run of ours left the same bytes.")
    made.note("per_cpu: of the process's own CPU time; fairer than wall time where others use the machine too.")
    made.note("Where the worker's time goes (a run of its own, measured; us an event):")
    made.note("  " + ", ".join(f"{k} {1e6 * v / steps.events:.2f}" for k, v in steps.steps.items()))
    made.print()
    return made


# ---- servers, plan, events


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """A broker and a Redis of our own, on free ports."""
    from headwater.embedded.kafka_broker import start_kafka
    from headwater.embedded.processes import free_port, stop
    from headwater.embedded.redis_server import start_redis

    started, port, redis_port = [], free_port(), free_port()
    try:
        started.append(start_redis(folder / "redis", redis_port))
        started.append(start_kafka(folder / "kafka", port, free_port()))
        yield Servers(f"127.0.0.1:{port}", f"redis://127.0.0.1:{redis_port}/0")
    finally:
        stop(started)


def shop_plan(*, without_distinct: bool) -> Plan:
    """The shop's definitions, compiled, with this one view."""
    from headwater.definitions.repositories import repository_plan
    from headwater.plans.plan import stream_state_hash
    from headwater.repository import load_repository

    plan = repository_plan(load_repository(Path(__file__).resolve().parent.parent / "feature_repo"))
    view = plan.view(VIEW)
    assert isinstance(view, StreamView)
    source = plan.source(view.source)
    if without_distinct:
        kept = tuple(f for f in view.features if f.function != "approx_distinct")
        view = msgspec.structs.replace(view, features=kept)
        view = msgspec.structs.replace(view, state_hash=stream_state_hash(view, source))
    return msgspec.structs.replace(plan, sources=(source,), views=(view,), services=())


def publish_empty(own: Servers, plan: Plan, projects: list[str]) -> None:
    """Create the topic and publish the plan for every run while it is empty: each begins at offset 0."""
    from headwater.online.connection import Connection
    from headwater.online.plan_store import publish
    from headwater.plans.topics import TopicSettings, create_topics, topics_of

    create_topics({"bootstrap.servers": own.kafka}, topics_of(plan), TopicSettings())
    with Connection(own.redis) as connection:
        for project in projects:
            publish(connection, {"bootstrap.servers": own.kafka}, msgspec.structs.replace(plan, project=project))


def draw(count: int, customers: int, days: float) -> list[Line]:
    """Events in the order of their times, drawn with a seed; one in fifty is a return, which `where` leaves out."""
    rng = np.random.default_rng(7)
    times = BEGIN + np.sort(rng.integers(0, int(days * 86400e6), count))
    quantity = np.where(rng.random(count) < 0.02, -1, rng.integers(1, 25, count))
    stock = (rng.zipf(1.3, count) % 3_900).tolist()
    country = (rng.zipf(1.8, count) % 37).tolist()
    drawn = zip(
        rng.integers(1, customers + 1, count).tolist(), times.tolist(), quantity.tolist(),
        np.round(rng.gamma(2, 2, count) + 0.01, 2).tolist(), stock, country, strict=True,
    )  # fmt: skip
    return [Line(c, t, q, p, f"{20_000 + s}A", f"Country {n:02d}") for c, t, q, p, s, n in drawn]


def produce(own: Servers, lines: list[Line]) -> None:
    """Send the events as JSON, keyed by customer, as the till would write them."""
    from confluent_kafka import Producer

    producer: Any = Producer({"bootstrap.servers": own.kafka, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    encode = msgspec.json.Encoder().encode
    for i, line in enumerate(lines):
        at = datetime.fromtimestamp(line.time // 10**6, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        event = {
            "invoice_no": f"{536_365 + i // 20}", "stock_code": line.stock, "description": "WHITE HANGING HEART HOLDER",
            "quantity": line.quantity, "invoice_ts": f"{at}.{line.time % 10**6:06d}Z", "unit_price": line.price,
            "customer_id": line.customer, "country": line.country,
        }  # fmt: skip
        while True:
            try:
                producer.produce(TOPIC, encode(event), b"%d" % line.customer)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0, "the broker did not take all events"


def apart(run: Callable[..., Any], *args: Any) -> Any:
    """The result of a run in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *args).result()


# ---- ours


def run_worker(own: Servers, project: str, warm: int, count: int, measured: bool) -> Clock:
    """The worker over `count` events."""
    from pipelines.worker import Worker

    watch = Stopwatch()
    if measured:
        watch.attach()
    worker = Worker(own.redis, {"bootstrap.servers": own.kafka}, project)
    marks: list[tuple[int, float, float]] = []

    def done() -> bool:
        if not marks and worker.events >= warm:
            watch.seconds.clear()
            marks.append(_mark(worker.events))
        if worker.events >= count:
            marks.append(_mark(worker.events))
        return worker.events >= count

    gc.disable()  # as `headwater stream` does
    worker.run(until=done)
    assert worker.events == count, f"{worker.events:,} events of {count:,}"
    events, wall, cpu = (b - a for a, b in zip(marks[0], marks[-1], strict=True))
    rest = wall - sum(watch.seconds.values())
    return Clock(int(events), wall, cpu, {**watch.seconds, "rest": rest} if measured else {})


def _mark(events: int) -> tuple[int, float, float]:
    return events, time.perf_counter(), time.process_time()


class Stopwatch:
    """Wall seconds by step of the worker, by wrapping the functions that do them; none contains another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def attach(self) -> None:
        """Wrap each step's functions, in this process."""
        from headwater.events.admission import Admission
        from headwater.online.connection import Connection
        from headwater.rows.table import RowTable
        from pipelines import feeds
        from pipelines.micro_batches import MicroBatches

        steps: list[tuple[str, Any, tuple[str, ...]]] = [
            ("consume", MicroBatches, ("poll",)), ("decode and admit", Admission, ("admit",)),
            ("evaluate", feeds, ("select",)), ("fold", RowTable, ("numbers", "load", "fold")),
            ("encode", RowTable, ("encode",)), ("Redis", Connection, ("send", "receive")),
        ]  # fmt: skip
        for step, owner, names in steps:
            for name in names:
                setattr(owner, name, self._timed(step, getattr(owner, name)))

    def _timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.seconds[step] += time.perf_counter() - begin

        return timed


def rows_of(own: Servers, project: str, view: StreamView) -> dict[bytes, bytes]:
    """All rows of a project's fill by entity key."""
    from headwater.online.connection import Connection
    from headwater.online.keys import row_prefix
    from headwater.online.plan_store import load_published

    with Connection(own.redis) as connection:
        published = load_published(connection, project)
        assert published is not None
        prefix = row_prefix(project, view.name, view.state_hash, published.active[view.name].fill)
        keys, cursor = set(), None
        while cursor != b"0":
            cursor, found = connection.command("SCAN", cursor or 0, "MATCH", prefix + b"*", "COUNT", 10_000)
            keys.update(found)
        values = connection.command("MGET", *keys) if keys else []
        return dict(zip([k[len(prefix) :] for k in keys], values, strict=True))


def assert_values(own: Servers, project: str, view: StreamView, lines: list[Line]) -> None:
    """Every feature of every customer, read from Redis, against a slow loop over its events."""
    from headwater.rows.reader import ViewReader

    mine: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if line.quantity > 0:
            mine[line.customer].append(line)
    rows = rows_of(own, project, view)
    assert set(rows) == {b"%d" % c for c in mine}, "other customers have rows than have events"
    at = max(line.time for line in lines) + 7 * MINUTES
    read = ViewReader(view).read([rows[b"%d" % c] for c in mine], at)
    for feature in view.features:
        for customer, value in zip(mine, read.values[feature.name], strict=True):
            expected = slow_value(feature, mine[customer], at)
            # Past 256 distinct values the count is an estimate, by design.
            near = feature.function == "approx_distinct" and expected > 256
            assert value == expected or (near and abs(value - expected) < 0.15 * expected), (
                f"{feature.name} of customer {customer}: {value!r}, the slow loop says {expected!r}"
            )


def slow_value(feature: Feature, lines: list[Line], at: int) -> Any:
    """One value by the window law, from one customer's events in any order."""
    start = -math.inf if feature.window is None else (at - feature.window) // feature.hop * feature.hop  # type: ignore[operator]
    seen = [line for line in lines if start <= line.time < at]
    if feature.function == "count":
        return len(seen)
    if feature.function == "approx_distinct":
        return len({line.stock for line in seen})
    if not seen:
        return None
    if feature.function == "last":
        return max(enumerate(seen), key=lambda pair: (pair[1].time, pair[0]))[1].country
    amounts = [line.quantity * line.price for line in seen]
    if feature.function == "max":
        return max(amounts)
    total = sum(math.floor(a * 10.0**feature.scale + 0.5) for a in amounts)
    return total / (10**feature.scale * (len(seen) if feature.function == "mean" else 1))


# ---- the peer


def run_peer(own: Servers, folder: str, warm: int, count: int, kept: bool) -> tuple[Clock, dict[Any, Any]]:
    """Quix Streams over the topic's first `count` events; with `kept`, the last state of each of its windows too."""
    _quiet()
    from quixstreams import Application
    from quixstreams.dataframe.windows import Count, Max, Mean, Sum
    from quixstreams.models.topics.admin import TopicAdmin

    # Its reader of topic settings takes what Kafka 4 says of them for an error; the topic stays as it is.
    TopicAdmin.inspect_topics = _inspect
    state = Path(folder) / f"peer-{uuid.uuid4().hex}"
    application = Application(
        broker_address=own.kafka, consumer_group=state.name, auto_offset_reset="earliest", state_dir=str(state),
        use_changelog_topics=False, auto_create_topics=False, loglevel="ERROR", commit_interval=5.0,
        consumer_extra_config={"queued.min.messages": 200_000},
    )  # fmt: skip
    topic = application.topic(TOPIC, value_deserializer="json", key_deserializer="bytes", timestamp_extractor=_event_ms)
    marks: list[tuple[int, float, float]] = []
    windows: dict[Any, Any] = {}
    seen = 0

    def counted(value: Any) -> None:
        nonlocal seen
        seen += 1
        if seen in (warm, count):
            marks.append(_mark(seen))

    def kept_window(value: Any, key: Any, timestamp: Any, headers: Any) -> None:
        windows[key, value["start"]] = value

    frame = application.dataframe(topic).update(counted)
    frame = frame[frame["quantity"] > 0]
    frame["amount"] = frame["quantity"] * frame["unit_price"]
    hourly = frame.tumbling_window(timedelta(hours=1), grace_ms=HOUR_MS)
    frame = hourly.agg(count=Count(), sum=Sum("amount"), mean=Mean("amount"), max=Max("amount")).current()
    if kept:
        frame.update(kept_window, metadata=True)
    application.run(count=count, timeout=30)
    shutil.rmtree(state, ignore_errors=True)
    assert len(marks) == 2, f"the peer saw {seen:,} events of {count:,}"
    events, wall, cpu = (b - a for a, b in zip(*marks, strict=True))
    return Clock(int(events), wall, cpu, {}), windows


def _inspect(self: Any, topic_names: list[str], timeout: float = 30) -> dict[str, Any]:
    from quixstreams.models.topics.admin import TopicConfig

    found = self.list_topics(timeout=timeout)
    extra = {"retention.ms": "-1", "cleanup.policy": "delete", "max.message.bytes": "1048588", "retention.bytes": "-1"}
    return {
        name: TopicConfig(num_partitions=len(found[name].partitions), replication_factor=1, extra_config=extra)
        if name in found
        else None
        for name in topic_names
    }


def _event_ms(value: Any, headers: Any, timestamp: float, kind: Any) -> int:
    return int(datetime.fromisoformat(value["invoice_ts"]).timestamp() * 1000)


def assert_windows(windows: dict[Any, Any], own: Servers, lines: list[Line], count: int) -> None:
    """Count, sum, mean and max of the peer's windows; of a part of the topic, only their sound ones."""
    amounts: dict[tuple[bytes, int], list[float]] = defaultdict(list)
    for line in lines:
        if line.quantity > 0:
            amounts[b"%d" % line.customer, line.time // 1000 // HOUR_MS * HOUR_MS].append(line.quantity * line.price)
    if count == len(lines):
        assert set(windows) == set(amounts), "the peer has other windows than the events"
    assert windows, "the peer gave no windows"
    for place, got in windows.items():
        # The events of one key come in their order, so a part of the topic holds a beginning of each window.
        expected = amounts[place][: got["count"]]
        assert len(expected) == got["count"], place
        assert count < len(lines) or len(amounts[place]) == got["count"], place
        total = math.fsum(expected)
        assert got["max"] == max(expected), (place, got)
        assert math.isclose(got["sum"], total, rel_tol=1e-9), (place, got)
        assert math.isclose(got["mean"], total / len(expected), rel_tol=1e-9), (place, got)


def _quiet() -> None:
    # Packages below Feast warn whatever filters say.
    warnings.showwarning = lambda *_args, **_named: None


if __name__ == "__main__":
    main()
