"""Reading features online: values, statuses, effective times, receipts, and every way to ask wrongly."""

from datetime import UTC, datetime

import numpy as np
import pytest
import xxhash

from headwater import Client
from headwater.columns import Column
from headwater.durations import DAY, HOUR
from headwater.errors import Unavailable, UnknownName, Unreachable, UsageError
from headwater.online.connection import Connection
from headwater.online.feature_rows import FeatureColumn, Shape
from headwater.online.keys import entity_key, fill_key, plan_id_key, plan_key, row_prefix
from headwater.online.plain_writes import write_plain_rows
from headwater.online.published import Active
from tests.online.published_shop import DEMAND, NOON, PROFILE, SPEND, Shop

pytestmark = pytest.mark.redis


@pytest.fixture
def shop(redis_url):
    shop = Shop(redis_url)
    yield shop
    shop.connection.close()


@pytest.fixture
def client(shop):
    with Client(redis=shop.url, project=shop.project) as client:
        yield client


def test_windowed_and_plain_features_come_in_one_answer_in_the_order_asked_for(client):
    rows = client.get(
        ["profile:name", "spend:count_1h", "spend:quantity_sum_1h", "profile:recency", "spend:country_last"],
        entities={"customer_id": [1, 2]},
        as_of=NOON,
    )
    assert list(rows.to_dict().items()) == [
        ("customer_id", [1, 2]),
        ("profile__name", ["Ada 🦆", None]),
        ("spend__count_1h", [2, 1]),
        ("spend__quantity_sum_1h", [5, 7]),
        ("profile__recency", [0.1, None]),
        ("spend__country_last", ["Spain", "a|b\\"]),
    ]
    assert rows.statuses == {"profile": ["PRESENT", "OUTSIDE_MAX_AGE"], "spend": ["PRESENT", "PRESENT"]}
    assert rows.as_of == {"profile": [NOON, NOON], "spend": [NOON, NOON]}


def test_a_window_is_cut_at_the_read_time(client):
    #        09:00 (5)        11:30 (2)  11:40 (3)   12:00
    #  ...     |  ...            |         |           |
    #                         [11:35 -------------- 12:35)   floor(12:36 - 1h, 5m) = 11:35
    at = NOON + 36 * 60_000_000
    rows = client.get(["spend"], entities={"customer_id": [1]}, as_of=at)
    assert rows.to_dict(False)["quantity_sum_1h"] == [3]


def test_a_read_before_the_newest_event_happens_just_after_it(client):
    rows = client.get(["spend:count_1h"], entities={"customer_id": [1]}, as_of=NOON - DAY)
    assert rows.as_of["spend"] == [NOON - 20 * 60_000_000 + 1]
    assert rows.to_dict()["spend__count_1h"] == [2]


def test_an_entity_without_a_row_has_the_law_s_values_and_is_not_found(client):
    rows = client.get(["spend", "profile"], entities={"customer_id": [3, None]}, as_of=NOON)
    assert rows.to_dict() == {
        "customer_id": [3, None],
        "spend__count_1h": [0, 0], "spend__quantity_sum_1h": [None] * 2, "spend__country_last": [None] * 2,
        "profile__recency": [None] * 2, "profile__name": [None] * 2, "profile__joined": [None] * 2,
        "profile__gold": [None] * 2,
    }  # fmt: skip
    assert rows.statuses == {"spend": ["NOT_FOUND"] * 2, "profile": ["NOT_FOUND"] * 2}
    assert rows.as_of["spend"] == [NOON, NOON]


def test_null_join_keys_between_others_shift_no_row(client):
    rows = client.get(["spend:count_1h"], entities={"customer_id": [None, 2, None, 1]}, as_of=NOON)
    assert rows.statuses["spend"] == ["NOT_FOUND", "PRESENT", "NOT_FOUND", "PRESENT"]
    assert rows.to_dict()["spend__count_1h"] == [0, 1, 0, 2]


def test_a_view_of_two_entities_is_read_by_both_keys_whatever_is_in_them(client):
    rows = client.get(
        ["demand:count"], entities={"customer_id": [1, 2, 2], "country": ["France", "a|b\\", "a"]}, as_of=NOON
    )
    assert rows.to_dict()["demand__count"] == [2, 1, 0]


def test_a_service_names_its_features(client):
    rows = client.get(service="churn", entities=[{"customer_id": 1}], as_of=NOON)
    assert list(rows.to_dict()) == ["customer_id", "spend__count_1h", "spend__country_last", "profile__name"]
    assert rows.rows(full_feature_names=False) == [
        {"customer_id": 1, "count_1h": 2, "country_last": "Spain", "name": "Ada 🦆"}
    ]


def test_each_row_may_have_its_own_read_time(client):
    rows = client.get(
        ["spend:quantity_sum_1h", "profile:gold"],
        entities={"customer_id": [1, 1, 1]},
        as_of=["2011-12-09T12:00:00Z", datetime(2011, 12, 9, 12, 36, tzinfo=UTC), NOON + 30 * HOUR],
    )
    assert rows.to_dict(False) == {"customer_id": [1] * 3, "quantity_sum_1h": [5, 3, None], "gold": [True, True, None]}
    assert rows.statuses["profile"] == ["PRESENT", "PRESENT", "OUTSIDE_MAX_AGE"]


