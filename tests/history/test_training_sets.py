"""Training sets from the lake: every spine row once and in order, untouched, with values by hand."""

import datetime as dt

import pyarrow as pa
import pytest

from headwater.definitions.repositories import repository_plan
from headwater.errors import UnknownName, UsageError
from headwater.history.log import LakeWarehouse
from headwater.history.selection import parse_features, service_features
from headwater.history.training_set import reads_of, training_set
from headwater.lake import Lake
from headwater.repository import load_repository
from tests.history.shop import DAY, DEFINITIONS, NOON, fill_lake

NOON_TIME = dt.datetime(2011, 12, 9, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def plan(make_repository):
    return repository_plan(load_repository(make_repository(definitions=DEFINITIONS, servers=False)))


@pytest.fixture
def lake(plan, tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    fill_lake(lake, plan.source("lines"))
    return lake


def answer(plan, lake, spine, features):
    wanted = parse_features(plan, features)
    order = [w.column for w in wanted]
    return training_set(plan, LakeWarehouse(lake), spine, reads_of(plan, wanted), order=order)


def noons(*customers, at=NOON_TIME):
    return pa.table({"customer_id": pa.array(customers, pa.int64()), "event_timestamp": [at] * len(customers)})


def test_every_spine_row_comes_back_once_in_order_and_untouched(plan, lake):
    spine = pa.table(
        {
            "label": pa.array([True, None, False, True, True]).dictionary_encode(),
            "customer_id": pa.array([2, 1, None, 1, 77], pa.int32()),
            "event_timestamp": pa.array([NOON_TIME.replace(tzinfo=None)] * 4 + [None], pa.timestamp("ns")),
            "label2": pa.array(["b", "a", "d", "a", "e"], pa.large_string()),
        }
    )
    result = answer(plan, lake, spine, "spend:count_1d,spend:amount_sum_1d,spend:stock_code_last,spend:ts_last")
    assert result.select(spine.column_names).equals(spine)
    assert result.select(result.column_names[4:]).to_pydict() == {
        "spend__count_1d": [0, 2, 0, 2, 0],
        "spend__amount_sum_1d": [None, 5.5, None, 5.5, None],
        "spend__stock_code_last": ["tea", "cup", None, "cup", None],
        "spend__ts_last": [
            NOON_TIME - dt.timedelta(days=2), NOON_TIME - dt.timedelta(microseconds=1), None,
            NOON_TIME - dt.timedelta(microseconds=1), None,
        ],
    }  # fmt: skip


def test_output_columns_stand_in_the_order_asked_for(plan, lake):
    asked = "pairs:quantity_sum,spend:count_1d,pairs:price_approx_distinct_30d"
    spine = noons(1).append_column("stock_code", pa.array(["cup"]))
    result = answer(plan, lake, spine, asked)
    assert result.column_names[3:] == ["pairs__quantity_sum", "spend__count_1d", "pairs__price_approx_distinct_30d"]
    assert [c.to_pylist() for c in result.columns[3:]] == [[1], [2], [1]]


def test_an_empty_lake_gives_empty_windows_and_nulls(plan, tmp_path):
    result = answer(plan, Lake(str(tmp_path / "nothing")), noons(1), "spend,profile")
    assert result.to_pylist()[0] == {
        "customer_id": 1, "event_timestamp": NOON_TIME, "spend__count_1d": 0, "spend__amount_sum_1d": None,
        "spend__stock_code_last": None, "spend__ts_last": None, "profile__lines": None, "profile__favourite": None,
    }  # fmt: skip


def test_an_empty_spine_gives_an_empty_training_set_with_all_columns(plan, lake):
    result = answer(plan, lake, noons(), "spend:count_1d,profile:lines")
    assert (result.num_rows, result.column_names[2:]) == (0, ["spend__count_1d", "profile__lines"])
    restricted = noons().append_column("known_by", pa.array([], pa.timestamp("us", "UTC")))
    assert answer(plan, lake, restricted, "spend:count_1d,profile:lines").num_rows == 0


def test_a_row_sees_only_what_had_arrived_by_its_known_by(plan, lake):
    later = NOON + 3 * DAY
    fill_lake(lake, plan.source("lines"), [(1, "late", 1, 7.0, 2)], arrived_at=later, first_offset=6)
    known = [NOON - 1, NOON, later - 1, later, None]
    spine = noons(1, 1, 1, 1, 1).append_column("known_by", pa.array(known, pa.timestamp("us", "UTC")))
    result = answer(plan, lake, spine, "spend:count_1d,spend:amount_sum_1d")
    assert result["spend__count_1d"].to_pylist() == [0, 2, 2, 3, 3]
    assert result["spend__amount_sum_1d"].to_pylist() == [None, 5.5, 5.5, 12.5, 12.5]


def test_a_batch_view_answers_from_its_newest_snapshot_within_its_ttl(plan, lake):
    view = plan.view("profile")
    for as_of, lines in ((NOON - DAY, 4), (NOON, 5)):
        snapshot = pa.table({"customer_id": [1], "lines": [lines], "favourite": ["cup"]})
        lake.append_view_snapshot(view, snapshot, as_of)
    hours = [-25, -24, -1, 0, 48, 49]
    times = [NOON_TIME + dt.timedelta(hours=h) for h in hours]
    spine = pa.table({"customer_id": [1] * 6, "event_timestamp": times})
    result = answer(plan, lake, spine, "profile")
    assert result["profile__lines"].to_pylist() == [None, 4, 4, 5, 5, None]
    assert result["profile__favourite"].to_pylist() == [None, "cup", "cup", "cup", "cup", None]


def test_a_service_names_its_features_in_order(plan):
    assert [w.column for w in service_features(plan, "churn")] == [
        "spend__count_1d", "profile__lines", "profile__favourite",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("spent", r"no feature view 'spent'\. Did you mean 'spend'"),
        ("spend:count_1h", r"'spend' has no feature 'count_1h'\. Did you mean 'count_1d'"),
        ("spend:", r"'spend' has no feature ''"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(plan, asked, said):
    with pytest.raises(UnknownName, match=said):
        parse_features(plan, asked)


def test_an_output_may_not_hide_a_column_of_the_spine(plan, lake):
    spine = noons(1).append_column("spend__count_1d", pa.array([1]))
    with pytest.raises(UsageError, match="already has a column 'spend__count_1d'"):
        answer(plan, lake, spine, "spend")


def test_a_wrong_key_is_found_before_anything_is_read(plan, tmp_path):
    with pytest.raises(UsageError, match="no column 'stock_code', a join key of view 'pairs'"):
        answer(plan, Lake(str(tmp_path / "nothing")), noons(1), "pairs")


def test_sql_over_the_lake_makes_a_spine(plan, lake):
    sql = "SELECT customer_id, max(ts) AS event_timestamp FROM lines GROUP BY 1 ORDER BY 1 NULLS LAST"
    spine = LakeWarehouse(lake).query(plan, sql)
    assert answer(plan, lake, spine, "spend:count_1d")["spend__count_1d"].to_pylist() == [2, 0, 0]
    with pytest.raises(UsageError, match="spine's SQL cannot be run"):
        LakeWarehouse(lake).query(plan, "SELECT nothing FROM lines")
