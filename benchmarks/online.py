"""Reading features online: Headwater's client beside Feast's own Redis store, on the same Redis.

    python -m benchmarks.online [--entities 5000] [--runs 400] [--json FILE]

Two views of 50 features, each read for 1 and for 100 entities: one without windows (`online_…`), and one of
windows of 1 h, 1 d and 30 d, which Headwater computes from tiles when it is read (`online_windows_…`). Feast
has no windows; its store is given the finished values of that moment, which somebody would have had to keep
writing. Ours is `headwater.Client.get(…).to_dict()`, the peer `FeatureStore.get_online_features(…).to_dict()`;
both give the same Python dict, which is asserted for the first requests of each kind before anything is timed.

How it is timed, and why so:

* Each store is read by a process of its own, as in a service. In one process each read runs with what the
  other left behind: Feast makes tens of thousands of objects a read, whose garbage may be collected inside our
  call, and its 1 to 40 ms of work push our code and data out of the processor's caches.
* The two take turns in blocks of 20 requests, so that a slow minute of the machine hits both; the median of
  all requests counts. Before each block a process makes some reads that nobody times, since it has slept.
* A read that comes after a pause pays for cold caches and for waking up Redis, whatever the pause was filled
  with: on a shared machine that is more than the read itself costs. So this is measured too, for both, as
  `…_after_idle`: every request after a pause of 20 ms. Between the two lies what a service sees.
* The garbage collector is on, as a process has it by default.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import online_views
from benchmarks.online_views import FEATURES, KEYS, NOW, Filled
from benchmarks.report import Report, begin, step
from headwater.embedded.processes import free_port, stop
from headwater.embedded.redis_server import start_redis

BLOCK, WARM, CHECKED = 20, 5, 20
IDLE = 0.02
PEER = "Feast, its Redis store"

Reader = Callable[[list[int]], dict[str, list[Any]]]


def main() -> None:
    """Print the table; with --json write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=5_000, help="rows in Redis (default 5,000)")
    parser.add_argument("--events", type=int, default=60, help="events of an entity of the windowed view (default 60)")
    parser.add_argument("--runs", type=int, default=400, help="timed requests of each kind (default 400)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args()
    begin(
        "Reading 50 features online: microseconds a request, Headwater beside Feast on the same Redis. Less is better.",
        entities=options.entities, events_of_an_entity=options.events, requests=options.runs,
    )  # fmt: skip
    report = Report("Online read, one view of 50 features, both to the same Python dict (us a request, medians)")
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        port = free_port()
        redis = start_redis(folder, port)
        try:
            step("view without windows: filling both stores")
            compare(report, "online", folder, port, online_views.plain(options.entities), options.runs)
            step("view of windows: filling both stores")
            filled = online_views.windowed(options.entities, options.events)
            compare(report, "online_windows", folder, port, filled, options.runs)
        finally:
            stop([redis], patience=5)
    report.note("MGET alone: the same rows asked for by the same connection, nothing made of them.")
    report.print()
    report.write_json(options.json)


def compare(report: Report, name: str, folder: Path, port: int, filled: Filled, runs: int) -> None:
    """Fill both stores, assert equal answers, and time both in turns."""
    with Arm(our_reader, port, filled) as ours, Arm(feast_reader, folder, port, filled) as peer:
        random = np.random.default_rng(7)
        for count in (1, 100):
            step(f"{name}: {count} x {FEATURES}")
            requests = [random.integers(0, len(filled.rows), count).tolist() for _ in range(runs)]
            checked = requests[:CHECKED]
            for ids, mine, theirs in zip(
                checked, ours.ask("answers", checked), peer.ask("answers", checked), strict=True
            ):
                assert mine == theirs, f"the stores give different values for {ids}"
            for suffix, kind, used in (("", "times", requests), ("_after_idle", "after_idle", requests[: runs // 4])):
                figures = in_turns(used, kind, ours, peer)
                report.add(f"{name}_{count}x{FEATURES}{suffix}", "us", *figures, PEER)
            bare = statistics.median(ours.ask("bare", requests))
            sizes = [len(row) for row in filled.rows if row is not None]
            report.note(
                f"{name}_{count}x{FEATURES}: MGET alone {bare:.0f} us, rows of {statistics.mean(sizes):,.0f} bytes."
            )


def in_turns(requests: list[list[int]], kind: str, *arms: Arm) -> list[float]:
    """Median microseconds of a request to each, timed in blocks that take turns."""
    times: list[list[float]] = [[] for _ in arms]
    for first in range(0, len(requests), BLOCK):
        for arm, kept in zip(arms, times, strict=True):
            kept += arm.ask(kind, requests[first : first + BLOCK])
    return [statistics.median(t) for t in times]


# ---- a store, in a process of its own


class Arm:
    """A reader in a process of its own, made there by `make(*args)`."""

    def __init__(self, make: Callable[..., tuple[Reader, Reader]], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    def ask(self, kind: str, requests: list[list[int]]) -> list[Any]:
        """The answers to requests, or the microseconds that each took."""
        self._pipe.send((kind, requests))
        answer: list[Any] = self._pipe.recv()
        return answer

    def __enter__(self) -> Arm:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)


def _serve(pipe: Pipe, make: Callable[..., tuple[Reader, Reader]], args: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")
    reader, bare = make(*args)
    pipe.send("ready")
    while True:
        try:
            kind, requests = pipe.recv()
        except EOFError:
            return
        if kind == "answers":
            pipe.send([reader(ids) for ids in requests])
        else:
            pipe.send(_times(bare if kind == "bare" else reader, requests, IDLE if kind == "after_idle" else 0))


def _times(reader: Reader, requests: list[list[int]], idle: float) -> list[float]:
    times = []
    for ids in requests[:WARM]:
        reader(ids)
    for ids in requests:
        if idle:
            time.sleep(idle)
        began = time.perf_counter()
        reader(ids)
        times.append((time.perf_counter() - began) * 1e6)
    return times


def our_reader(port: int, filled: Filled) -> tuple[Reader, Reader]:
    """Publish and write as `apply` and the worker do; a function that reads, and one that only asks for the rows."""
    import msgspec

    from headwater import Client
    from headwater.online.connection import Connection
    from headwater.online.keys import fill_key, plan_id_key, plan_key, row_prefix
    from headwater.online.published import Active, Fill, PublishedPlan
    from headwater.plans.plan import CODEC_VERSION, Plan

    url, view = f"redis://127.0.0.1:{port}/0", filled.view
    prefix = row_prefix("bench", view.name, view.state_hash, "1")
    published = PublishedPlan(
        "1", Plan("bench", filled.sources, (view,)), {view.name: Active("1", view)}, codec=CODEC_VERSION
    )
    record = Fill("1", view.name, view.state_hash, None, None, 1, "active")
    connection = Connection(url)
    connection.pipeline(
        [("SET", plan_key("bench"), msgspec.json.encode(published)), ("SET", plan_id_key("bench"), "1"),
         ("SET", fill_key("bench", view.name, "1"), msgspec.json.encode(record)),
         *(("SET", prefix + b"%d" % i, row) for i, row in enumerate(filled.rows) if row is not None)]
    )  # fmt: skip
    client, names, at = Client(redis=url, project="bench"), filled.names, filled.as_of

    def read(ids: list[int]) -> dict[str, list[Any]]:
        return client.get(names, entities={"user_id": ids}, as_of=at).to_dict(full_feature_names=False)

    def bare(ids: list[int]) -> Any:
        return connection.command("MGET", *[prefix + b"%d" % i for i in ids])

    return read, bare


def feast_reader(folder: Path, port: int, filled: Filled) -> tuple[Reader, Reader]:
    """Apply and write with Feast to another database of the same Redis; a function that reads (twice the same)."""
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    types, path = {"float64": Float64, "int64": Int64, "string": String}, folder / f"{filled.view.name}.parquet"
    config = RepoConfig(
        project="peer", provider="local", registry=str(folder / "peer.db"), entity_key_serialization_version=3,
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{port},db=1"}, repo_path=folder,
    )  # fmt: skip
    frame = pd.DataFrame({f.name: _series(filled, f.name) for f in filled.view.outputs()})
    frame.insert(0, KEYS[0].name, range(len(frame)))
    frame["event_timestamp"] = pd.Timestamp(NOW, unit="us", tz="UTC")
    frame.to_parquet(path)
    store = FeatureStore(config=config)
    user = Entity(name="user", join_keys=[KEYS[0].name], value_type=ValueType.INT64)
    source = FileSource(path=str(path), timestamp_field="event_timestamp")
    schema = [Field(name=f.name, dtype=types[f.dtype]) for f in filled.view.outputs()]
    store.apply([user, FeatureView(name=filled.view.name, entities=[user], schema=schema, source=source)])
    store.write_to_online_store(filled.view.name, frame)

    def read(ids: list[int]) -> dict[str, list[Any]]:
        answer: dict[str, list[Any]] = store.get_online_features(filled.names, {KEYS[0].name: ids}).to_dict()
        return answer

    return read, read


def _series(filled: Filled, name: str) -> Any:
    import pandas as pd

    column = filled.values[name]
    return pd.Series(column.to_list(), dtype="object" if column.dtype == "string" else column.dtype)


if __name__ == "__main__":
    main()