def test_timestamps_are_datetimes_in_utc(client):
    rows = client.get(["profile:joined"], entities={"customer_id": [1]}, as_of=NOON)
    assert rows.to_dict()["profile__joined"] == [datetime(2011, 12, 4, 12, tzinfo=UTC)]


def test_a_receipt_names_row_offsets_time_and_digest(client, shop):
    rows = client.get(["spend:count_1h", "profile:name"], entities={"customer_id": [1, 3]}, as_of=NOON, receipts=True)
    spend, missing = rows.receipts["spend"]
    row = shop.connection.command("GET", row_prefix(shop.project, "spend", SPEND.state_hash, "f1") + b"1")
    assert (spend.view, spend.entity, spend.key, spend.effective_time) == ("spend", {"customer_id": 1}, "1", NOON)
    assert (spend.state_hash, spend.fill, spend.offsets) == (SPEND.state_hash, "f1", {0: (0, 12)})
    assert spend.digest == f"{xxhash.xxh3_64_intdigest(row[8:]):016x}"
    assert (missing.key, missing.offsets, missing.digest) == ("3", {}, None)
    assert rows.receipts["profile"][0].offsets == {}
    assert len(rows.receipts["profile"][0].digest) == 16


def test_many_rows_come_in_order_over_several_chunks(shop, client):
    ids = list(range(1_000, 6_500))
    names = Column.of("string", [f"n{i}" for i in ids])
    columns = {
        "recency": Column.of("float64", [i / 2 for i in ids]), "name": names,
        "joined": Column.nulls("timestamp", len(ids)), "gold": Column.of("bool", [True] * len(ids)),
    }  # fmt: skip
    keys = [Column.of("int64", ids)]
    assert write_plain_rows(shop.connection, shop.project, PROFILE, "f1", keys, columns, NOON) == len(ids)
    asked = [*reversed(ids), 7, *ids]
    got = client.get(["profile:name"], entities={"customer_id": asked}, as_of=NOON).to_dict(False)
    assert got == {"customer_id": asked, "name": [f"n{i}" if i != 7 else None for i in asked]}


