"""Lists, columns as they are, sources in Avro and in envelopes, fuzzed: every path agrees with the naive loop."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from headwater.aggregations.components import States
from headwater.aggregations.latest import NONE, Latest, Newest
from headwater.definitions.repositories import repository_plan
from headwater.repository import load_repository
from headwater.rows import reader, table
from headwater.testing.cases import Case
from headwater.testing.comparison import Comparison
from headwater.testing.generation import cases
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


def differing(repository: Path, name: str) -> set[str]:
    """The features of a view that paths disagree about in one of its first cases: as many on a slow machine."""
    plan = repository_plan(load_repository(repository))
    view = next(v for v in plan.stream_views() if v.name == name)
    source = msgspec.structs.replace(plan.source(view.source), format="json")
    comparison, found = Comparison(view, source), set[str]()

    @settings(max_examples=30, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(cases(view, source))
    def compare(case: Case) -> None:
        if not found:
            found.update(d.feature for d in comparison.run(case).differences)

    compare()
    return found


@pytest.mark.parametrize("name", ["profile", "newest", "accounts", "mixed"])
def test_every_path_agrees(repository: Path, name: str) -> None:
    assert differing(repository, name) == set()


def test_sources_of_any_format_can_be_fuzzed_without_their_registry(repository: Path) -> None:
    failed, printed = run_test(repository, "accounts", "--seconds", 1)
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
    monkeypatch.setattr(table, "library", lambda: None)  # which folds them without `reduce`
    assert differing(repository, "profile")


def test_a_null_that_is_passed_over_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Newest, "reduce", lambda self, runs: without_nulls(self, runs))
    assert differing(repository, "newest")


def test_a_ttl_that_is_rounded_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outdate = reader._outdate
    monkeypatch.setattr(reader, "_outdate", lambda read, ttl: outdate(read, ttl + 1))
    assert differing(repository, "newest")


def without_nulls(self: Newest, runs: Any) -> States:
    found = Latest.reduce(self, runs)
    if found.objects is not None:
        return found
    return States(np.concatenate([found.words, (found.words[:, :1] != NONE).astype(np.int64)], axis=1))
