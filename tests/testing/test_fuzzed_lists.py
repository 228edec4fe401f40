"""Views of lists, fuzzed: the stream, backfill, history and the naive loop agree on each of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.aggregations.latest import Latest
from tests.testing.fuzzed_shop import run_test

DEFINITIONS = """
from feast import Entity, ValueType
from feast.types import Array, Bool, Bytes, Int64, String, UnixTimestamp
from headwater.definitions import First, Last, StreamSource, StreamView, Vector

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
profiles = StreamSource(
    name="profiles", topic="fuzzed_profiles", event_time="ts", tolerance="1d",
    schema={"user_id": Int64, "ts": UnixTimestamp, "embedding": Vector(3), "tags": Array(String),
            "visits": Array(UnixTimestamp), "counts": Array(Int64), "flags": Array(Bool), "raw": Array(Bytes)},
)
profile = StreamView(
    name="profile", entity=user, source=profiles,
    features=[Last("embedding"), First("tags", over="1d"), Last("visits"), Last("counts", over="1h"), First("flags"),
              Last("raw")],
)
"""


@pytest.fixture
def repository(make_repository: Any) -> Path:
    path: Path = make_repository(definitions=DEFINITIONS, servers=False)
    return path


def test_lists_agree_on_every_path(repository: Path) -> None:
    failed, printed = run_test(repository, "profile", "--seconds", 3)
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
    failure = found_in_profile(repository)
    assert failure["differences"]


def found_in_profile(repository: Path) -> Any:
    failed, printed = run_test(repository, "profile", "--json", "--seconds", 10)
    assert failed, printed
    return json.loads(printed)["views"][0]["failure"]
