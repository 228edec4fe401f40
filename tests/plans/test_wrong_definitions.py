"""Each wrong definition is an error that names object, place, what was expected and the nearest names."""

from __future__ import annotations

from typing import Any

import pytest
from feast import Entity, FeatureService, ValueType
from feast.types import Array, Bool, Float64, Int64, String, UnixTimestamp

from headwater.definitions import (
    ApproxDistinct,
    ApproxQuantile,
    BatchView,
    Between,
    Count,
    Distinct,
    InSet,
    Last,
    LastN,
    Max,
    Mean,
    NotNull,
    StreamSource,
    StreamView,
    Sum,
    TopK,
    Vector,
)
from headwater.errors import DefinitionError, DefinitionErrors
from headwater.plans.compile import compile_plan

SCHEMA = {"customer_id": Int64, "country": String, "at": UnixTimestamp, "amount": Float64, "paid": Bool,
          "sizes": Array(Int64)}  # fmt: skip

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
other = Entity(name="other", join_keys=["customer_no"], value_type=ValueType.INT64)
text_key = Entity(name="text_key", join_keys=["customer_id"], value_type=ValueType.STRING)
price_key = Entity(name="price_key", join_keys=["amount"], value_type=ValueType.UNKNOWN)


def make_source(**changes: Any) -> StreamSource:
    return StreamSource(**{"name": "orders", "event_time": "at", "schema": SCHEMA, **changes})


def make_view(**changes: Any) -> StreamView:
    given = {"name": "spend", "entity": customer, "source": make_source(), "features": [Count()], **changes}
    return StreamView(**given)


def make_batch(sql: str, **changes: Any) -> BatchView:
    return BatchView(**{"name": "profile", "entity": customer, "sql": sql, **changes})


def wrong(*objects: Any) -> list[str]:
    with pytest.raises(DefinitionErrors) as caught:
        compile_plan("shop", [customer, other, text_key, price_key, *objects])
    return [str(e) for e in caught.value.errors]


