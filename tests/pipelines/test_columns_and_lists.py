"""Newest columns, lists and vectors, keyed by two entities: from a file through every command to every reader."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.cli import cli
from headwater.online.connection import Connection
from headwater.online.feature_rows import FeatureRows
from headwater.repository import load_repository
from headwater.serving import feast_api, own_api
from headwater.serving.client import Client
from tests.history.naive import naive_answers

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

DEFINITIONS = """
from feast import Entity, ValueType
from feast.types import Array, Float32, Int64, String, UnixTimestamp
from headwater.definitions import BatchView, Count, First, Last, StreamSource, StreamView, Vector

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
profiles = StreamSource(
    name="profiles", topic="columns-and-lists", event_time="at", key="user_id", tolerance="1d",
    schema={"user_id": Int64, "shop": String, "at": UnixTimestamp, "plan": String, "score": Int64,
            "embedding": Vector(3, Float32), "tags": Array(String), "seen": Array(UnixTimestamp)})
newest = StreamView(name="newest", entities=[user, shop], source=profiles, ttl="2h",
                    features=["plan", "score", "embedding", "tags", "seen"])
seen = StreamView(name="seen", entities=[shop, user], source=profiles, where="score > 0",
                  features=[Count(over=["1h"]), Last("embedding"), First("tags"), Last("seen", over="1d")])
"""
DEFINITIONS += """
summary = BatchView(
    name="summary", entity=user, schema={"embedding": Vector(3), "shops": Array(String), "seen": Array(UnixTimestamp)},
    sql="SELECT user_id, arg_max(embedding, at) AS embedding, list(DISTINCT shop ORDER BY shop) AS shops, "
        "CASE WHEN user_id < 3 THEN [max(at), to_timestamp(0)] END AS seen "
        "FROM profiles WHERE user_id IS NOT NULL AND embedding IS NOT NULL GROUP BY user_id")
"""
HOUR = 3_600_000_000
NOW = int(datetime.now(UTC).timestamp()) * 1_000_000
KEYS = [(1, "a"), (1, "b|c"), (2, "a"), (3, "é")]
OLD = (3, "é")
"""The key whose newest event is older than the ttl."""


def rows() -> list[dict[str, Any]]:
    """Events of the last hours; of one key all are older than the ttl; some without a key."""
    found = []
    for i in range(80):
        user, shop = KEYS[i % 4] if i % 9 else (None, "a")
        age = (i * 7_919_000_017) % (3 * HOUR) + (3 * HOUR if (user, shop) == OLD else 0)
        found.append({
            "user_id": user, "shop": shop, "at": NOW - age, "plan": None if i % 3 == 0 or i == 41 else f"p{i}", "score": i % 5,
            "embedding": None if i % 4 == 1 and i % 8 > 3 else [i / 3, -0.0, 1e-300], "tags": [f"t{i}", ""][: i % 3],
            "seen": None if i % 6 == 0 else [NOW - i, 0],
            "_partition": 0, "_offset": i,
        })  # fmt: skip
    return found


ROWS = rows()
SPECS = {
    "newest": {"keys": ["user_id", "shop"], "event_time": "at", "features": [
        {"name": n, "function": "latest", "column": n, "window": None, "hop": None}
        for n in ("plan", "score", "embedding", "tags", "seen")]},
    "seen": {"keys": ["shop", "user_id"], "event_time": "at", "where": lambda e: (e["score"] or 0) > 0, "features": [
        {"name": "count_1h", "function": "count", "column": None, "window": HOUR, "hop": HOUR // 12},
        {"name": "embedding_last", "function": "last", "column": "embedding", "window": None, "hop": None},
        {"name": "tags_first", "function": "first", "column": "tags", "window": None, "hop": None},
        {"name": "seen_last_1d", "function": "last", "column": "seen", "window": 24 * HOUR, "hop": HOUR}]},
}  # fmt: skip


def expected(view: str, at: int) -> dict[str, list[Any]]:
    spec = SPECS[view]
    order = [0, 1] if view == "newest" else [1, 0]
    events = ROWS if view == "seen" else [e for e in ROWS if e["at"] >= at - 2 * HOUR]
    answers = naive_answers(events, spec, [(tuple(key[i] for i in order), at) for key in KEYS])
    return {f"{view}__{name}": [a[name] for a in answers] for name in answers[0]}


def write_file(path: Path) -> Path:
    times = pa.timestamp("us", "UTC")
    schema = pa.schema([
        ("user_id", pa.int64()), ("shop", pa.string()), ("at", times), ("plan", pa.string()), ("score", pa.int64()),
        ("embedding", pa.list_(pa.float64(), 3)), ("tags", pa.list_(pa.string())), ("seen", pa.list_(times)),
    ])  # fmt: skip
    pq.write_table(pa.Table.from_pylist([{n: r[n] for n in schema.names} for r in ROWS], schema), path)
    return path


@pytest.fixture(scope="module")
def repository(make_repository: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything applied, sent, streamed and kept, by the commands themselves, in this process."""
    root = make_repository(definitions=DEFINITIONS)
    run(root, "apply")
    run(root, "produce", "columns-and-lists", write_file(tmp_path_factory.mktemp("events") / "profiles.parquet"))
    run(root, "stream", "--until-caught-up")
    run(root, "sink", "--until-caught-up")
    return root


def run(repository: Path, *args: Any) -> None:
    cli.main(["-C", str(repository), *map(str, args)], prog_name="headwater", standalone_mode=False)


