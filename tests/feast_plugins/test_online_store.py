"""Feast's SDK on our rows: directly through `headwater.feast.OnlineStore`, and through Feast's remote store over HTTP."""

import sys
import warnings
from datetime import UTC, datetime

import msgspec
import numpy as np
import pandas as pd
import pytest

from headwater import Client
from headwater.columns import Column
from headwater.errors import UsageError
from headwater.events.batch import Events
from headwater.events.select import select
from headwater.online.connection import Connection
from headwater.online.keys import entity_key, fill_key, plan_id_key, plan_key, row_prefix
from headwater.online.plain_writes import write_plain_rows
from headwater.online.published import Active, Fill, PublishedPlan
from headwater.plans.plan import CODEC_VERSION
from headwater.repository import load_repository
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of
from tests.serving.test_server import end, start

pytestmark = pytest.mark.redis

DEFINITIONS = """
from feast import Entity, FeatureService, ValueType
from feast.types import Float64, Int64, String, UnixTimestamp
from headwater.definitions import BatchView, Count, Last, StreamSource, StreamView

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
lines = StreamSource(name="lines", topic="feast_online_lines", event_time="at", key="customer_id", tolerance="1d",
                     schema={"customer_id": Int64, "country": String, "at": UnixTimestamp})
spend = StreamView(name="spend", entity=customer, source=lines, features=[Count(over=["1h"]), Last("country")])
profile = BatchView(name="profile", entity=customer, ttl="365d", schema={"recency": Float64, "name": String},
                    sql="SELECT customer_id, 1.0 AS recency, max(country) AS name FROM lines GROUP BY customer_id")
churn = FeatureService(name="churn", features=[spend, profile])
"""
NOW = int(datetime.now(UTC).timestamp()) * 1_000_000
EVENTS = [(1, "France", NOON := NOW - 120_000_000), (1, "Spain", NOON + 1), (2, "Italy", NOON - 7_200_000_000)]


@pytest.fixture(scope="module")
def repository(make_repository, redis_url):
    """The definitions in Feast's registry; the plan published and filled without Kafka."""
    from headwater.definitions.registry import load_settled, write_registry

    root = make_repository(definitions=DEFINITIONS, redis=redis_url, servers=False)
    found = load_repository(root)
    contents, plan = load_settled(found)
    write_registry(found, contents)
    with Connection(redis_url) as connection:
        active = {view.name: Active("f1", view) for view in plan.views}
        published = PublishedPlan("p1", plan, active, codec=CODEC_VERSION)
        for name, each in active.items():
            record = Fill("f1", name, each.definition.state_hash, None, None, 1, "active")
            connection.command("SET", fill_key(found.project, name, "f1"), msgspec.json.encode(record))
        connection.command("SET", plan_key(found.project), msgspec.json.encode(published))
        connection.command("SET", plan_id_key(found.project), "p1")
        fill_rows(connection, found.project, plan)
    return root


def fill_rows(connection, project, plan):
    ids, countries, times = zip(*EVENTS, strict=True)
    columns = {"customer_id": Column.of("int64", ids), "country": Column.of("string", countries)}
    columns["at"] = Column.of("timestamp", times)
    batch = Events("lines", columns, np.zeros(3, np.int64), np.arange(3), np.array(times))
    spend, profile = plan.view("spend"), plan.view("profile")
    for row in fold(layout_of(spend), select(spend, batch), born=0):
        key = row_prefix(project, "spend", spend.state_hash, "f1") + entity_key(row.key)
        connection.command("SET", key, row.data)
    values = {"recency": Column.of("float64", [0.1, None]), "name": Column.of("string", ["Ada", "Bob"])}
    at = np.array([NOW - 1_000_000, NOW - 400 * 86_400_000_000])
    write_plain_rows(connection, project, profile, "f1", [Column.of("int64", [1, 2])], values, at)


@pytest.fixture(scope="module")
def store(repository):
    from feast import FeatureStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureStore(repo_path=str(repository))


def read(store, features, ids, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return store.get_online_features(features, [{"customer_id": i} for i in ids], **options)


def statuses(response):
    names = {1: "PRESENT", 2: "NULL_VALUE", 3: "NOT_FOUND", 4: "OUTSIDE_MAX_AGE"}
    found = zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
    return {name: [names[s] for s in vector.statuses] for name, vector in found}


FEATURES = ["spend:count_1h", "spend:country_last", "profile:recency", "profile:name"]


def test_feast_s_sdk_gives_the_client_s_numbers(store, repository):
    response = read(store, FEATURES, [2, 1, 3, 1], full_feature_names=True)
    with Client(repository) as client:
        ours = client.get(FEATURES, entities={"customer_id": [2, 1, 3, 1]}).to_dict()
    assert response.to_dict() == ours
    assert response.to_dict() == {
        "customer_id": [2, 1, 3, 1],
        "spend__count_1h": [0, 2, 0, 2],
        "spend__country_last": ["Italy", "Spain", None, "Spain"],
        "profile__recency": [None, 0.1, None, 0.1],
        "profile__name": [None, "Ada", None, "Ada"],
    }


def test_feast_s_sdk_tells_missing_null_and_old_apart(store):
    found = statuses(read(store, FEATURES, [1, 2, 3]))
    assert found["count_1h"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    assert found["name"] == ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]


def test_a_feature_service_is_read_through_feast(store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        service = store.get_feature_service("churn")
    assert read(store, service, [1]).to_dict() == {
        "customer_id": [1], "count_1h": [2], "country_last": ["Spain"], "recency": [0.1], "name": ["Ada"],
    }  # fmt: skip


def test_feast_writes_a_batch_view_and_the_newer_time_wins(store, repository):
    def write(name, at):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = pd.DataFrame(
                {
                    "customer_id": [50],
                    "recency": [2.5],
                    "name": [name],
                    "event_timestamp": [pd.Timestamp(at, unit="us")],
                }
            )
            store.write_to_online_store("profile", frame)
        with Client(repository) as client:
            return client.get(["profile:name"], entities={"customer_id": [50]}).to_dict()["profile__name"]

    assert write("first", NOW) == ["first"]
    assert write("older", NOW - 1_000_000) == ["first"]
    assert write("newer", NOW + 1_000_000) == ["newer"]


def test_feast_may_not_write_a_stream_view(store):
    frame = pd.DataFrame({"customer_id": [1], "count_1h": [5], "country_last": ["x"], "at": [pd.Timestamp(0)]})
    with pytest.raises(UsageError, match="'spend' is a StreamView"):
        store.write_to_online_store("spend", frame)


def test_feast_s_own_client_reads_from_our_server(store, repository, tmp_path):
    """Feast's RemoteOnlineStore, as a team without our package would use it."""

    from feast import FeatureStore, RepoConfig
    from feast.infra.online_stores.remote import RemoteOnlineStoreConfig

    process, address = start([sys.executable, "-m", "headwater", "-C", str(repository), "serve", "--port", "0"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            remote = FeatureStore(
                config=RepoConfig(
                    project=store.project, provider="local", registry=str(repository / ".headwater/registry.db"),
                    online_store=RemoteOnlineStoreConfig(path=address), entity_key_serialization_version=3,
                )
            )  # fmt: skip
        there = read(remote, FEATURES, [1, 2, 3], full_feature_names=True)
        here = read(store, FEATURES, [1, 2, 3], full_feature_names=True)
        assert there.to_dict() == here.to_dict()
        assert statuses(there) == statuses(here)
    finally:
        end(process)
