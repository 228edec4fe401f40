"""Training sets through Feast's SDK, from our lake, and over Feast's own Parquet files."""

import datetime as dt

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

from headwater.definitions.registry import load_settled, write_registry
from headwater.errors import UsageError
from headwater.lake import Lake
from headwater.repository import load_repository
from tests.history.shop import DAY, DEFINITIONS, NOON, fill_lake

# Feast's own warnings about its own features.
pytestmark = pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning")

NOON_TIME = pd.Timestamp("2011-12-09 12:00", tz="UTC")
MORE = """
import pandas as pd
from feast import Field, FeatureView, FileSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from datetime import timedelta

scores = FeatureView(
    name="scores", entities=[customer], ttl=timedelta(days=1),
    schema=[Field(name="score", dtype=Float64), Field(name="customer_id", dtype=Int64)],
    source=FileSource(path="scores.parquet", timestamp_field="at", created_timestamp_column="made",
                      field_mapping={"raw_score": "score"}),
)
request = RequestSource(name="request", schema=[Field(name="basket", dtype=Float64)])

@on_demand_feature_view(sources=[spend, request], schema=[Field(name="ratio", dtype=Float64)])
def ratio(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"ratio": inputs["basket"] / inputs["amount_sum_1d"]})
"""


@pytest.fixture(scope="module")
def repository(make_repository):
    root = make_repository(definitions=DEFINITIONS + MORE, servers=False)
    repository = load_repository(root)
    hours = [dt.datetime(2011, 12, 9, h, tzinfo=dt.UTC) for h in (8, 10, 10, 13)]
    scores = {"customer_id": [1, 1, 1, 1], "at": hours, "made": [hours[0], hours[3], hours[2], hours[3]]}
    pq.write_table(pa.table(scores | {"raw_score": [0.1, 0.2, 0.3, 0.4], "unused": ["x"] * 4}), root / "scores.parquet")
    contents, plan = load_settled(repository)
    write_registry(repository, contents)
    lake = Lake(repository.lake)
    fill_lake(lake, plan.source("lines"))
    snapshot = pa.table({"customer_id": [1, 2], "lines": [5, 1], "favourite": ["cup", None]})
    for as_of in (NOON - DAY, NOON):
        lake.append_view_snapshot(plan.view("profile"), snapshot, as_of)
    return repository


@pytest.fixture(scope="module")
def store(repository):
    return FeatureStore(repo_path=str(repository.root))


def spine(*customers):
    return pd.DataFrame({"customer_id": list(customers), "event_timestamp": [NOON_TIME] * len(customers)})


def test_a_service_of_windowed_and_plain_views_is_joined_in_the_order_of_the_spine(store):
    job = store.get_historical_features(entity_df=spine(2, 1, 77, 1), features=store.get_feature_service("churn"))
    found = job.to_df()
    assert found["customer_id"].tolist() == [2, 1, 77, 1]
    assert found["count_1d"].tolist() == [0, 2, 0, 2]
    assert found["lines"].astype(object).where(found["lines"].notna(), None).tolist() == [1, 5, None, 5]


def test_full_names_carry_the_view(store):
    features = ["spend:amount_sum_1d", "profile:favourite"]
    job = store.get_historical_features(entity_df=spine(1), features=features, full_feature_names=True)
    assert job.to_arrow().column_names == [
        "customer_id",
        "event_timestamp",
        "spend__amount_sum_1d",
        "profile__favourite",
    ]
    assert job.to_arrow()["spend__amount_sum_1d"].to_pylist() == [5.5]


def test_sql_over_the_lake_may_be_the_spine(store):
    sql = "SELECT DISTINCT customer_id, TIMESTAMPTZ '2011-12-09 12:00:00+00' AS event_timestamp FROM lines ORDER BY 1"
    found = store.get_historical_features(entity_df=sql, features=["spend:count_1d"]).to_arrow()
    assert found["count_1d"].to_pylist() == [2, 0, 0]


def test_feasts_own_view_over_a_parquet_file_is_joined_by_the_newest_created(store):
    features = ["scores:score"]
    times = [NOON_TIME + pd.Timedelta(hours=h) for h in (-5, -4, -2, 0, 1, 25, 26)]
    asked = pd.DataFrame({"customer_id": [1] * 7, "event_timestamp": times})
    found = store.get_historical_features(entity_df=asked, features=features).to_arrow()
    # 07:00 before all; 08:00; at 10:00 two rows, of which the later made wins; until 13:00 + 1 day.
    assert found["score"].to_pylist() == [None, 0.1, 0.2, 0.2, 0.4, 0.4, None]


def test_on_demand_views_are_computed_by_feast_from_our_values(store):
    asked = spine(1).assign(basket=11.0)
    found = store.get_historical_features(entity_df=asked, features=["ratio:ratio"]).to_df()
    assert found["ratio"].tolist() == [2.0]


def test_a_spine_without_its_key_or_time_is_refused(store):
    asked = spine(1).rename(columns={"customer_id": "customer"})
    with pytest.raises(UsageError, match="no column 'customer_id', a join key of view 'spend'"):
        store.get_historical_features(entity_df=asked, features=["spend:count_1d"]).to_df()
    with pytest.raises(UsageError, match="no column 'event_timestamp'"):
        store.get_historical_features(entity_df=spine(1)[["customer_id"]], features=["spend:count_1d"]).to_df()
    with pytest.raises(UsageError, match="needs a spine"):
        store.get_historical_features(features=["spend:count_1d"], end_date=dt.datetime(2011, 12, 9, tzinfo=dt.UTC))


def test_a_training_set_can_be_saved_as_parquet(store, repository):
    job = store.get_historical_features(entity_df=spine(1, 2), features=["spend:count_1d"])
    target = repository.root / "saved.parquet"
    job.persist(SavedDatasetFileStorage(path=str(target)))
    assert pq.read_table(target)["count_1d"].to_pylist() == [2, 0]


def test_feast_pulls_the_newest_and_all_snapshots_of_a_batch_view(store):
    view = store.get_feature_view("profile")
    names = (["customer_id"], ["lines"], "event_timestamp", None)
    provider = store._get_provider()
    start, end = dt.datetime(2011, 1, 1, tzinfo=dt.UTC), dt.datetime(2011, 12, 9, 11, tzinfo=dt.UTC)
    latest = provider.offline_store.pull_latest_from_table_or_query(store.config, view.batch_source, *names, start, end)
    assert latest.to_arrow()["event_timestamp"].cast(pa.int64()).to_pylist() == [NOON - DAY] * 2
    everything = provider.offline_store.pull_all_from_table_or_query(store.config, view.batch_source, *names)
    assert everything.to_arrow().num_rows == 4


def test_values_of_views_cannot_be_written_by_hand(store):
    offline, spend = store._get_provider().offline_store, store.get_stream_feature_view("spend")
    with pytest.raises(UsageError, match="'spend' cannot be written by hand"):
        offline.offline_write_batch(store.config, spend, None, None)
    source = store.get_data_source("lines")
    job = offline.pull_all_from_table_or_query(store.config, source, [], [], "ts")
    with pytest.raises(UsageError, match="'lines' is a stream"):
        job.to_arrow()
