"""Lists, columns as they are, sources in Avro and in envelopes, fuzzed: every path agrees with the naive loop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.aggregations.components import States
from headwater.aggregations.latest import NONE, Latest, Newest
from headwater.rows import reader
from tests.testing.fuzzed_shop import run_test

DEFINITIONS = """
from feast import Entity, ValueType
from feast.types import Array, Bool, Bytes, Float64, Int64, String, UnixTimestamp
from headwater.definitions import Count, First, Last, Latest, StreamSource, StreamView, Vector

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
profiles = StreamSource(
    name="profiles", topic="fuzzed_profiles", event_time="ts", tolerance="1d",
    schema={"user_id": Int64, "shop": String, "plan": String, "score": Float64, "active": Bool, "ts": UnixTimestamp,
            "embedding": Vector(3), "tags": Array(String),
            "visits": Array(UnixTimestamp), "counts": Array(Int64), "flags": Array(Bool), "raw": Array(Bytes)},
)
profile = StreamView(
    name="profile", entity=user, source=profiles,
    features=[Last("embedding"), First("tags", over="1d"), Last("visits"), Last("counts", over="1h"), First("flags"),
              Last("raw")],
)
newest = StreamView(
    name="newest", entities=[user, shop], source=profiles, ttl="3h", where="user_id <> 7",
    features=["plan", "score", "embedding", "tags", "visits", Latest("active", name="is_active")],
)
changes = StreamSource(
    name="changes", topic="fuzzed_changes", event_time="ts", tolerance="1h", format="avro", envelope="debezium",
    schema={"user_id": Int64, "ts": UnixTimestamp, "plan": String, "sizes": Array(Int64)},
)
accounts = StreamView(name="accounts", entity=user, source=changes, features=["plan", "sizes", Count(over="1h")])
mixed = StreamView(
    name="mixed", entity=user, source=profiles, derive={"double": "score * 2"},
    features=["double", Latest("plan", over=["1h", "1d"]), Latest("score", where="active"), Count(over="1h")],
)
"""


@pytest.fixture(scope="module")
def repository(make_repository: Any) -> Path:
    path: Path = make_repository(definitions=DEFINITIONS, servers=False)
    return path


def test_lists_and_columns_agree_on_every_path(repository: Path) -> None:
    failed, printed = run_test(repository, "--seconds", 8)
    assert not failed, printed


def test_a_list_whose_order_is_lost_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reduce = Latest.reduce

    def sorted_lists(self: Latest, runs: Any) -> Any:
        column = runs.column(self.column)
        for i, items in enumerate(column.values):
            if isinstance(items, list):
                column.values[i] = sorted(items)
        return reduce(self, runs)

    monkeypatch.setattr(Latest, "reduce", sorted_lists)
    assert failed_features(repository, "profile") <= {
        "embedding_last", "tags_first_1d", "visits_last", "counts_last_1h", "flags_first", "raw_last",
    }  # fmt: skip


def test_a_null_that_is_passed_over_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Newest, "reduce", lambda self, runs: without_nulls(self, runs))
    assert failed_features(repository, "newest") <= {"plan", "score", "embedding", "tags", "visits", "is_active"}


def test_a_ttl_that_is_rounded_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outdate = reader._outdate
    monkeypatch.setattr(reader, "_outdate", lambda read, ttl: outdate(read, ttl + 1))
    assert failed_features(repository, "newest")


def without_nulls(self: Newest, runs: Any) -> States:
    found = Latest.reduce(self, runs)
    if found.objects is not None:
        return found
    return States(np.concatenate([found.words, (found.words[:, :1] != NONE).astype(np.int64)], axis=1))


def failed_features(repository: Path, view: str) -> set[str]:
    failed, printed = run_test(repository, view, "--json", "--seconds", 10)
    assert failed, printed
    return {d["feature"] for d in json.loads(printed)["views"][0]["failure"]["differences"]}