@pytest.mark.parametrize("count", [1, 9])
def test_numpy_integers_and_whole_doubles_are_taken_as_integers(client, count):
    for ids in (np.array([1] * count), np.array([1.0] * count), [np.int32(1)] * count):
        rows = client.get(["spend:count_1h"], entities={"customer_id": ids}, as_of=NOON)
        assert rows.to_dict() == {"customer_id": [1] * count, "spend__count_1h": [2] * count}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"entities": {"customer_id": ["abc"]}}, "Join key 'customer_id' is of type int64: .* got 'abc'"),
        ({"entities": {"customer_id": [True]}}, "got True"),
        ({"entities": {"customer_id": [1.5]}}, "got 1.5"),
        ({"entities": {"customer_id": [2**63]}}, "got 9223372036854775808"),
        ({"entities": {"customer": [1]}}, "No join key 'customer'. Did you mean 'customer_id'"),
        ({"entities": {}}, "lack 'customer_id'"),
        ({"entities": {"customer_id": 1}}, "expected a list of values, got 1"),
        ({"entities": {"customer_id": [1], "country": ["a", "b"]}}, "customer_id: 1, country: 2"),
        ({"entities": [{"customer_id": 1}, {}]}, "row 1 lacks customer_id"),
        ({"entities": [1]}, "a list of"),
        ({"service": "churn"}, "one of the two"),
        ({"features": []}, "one of the two"),
        ({"features": ["a:b:c"]}, "expected VIEW:FEATURE or VIEW"),
        ({"as_of": "yesterday"}, "as_of: expected an RFC 3339 time"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(client, asked, message):
    with pytest.raises(UsageError, match=message):
        client.get(**{"features": ["spend"], "entities": {"customer_id": [1]}, **asked})


@pytest.mark.parametrize(
    ("features", "service", "message"),
    [
        (["spent"], None, "No feature view 'spent'. Did you mean 'spend'"),
        (["spend:count_2h"], None, "'spend' has no feature 'count_2h'. Did you mean 'count_1h'"),
        ([], "churm", "No feature service 'churm'. Did you mean 'churn'"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(client, features, service, message):
    with pytest.raises(UnknownName, match=message):
        client.get(features, service=service, entities={"customer_id": [1]})


def test_features_of_one_name_need_their_full_names(client):
    entities = {"customer_id": [1], "country": ["France"]}
    rows = client.get(["spend:count_1h", "demand"], entities=entities, as_of=NOON)
    assert rows.to_dict(False)["count"] == [2]
    columns = [FeatureColumn("spend", "count", "int64"), FeatureColumn("demand", "count", "int64")]
    with pytest.raises(UsageError, match="'count': spend:count and demand:count"):
        Shape(columns, {"customer_id": "int64"}).names(False)
    with pytest.raises(UsageError, match="'count': a join key and spend:count"):
        Shape(columns[:1], {"count": "int64"}).names(False)


def test_a_view_without_a_complete_fill_is_unavailable(client):
    with pytest.raises(Unavailable, match=r"'later' is unavailable.*headwater materialize later"):
        client.get(["later"], entities={"customer_id": [1]})


def test_a_project_without_a_plan_is_unavailable(redis_url):
    with Client(redis=redis_url, project="nobody") as client, pytest.raises(Unavailable, match="headwater apply"):
        client.get(["spend"], entities={"customer_id": [1]})


def test_a_switch_to_another_fill_is_followed_at_the_next_read(client, shop):
    ask = {"entities": {"customer_id": [1]}, "as_of": NOON}
    assert client.get(["spend:count_1h"], **ask).to_dict()["spend__count_1h"] == [2]
    shop.feed(SPEND, "f2", [(1, "France", 2, NOON - 1)])
    shop.publish({**shop.plan.active, "spend": Active("f2", SPEND)})
    assert client.get(["spend:count_1h"], **ask).to_dict()["spend__count_1h"] == [1]


def test_a_view_published_since_is_found(client, shop):
    with pytest.raises(Unavailable):
        client.get(["later"], entities={"customer_id": [1]})
    later = shop.definition.view("later")
    shop.publish({**shop.plan.active, "later": Active("f1", later)})
    assert client.get(["later"], entities={"customer_id": [1]}).to_dict() == {"customer_id": [1], "later__x": [None]}


@pytest.mark.parametrize("lost", ["plan", "fill"])
def test_a_lost_plan_or_fill_record_is_unavailable_and_never_zeros(client, shop, lost):
    client.get(["spend"], entities={"customer_id": [1]})
    keys = [plan_id_key(shop.project), plan_key(shop.project)]
    shop.connection.command("DEL", *(keys if lost == "plan" else [fill_key(shop.project, "spend", "f1")]))
    with pytest.raises(Unavailable):
        client.get(["spend"], entities={"customer_id": [1]})


def test_a_lost_connection_is_made_anew_once(client, shop):
    client.get(["spend"], entities={"customer_id": [1]})
    shop.connection.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert client.get(["spend:count_1h"], entities={"customer_id": [1]}, as_of=NOON).to_dict()["spend__count_1h"] == [2]


def test_a_redis_that_is_away_is_unreachable():
    with Client(redis="redis://127.0.0.1:1/0", project="x") as client, pytest.raises(Unreachable):
        client.get(["spend"], entities={"customer_id": [1]})


def test_newer_plain_rows_win_and_older_ones_are_left_out(shop):
    def write(name, at):
        columns = {
            "recency": Column.of("float64", [1.0]), "name": Column.of("string", [name]),
            "joined": Column.of("timestamp", [None]), "gold": Column.of("bool", [None]),
        }  # fmt: skip
        keys = [Column.of("int64", [77])]
        written = write_plain_rows(shop.connection, shop.project, PROFILE, "f1", keys, columns, at)
        with Client(redis=shop.url, project=shop.project) as client:
            rows = client.get(["profile:name"], entities={"customer_id": [77]}, as_of=-(2**50))
            return written, rows.to_dict()["profile__name"]

    assert write("old", -5) == (1, ["old"])
    assert write("new", NOON) == (1, ["new"])
    assert write("older", NOON - 1) == (0, ["new"])
    assert write("older", -(2**40)) == (0, ["new"])
    assert write("equal", NOON) == (1, ["equal"])
    assert write("high", NOON + 2**32) == (1, ["high"])
    assert write("low", NOON + 2**31) == (0, ["high"])


def test_plain_rows_expire_after_their_ttl_and_a_margin(shop):
    key = row_prefix(shop.project, "profile", PROFILE.state_hash, "f1") + b"1"
    left = shop.connection.command("PTTL", key)
    assert 7.9 * DAY / 1000 < left <= 8 * DAY / 1000


def test_rows_with_a_null_join_key_are_not_written(shop):
    columns = {
        "recency": Column.nulls("float64", 2), "name": Column.nulls("string", 2),
        "joined": Column.nulls("timestamp", 2), "gold": Column.nulls("bool", 2),
    }  # fmt: skip
    keys = [Column.of("int64", [None, 88])]
    assert write_plain_rows(shop.connection, shop.project, PROFILE, "f1", keys, columns, NOON) == 1


def test_keys_read_are_spelled_as_keys_are_written(shop):
    prefix = row_prefix(shop.project, "demand", DEMAND.state_hash, "f1")
    with Connection(shop.url) as connection:
        keys = sorted(connection.command("KEYS", prefix + b"*"))
    assert keys == sorted(prefix + entity_key(k) for k in [(1, "France"), (1, "Spain"), (2, "a|b\\")])
