"""Point-in-time join of one view of 10 features, against Feast's DuckDB store, both through Feast's SDK.

    python benchmarks/history.py [--rows 1000000] [--events 1000000] [--keys 10000] [--runs 5] [--json FILE]

Both stores read the same Parquet file for the same spine through `get_historical_features`, and
must give the same values before anything is timed. Keys, times and nulls are drawn with a seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import Report, begin, quiet, step, take_turns

FEATURES = [f"f{i}" for i in range(10)]
BEGIN = 1_750_000_000
DAYS = 60


def main() -> None:
    """Parse the sizes, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the spine")
    parser.add_argument("--events", type=int, default=1_000_000, help="rows of the view")
    parser.add_argument("--keys", type=int, default=10_000, help="distinct entity keys")
    parser.add_argument("--runs", type=int, default=5, help="timed runs each, in turns")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    sizes = parser.parse_args()
    quiet()
    begin(
        "Point-in-time join of one view of 10 features through Feast's SDK, beside Feast's DuckDB store. Less is better.",
        spine=sizes.rows, events=sizes.events, keys=sizes.keys, runs=sizes.runs,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), sizes.rows, sizes.events, sizes.keys, sizes.runs).write_json(sizes.json)


def compare(folder: Path, rows: int, events: int, keys: int, runs: int) -> Report:
    """Assert equal answers, then time both stores in turns."""
    step(f"drawing a view of {events:,} events and a spine of {rows:,} rows")
    rng = np.random.default_rng(11)
    draw_view(rng, events, keys).to_parquet(folder / "view.parquet", index=False)
    spine = draw_spine(rng, rows, keys)
    step("importing Feast, applying the view in both stores")
    ours = make_store(folder, "headwater.feast.OfflineStore")
    peer = make_store(folder, "duckdb")
    step("joining once in each, and comparing every value")
    assert_equal(read(ours, spine), read(peer, spine))
    report = Report(f"Point-in-time join, 1 view of {len(FEATURES)} features: {rows:,} rows x {events:,} events")
    step(f"{runs} runs of each, in turns")
    timed = take_turns(runs, lambda: read(ours, spine), lambda: read(peer, spine))
    report.add("point_in_time_join", "s", *timed, "feast duckdb store")
    report.note(f"Median of {runs} runs in turns, {keys:,} keys; all values equal in both. Smaller is better.")
    report.print()
    return report


def draw_view(rng: np.random.Generator, events: int, keys: int) -> pd.DataFrame:
    """Distinct (key, time) rows, so that no tie is left to a store's own rule; a tenth of the values is null."""
    columns: dict[str, Any] = {"user_id": rng.integers(0, keys, events)}
    columns["event_timestamp"] = _times(rng, events)
    for name in FEATURES:
        values = rng.normal(0, 100, events).round(3)
        columns[name] = np.where(rng.random(events) < 0.1, np.nan, values)
    return pd.DataFrame(columns).drop_duplicates(["user_id", "event_timestamp"])


def draw_spine(rng: np.random.Generator, rows: int, keys: int) -> pd.DataFrame:
    """Keys and times, some of keys and times that the view does not have; each row once, which Feast needs."""
    spine = pd.DataFrame(
        {"user_id": rng.integers(0, keys + keys // 100 + 1, rows), "event_timestamp": _times(rng, rows)}
    )
    spine["row_id"] = np.arange(rows)
    return spine


def _times(rng: np.random.Generator, count: int) -> pd.Series:
    micros = rng.integers(BEGIN * 10**6, (BEGIN + DAYS * 86400) * 10**6, count)
    return pd.Series(pd.to_datetime(micros, unit="us", utc=True)).astype("datetime64[us, UTC]")


def make_store(folder: Path, kind: str) -> Any:
    """A Feast store with one view over the Parquet file, on the given offline store."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    name = "ours" if kind.startswith("headwater") else "peer"
    config = RepoConfig(
        project=name, provider="local", registry=str(folder / f"{name}.db"), entity_key_serialization_version=3,
        offline_store={"type": kind, **({"lake": str(folder / "lake")} if name == "ours" else {})},
        online_store={"type": "sqlite", "path": str(folder / f"{name}.online")}, repo_path=folder,
    )  # fmt: skip
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="facts", entities=[user], ttl=timedelta(days=10), schema=[Field(name=n, dtype=Float64) for n in FEATURES],
        source=FileSource(path=str(folder / "view.parquet"), timestamp_field="event_timestamp"),
    )  # fmt: skip
    store = FeatureStore(config=config)
    store.apply([user, view])
    return store


def read(store: Any, spine: pd.DataFrame) -> Any:
    """The training set as an Arrow table."""
    return store.get_historical_features(entity_df=spine, features=[f"facts:{n}" for n in FEATURES]).to_arrow()


def assert_equal(ours: Any, peer: Any) -> None:
    """The same rows (the peer may give them in another order, and drops none here) with the same values."""
    peer = peer.take(np.argsort(peer["row_id"].to_numpy(), kind="stable"))
    assert ours["row_id"].to_pylist() == peer["row_id"].to_pylist(), "the stores give different rows"
    filled = 0
    for name in FEATURES:
        a, b = ours[name].to_numpy(), peer[name].to_numpy()
        assert np.array_equal(a, b, equal_nan=True), (
            f"{name} differs in {int((~np.isclose(a, b, equal_nan=True)).sum())} rows"
        )
        filled += int((~np.isnan(a)).sum())
    assert filled > 0, "the join found nothing"


if __name__ == "__main__":
    main()