def read(repository: Path, view: str) -> FeatureRows:
    with Client(repository) as client:
        entities = {"user_id": [k[0] for k in KEYS], "shop": [k[1] for k in KEYS]}
        return client.get([view], entities=entities, as_of=NOW)


def columns(found: FeatureRows) -> dict[str, list[Any]]:
    return {n: v for n, v in found.shaped(lambda micros: micros).items() if n not in ("user_id", "shop")}


@pytest.mark.parametrize("view", ["newest", "seen"])
def test_the_client_reads_what_the_slow_loop_says(repository: Path, view: str) -> None:
    found = read(repository, view)
    assert columns(found) == expected(view, NOW)
    old = "OUTSIDE_MAX_AGE" if view == "newest" else "PRESENT"
    assert found.statuses[view] == ["PRESENT"] * 3 + [old]
    # A null of the newest event stands, though older events have values.
    assert view == "seen" or None in columns(found)["newest__plan"][:3]


def test_both_http_apis_and_feasts_sdk_say_the_same(repository: Path) -> None:
    from feast import FeatureStore

    found = read(repository, "newest")
    own = orjson.loads(own_api.encode(found))["columns"]
    request = feast_api.decode(b'{"entities": {}, "full_feature_names": true}')
    answer = orjson.loads(feast_api.encode(found, request))
    http = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    entities = [{"user_id": user, "shop": shop} for user, shop in KEYS]
    with warnings.catch_warnings():
        # Feast's own, of its stream views.
        warnings.simplefilter("ignore")
        features = ["newest:embedding", "newest:tags", "newest:plan", "newest:seen"]
        sdk = FeatureStore(str(repository)).get_online_features(features, entities, full_feature_names=True)
    wanted = expected("newest", NOW)
    for name in ("newest__embedding", "newest__tags", "newest__plan"):
        assert own[name] == http[name]["values"] == wanted[name]
        assert sdk.to_dict()[name] == wanted[name]
    assert "NULL_VALUE" in http["newest__plan"]["statuses"]
    seconds = [None if s is None else [t // 1_000_000 for t in s] for s in wanted["newest__seen"]]
    assert http["newest__seen"]["values"] == seconds


def test_history_gives_the_same_at_every_time(repository: Path, tmp_path: Path) -> None:
    ats = [NOW, NOW - HOUR, NOW - 5 * HOUR]
    spine = pa.table({
        "user_id": [k[0] for k in KEYS] * 3, "shop": [k[1] for k in KEYS] * 3,
        "event_timestamp": pa.array([at for at in ats for _ in KEYS], pa.int64()).cast(pa.timestamp("us", "UTC")),
    })  # fmt: skip
    pq.write_table(spine, tmp_path / "spine.parquet")
    run(repository, "history", tmp_path / "spine.parquet", "--features", "newest,seen", "-o", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    times = pa.list_(pa.int64())
    for view in ("newest", "seen"):
        for name in expected(view, NOW):
            column = found[name].cast(times) if "seen" in name.split("__")[1] else found[name]
            assert column.to_pylist() == [v for at in ats for v in expected(view, at)[name]], name


def test_a_batch_of_lists_is_published_and_joined(repository: Path, tmp_path: Path) -> None:
    run(repository, "materialize", "summary")
    mine = {u: [e for e in ROWS if e["user_id"] == u and e["embedding"] is not None] for u in (1, 2, 3)}
    wanted = {
        "summary__embedding": [max(events, key=lambda e: e["at"])["embedding"] for events in mine.values()],
        "summary__shops": [sorted({e["shop"] for e in events}) for events in mine.values()],
        "summary__seen": [None if u == 3 else [max(e["at"] for e in events), 0] for u, events in mine.items()],
    }
    with Client(repository) as client:
        found = client.get(["summary"], entities={"user_id": [1, 2, 3]})
        many = client.get(["summary"], entities={"user_id": [1, 2, 3, 4] * 5})
    assert columns(found) == wanted
    assert columns(many) == {name: [*values, None] * 5 for name, values in wanted.items()}
    later = pa.array([NOW + HOUR] * 3, pa.int64()).cast(pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user_id": [1, 2, 3], "event_timestamp": later}), tmp_path / "spine.parquet")
    run(repository, "history", tmp_path / "spine.parquet", "--features", "summary", "-o", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    for name, values in wanted.items():
        column = table[name].cast(pa.list_(pa.int64())) if name.endswith("seen") else table[name]
        assert column.to_pylist() == values
    run(repository, "check", "summary")


def test_check_finds_nothing_and_a_lost_row_is_repaired(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(repository, "check")
    before = {view: columns(read(repository, view)) for view in SPECS}
    found = load_repository(repository)
    with Connection(found.need_redis()) as connection:
        keys = connection.command("KEYS", f"*{found.project}:newest:*:1|b*")
        assert connection.command("DEL", *keys) == 1
    assert columns(read(repository, "newest")) != before["newest"]
    run(repository, "repair", "newest", "--from-check")
    capsys.readouterr()
    run(repository, "check", "--json")
    views = json.loads(capsys.readouterr().out)["views"]
    assert [v["recomputed"] for v in views if v["view"] in SPECS] == [{"compared": 4, "equal": 4}] * 2
    run(repository, "backfill", "seen")
    assert {view: columns(read(repository, view)) for view in SPECS} == before