VIEWS = {
    "unknown column": ({"features": [Sum("amont")]}, ["'spend'", "Sum('amont')", "no column 'amont'", "'amount'"]),
    "unknown column in where": ({"where": "amout > 1"}, ["'spend'", "where", "amout", "amount"]),
    "unknown column in a feature's where": ({"features": [Count(where="paied")]}, ["Count()", "where", "paied"]),
    "unknown column in derive": ({"derive": {"d": "amoun * 2"}}, ["derive 'd'", "amoun", "amount"]),
    "a string summed": ({"features": [Sum("country")]}, ["int64 or float64", "'country' is string"]),
    "a bool averaged": ({"features": [Mean("paid")]}, ["int64 or float64", "'paid' is bool"]),
    "a time summed": ({"features": [Sum("at")]}, ["int64 or float64", "'at' is timestamp"]),
    "window shorter than its hop": ({"features": [Count(over="1m")]}, ["over 1m", "shorter than its hop of 5m"]),
    "window shorter than a given hop": ({"features": [Count(over="1h", hop="1d")]}, ["shorter than its hop of 1d"]),
    "too many tiles": ({"features": [Count(over="30d", hop="1m")]}, ["43,200 tiles", "20,000"]),
    "duplicate feature": ({"features": [Count(), Count(where="paid")]}, ["feature 'count'", "two of that name"]),
    "feature named like the key": ({"features": [Count(name="customer_id")]}, ["'customer_id'", "like a join key"]),
    "no features": ({"features": []}, ["features", "got none"]),
    "no operator": ({"features": [7]}, ["expected an operator", "Count", "7"]),
    "no column": ({"features": ["countri"]}, ["Latest('countri')", "no column 'countri'", "'country'"]),
    "a ttl of windows": ({"features": ["country", Count()], "ttl": "30d"}, ["ttl", "all columns", "'count' is none"]),
    "bad ttl": ({"features": ["country"], "ttl": "a month"}, ["ttl", "'a month'"]),
    "a sum of lists": ({"features": [Sum("sizes")]}, ["int64 or float64", "'sizes' is list[int64]"]),
    "the most frequent lists": ({"features": [TopK("sizes", 2)]}, ["top_k takes no lists", "First, Last and Latest"]),
    "lists of lists": ({"features": [LastN("sizes", 2)]}, ["last_n takes no lists"]),
    "a list in where": ({"where": "sizes IS NOT NULL"}, ["where", "'sizes' is list[int64]", "expressions take no lists"]),
    "a list in derive": ({"derive": {"d": "sizes"}}, ["derive 'd'", "expressions take no lists"]),
    "between of a list's elements": (
        {"features": ["sizes"], "expect": [Between("sizes", 0, 1)]}, ["numeric", "list[int64]"],
    ),
    "entity missing": ({"entity": None}, ["entity", "expected an Entity", "got none"]),
    "join key missing": ({"entity": other}, ["'customer_no'", "no column of source 'orders'", "'customer_id'"]),
    "join key of another type": ({"entity": text_key}, ["'customer_id' is string", "but int64"]),
    "join key that is a double": ({"entity": price_key}, ["'amount' is float64", "cannot be a double"]),
    "bad window": ({"features": [Count(over=["1 hour"])]}, ["over", "'1 hour'", "'12h'"]),
    "bad hop": ({"features": [Count(over="1h", hop="x")]}, ["hop", "'x'"]),
    "hop without window": ({"features": [Last("country", hop="1h")]}, ["hop", "lifetime"]),
    "bad freshness": ({"freshness": "10 s"}, ["freshness", "'10 s'"]),
    "bad scale": ({"features": [Sum("amount", scale=20)]}, ["scale", "0 to 15", "20"]),
    "bad n": ({"features": [LastN("country", n=0)]}, ["LastN('country')", "n", "1 to 1,000", "0"]),
    "bad limit": ({"features": [Distinct("country", limit=20_000)]}, ["limit", "1 to 10,000", "20000"]),
    "bad q": ({"features": [ApproxQuantile("amount", 95)]}, ["q", "0 to 1", "95"]),
    "quantile of a text": ({"features": [ApproxQuantile("country", 0.5)]}, ["approx_quantile needs", "string"]),
    "n that is none": ({"features": [LastN("country", None)]}, ["n", "None"]),
    "between of a list": (
        {"features": [LastN("amount", 2)], "expect": [Between("amount_last_n", 0, 1)]}, ["numeric", "list[float64]"],
    ),
    "bad over": ({"features": [Count(over=7)]}, ["over", "expected windows", "7"]),
    "cyclic derive": ({"derive": {"a": "b + 1", "b": "a + 1"}}, ["derive", "cycle", "a -> b -> a"]),
    "derive of itself": ({"derive": {"a": "a + 1"}}, ["cycle", "a -> a"]),
    "derive named like a column": ({"derive": {"amount": "1"}}, ["derive 'amount'", "already"]),
    "where that is no condition": ({"where": "amount"}, ["where", "condition", "float64"]),
    "where that is no SQL": ({"where": "amount >"}, ["'spend'", "where"]),
    "expectation of an unknown feature": ({"expect": [NotNull("cuont")]}, ["NotNull('cuont')", "'count'"]),
    "bad mostly": ({"expect": [NotNull("count", mostly=2)]}, ["mostly", "2"]),
    "between of a string": (
        {"features": [Last("country")], "expect": [Between("country_last", 0, 1)]}, ["numeric", "string"],
    ),
    "between the wrong way": ({"expect": [Between("count", 2, 1)]}, ["minimum 2", "maximum 1"]),
    "no such type in the set": ({"expect": [InSet("count", ["a"])]}, ["int64", "'a'"]),
    "bad view name": ({"name": "a__b"}, ["a__b", "'__'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", VIEWS)
def test_one_error_of_a_stream_view_names_its_place(case: str) -> None:
    changes, said = VIEWS[case]
    errors = wrong(make_view(**changes))
    assert len(errors) == 1, errors
    for words in said:
        assert words in errors[0]


SOURCES = {
    "unknown event time": ({"event_time": "att"}, ["event_time", "'att'", "'at'"]),
    "event time of another type": ({"event_time": "amount"}, ["UnixTimestamp", "float64"]),
    "unknown key": ({"key": "customer"}, ["key", "'customer'", "'customer_id'"]),
    "bad tolerance": ({"tolerance": "a day"}, ["tolerance", "'a day'"]),
    "bad topic": ({"topic": "a b"}, ["topic", "'a b'"]),
    "a dead letter topic": ({"topic": "orders.dead-letters"}, ["dead letters"]),
    "a type that is none of ours": (
        {"schema": {**SCHEMA, "tags": Array(Array(String))}}, ["column 'tags'", "Array of one of them", "Array(Array("],
    ),
    "a vector without a length": ({"schema": {**SCHEMA, "v": Vector(0)}}, ["column 'v'", "1 to 65,536", "got 0"]),
    "a key that is a list": ({"schema": {**SCHEMA, "v": Vector(2)}, "key": "v"}, ["key", "list[float64]", "one value"]),
    "an unknown envelope": ({"envelope": "maxwell"}, ["envelope", "debezium", "'maxwell'"]),
    "an envelope in protobuf": ({"envelope": "debezium", "format": "protobuf"}, ["envelope", "JSON and Avro"]),
    "updates without an envelope": ({"updates": "count"}, ["updates", "set envelope='debezium'"]),
    "unknown updates": ({"envelope": "debezium", "updates": "yes"}, ["updates", "ignore, count", "'yes'"]),
    "columns that differ in case": ({"schema": {**SCHEMA, "Amount": Float64}}, ["'Amount'", "upper and lower case"]),
    "a column of the lake's names": ({"schema": {**SCHEMA, "_offset": Int64}}, ["_offset", "begins with a letter"]),
    "expectation of an unknown column": ({"expect": [Between("amnt", 0)]}, ["Between('amnt')", "'amount'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SOURCES)
def test_one_error_of_a_stream_source_names_its_place(case: str) -> None:
    changes, said = SOURCES[case]
    errors = wrong(make_source(**changes))
    assert len(errors) == 1, errors
    for words in ["Stream source 'orders'", *said]:
        assert words in errors[0]


BATCHES = {
    "unknown table": ("SELECT customer_id, 1 AS one FROM order", {}, ["sql"]),
    "unknown table with a near one": ("SELECT customer_id, 1 AS one FROM orderz", {}, ["'orderz'", "'orders'"]),
    "unknown column": ("SELECT customer_id, amont FROM orders", {}, ["no column 'amont'", "'amount'"]),
    "no SQL": ("SELECT FROM WHERE", {}, ["sql"]),
    "no SELECT": ("DELETE FROM orders", {}, ["SELECT"]),
    "two statements": ("SELECT 1; SELECT 2", {}, ["one SELECT"]),
    "another parameter": ("SELECT customer_id, 1 AS x FROM orders WHERE at < :until", {}, ["until", ":as_of"]),
    "no join key": ("SELECT count(*) AS c FROM orders", {}, ["'customer_id'", "the query's result"]),
    "no feature": ("SELECT DISTINCT customer_id FROM orders", {}, ["no feature"]),
    "a list of lists": (
        "SELECT customer_id, [list(amount)] AS l FROM orders GROUP BY 1", {}, ["'l'", "DOUBLE[][]", "Cast"],
    ),
    "a vector of another length": (
        "SELECT customer_id, [1.0, 2.0]::DOUBLE[2] AS v FROM orders", {"schema": {"v": Vector(3)}},
        ["schema, 'v'", "Array(Float64, 3)", "list[float64] of 2"],
    ),
    "bad ttl": ("SELECT customer_id, 1 AS x FROM orders", {"ttl": "month"}, ["ttl", "'month'"]),
    "expectation": ("SELECT customer_id, 1 AS x FROM orders", {"expect": [NotNull("y")]}, ["NotNull('y')", "x"]),
    "declared otherwise": ("SELECT customer_id, 1 AS x FROM orders", {"schema": {"x": String}}, ["String", "int64"]),
    "entity": ("SELECT customer_id, 1 AS x FROM orders", {"entity": None}, ["expected an Entity"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BATCHES)
def test_one_error_of_a_batch_view_names_its_place(case: str) -> None:
    sql, changes, said = BATCHES[case]
    errors = wrong(make_source(), make_batch(sql, **changes))
    assert len(errors) == 1, errors
    for words in ["Batch view 'profile'", *said]:
        assert words in errors[0]


def test_all_errors_of_a_repository_are_named_at_once() -> None:
    source = make_source(tolerance="soon")
    errors = wrong(
        source,
        make_view(source=source, features=[Sum("amont"), Mean("country"), Count(over="1m")], freshness="x"),
        make_batch("SELECT customer_id, nothing FROM orders"),
    )
    assert len(errors) == 6
    assert sum("tolerance" in e for e in errors) == 1


def test_a_broken_derived_column_is_named_once_and_not_where_it_is_used() -> None:
    view = make_view(derive={"d": "nothing + 1", "e": "d * 2"}, where="d > 1", features=[Sum("d"), Max("e")])
    errors = wrong(view)
    assert len(errors) == 1
    assert "derive 'd'" in errors[0]


def test_names_of_views_differ() -> None:
    errors = wrong(make_view(), make_view(features=[ApproxDistinct("country")]), make_batch("SELECT 1", name="Spend"))
    assert any("'spend'" in e and "several of that name" in e for e in errors)


def test_an_entity_that_is_in_no_module_is_missing() -> None:
    hidden = Entity(name="custmer", join_keys=["customer_id"], value_type=ValueType.INT64)
    errors = wrong(make_view(entity=hidden))
    assert len(errors) == 1
    assert "no entity 'custmer'" in errors[0]
    assert "'customer'" in errors[0]


def test_two_sources_cannot_read_one_topic() -> None:
    errors = wrong(make_source(topic="t"), make_source(name="more", topic="t"))
    assert len(errors) == 1
    assert "'orders'" in errors[0]
    assert "'more'" in errors[0]


def test_a_service_names_only_features_that_are_there() -> None:
    batch = make_batch("SELECT customer_id, 1 AS x FROM orders")
    service = FeatureService(name="model", features=[batch[["y"]]])
    errors = wrong(make_source(), batch, service)
    assert len(errors) == 1
    for words in ["'model'", "'profile'", "no feature 'y'", "x"]:
        assert words in errors[0]


def test_a_service_does_not_hide_why_a_feature_is_missing() -> None:
    view = make_view(features=[Count(), Mean("amont")])
    errors = wrong(view, FeatureService(name="model", features=[view[["count", "amount_mean"]]]))
    assert len(errors) == 2
    assert "no column 'amont'" in errors[0]
    assert "no feature 'amount_mean'" in errors[1]


def test_a_stream_view_of_no_source_is_refused_at_once() -> None:
    with pytest.raises(DefinitionError, match=r"'spend', source: expected a StreamSource, got None"):
        make_view(source=None)
