"""Reading features online: Headwater's client beside Feast's own Redis store, on the same Redis.

One plain view of 50 features (doubles, integers, two strings), read for 1 and for 100 entities.
Both return the same Python dict, which is asserted before anything is timed. They take turns in blocks
of requests, so that a slow minute of the machine hits both and neither reads with the caches that the
other left behind (a service runs one of them); a figure is the median of all requests.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import Report
from headwater import Client
from headwater.columns import Column
from headwater.embedded.processes import free_port, stop
from headwater.embedded.redis_server import start_redis
from headwater.online.connection import Connection
from headwater.online.plain_writes import write_plain_rows
from headwater.online.plan_store import publish
from headwater.plans.plan import BatchView, Field, Plan, batch_state_hash

FEATURES = 50
VIEW = "facts"
BLOCK = 20
NAMES = [f"{VIEW}:f{i}" for i in range(FEATURES)]

Reader = Callable[[list[int]], dict[str, list[Any]]]


def main() -> None:
    """Print the table; with --json write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=5_000, help="rows in Redis")
    parser.add_argument("--runs", type=int, default=200, help="timed requests of each kind")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        process = start_redis(folder, port)
        try:
            report = compare(folder, port, options.entities, options.runs)
        finally:
            stop([process], patience=5)
    report.print()
    report.write_json(options.json)


def compare(folder: Path, port: int, entities: int, runs: int) -> Report:
    """Fill both stores with the same values and time both."""
    table, at = values(entities), time.time_ns() // 1_000_000 * 1_000
    url = f"redis://127.0.0.1:{port}/0"
    ours, peer = our_reader(url, table, at), feast_reader(folder, f"localhost:{port},db=1", table, at)
    report = Report("Online read, one view of 50 features, both to the same Python dict")
    random = np.random.default_rng(7)
    for count in (1, 100):
        requests = [random.integers(0, entities, count).tolist() for _ in range(runs)]
        for ids in requests[:20]:
            assert ours(ids) == peer(ids), f"the stores give different values for {ids}"
        mine, theirs = in_blocks(requests, ours, peer)
        report.add(f"online_{count}x{FEATURES}", "us", mine, theirs, "Feast 0.67, its Redis store")
    report.note(f"{entities:,} entities, {runs} requests each in turns of {BLOCK}, medians, Redis on this machine.")
    return report


def in_blocks(requests: list[list[int]], ours: Reader, peer: Reader) -> tuple[float, float]:
    """Median microseconds of a request to each, timed in blocks that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for first in range(0, len(requests), BLOCK):
        for reader, kept in zip((ours, peer), times, strict=True):
            for ids in requests[first : first + BLOCK]:
                begin = time.perf_counter()
                reader(ids)
                kept.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times[0]), statistics.median(times[1])


def values(entities: int) -> dict[str, Column]:
    """The view's columns: every sixth an integer, two strings, the others doubles."""
    random = np.random.default_rng(1)
    made: dict[str, Column] = {}
    for i in range(FEATURES):
        if i % 25 == 24:
            made[f"f{i}"] = Column.of("string", [f"text {n}" for n in random.integers(0, 1_000, entities)])
        elif i % 6 == 5:
            made[f"f{i}"] = Column.of("int64", random.integers(0, 10**12, entities).tolist())
        else:
            made[f"f{i}"] = Column.of("float64", random.random(entities).tolist())
    return made


def our_reader(url: str, table: dict[str, Column], at: int) -> Reader:
    """Publish and write with Headwater; a function that reads."""
    fields = tuple(Field(name, column.dtype) for name, column in table.items())
    view = BatchView(VIEW, ("user",), (Field("user_id", "int64"),), "", None, fields, "")
    view = BatchView(VIEW, view.entities, view.keys, "", None, fields, batch_state_hash(view))
    with Connection(url) as connection:
        fill = publish(connection, None, Plan("bench", views=(view,))).plan.active[VIEW].fill
        ids = Column.of("int64", range(len(table["f0"])))
        write_plain_rows(connection, "bench", view, fill, [ids], table, at)
    client = Client(redis=url, project="bench")
    return lambda ids: client.get(NAMES, entities={"user_id": ids}).to_dict(full_feature_names=False)


def feast_reader(folder: Path, address: str, table: dict[str, Column], at: int) -> Reader:
    """Apply and write with Feast to another database of the same Redis; a function that reads."""
    from feast import Entity, FeatureStore, FeatureView, FileSource, RepoConfig, ValueType
    from feast import Field as FeastField
    from feast.types import Float64, Int64, String

    types = {"float64": Float64, "int64": Int64, "string": String}
    config = RepoConfig(
        project="peer", provider="local", registry=str(folder / "peer.db"), entity_key_serialization_version=3,
        online_store={"type": "redis", "connection_string": address}, repo_path=folder,
    )  # fmt: skip
    frame = pd.DataFrame({name: column.to_list() for name, column in table.items()})
    frame.insert(0, "user_id", range(len(frame)))
    frame["event_timestamp"] = pd.Timestamp(at, unit="us", tz="UTC")
    frame.to_parquet(folder / "facts.parquet")
    store = FeatureStore(config=config)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / "facts.parquet"), timestamp_field="event_timestamp")
    schema = [FeastField(name=name, dtype=types[column.dtype]) for name, column in table.items()]
    store.apply([user, FeatureView(name=VIEW, entities=[user], schema=schema, source=source)])
    store.write_to_online_store(VIEW, frame)
    return lambda ids: store.get_online_features(NAMES, {"user_id": ids}).to_dict()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
