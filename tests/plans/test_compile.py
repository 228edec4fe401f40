"""Right definitions become a plan: names, types, windows, hops and state hashes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from feast import Entity, FeatureService, Field, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

from headwater.definitions import (
    ApproxDistinct,
    ApproxQuantile,
    BatchView,
    Between,
    Count,
    Distinct,
    First,
    InSet,
    Last,
    LastN,
    Latest,
    Max,
    Mean,
    Min,
    NotNull,
    Stddev,
    StreamSource,
    StreamView,
    Sum,
    TopK,
    Var,
    Vector,
)
from headwater.plans.compile import compile_plan
from headwater.plans.diff import differences
from headwater.plans.plan import Plan, decode_plan, encode_plan

HOUR, DAY = 3_600_000_000, 86_400_000_000
SCHEMA = {"id": Int64, "shop": String, "at": UnixTimestamp, "n": Int32, "x": Float32, "ok": Bool, "raw": Bytes}

user = Entity(name="user", join_keys=["id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)


def make_source(**changes: Any) -> StreamSource:
    return StreamSource(**{"name": "clicks", "topic": "clicks", "event_time": "at", "schema": SCHEMA, **changes})


def make_view(**changes: Any) -> StreamView:
    given = {"name": "activity", "entity": user, "source": make_source(), "features": [Count()], **changes}
    return StreamView(**given)


def compiled(*objects: Any) -> Plan:
    return compile_plan("shop", [user, shop, *objects])


def outputs(**changes: Any) -> dict[str, str]:
    return {f.name: f.dtype for f in compiled(make_view(**changes)).view("activity").outputs()}


def test_the_designs_example_compiles_to_its_feature_names() -> None:
    invoice_lines = StreamSource(
        name="invoice_lines", topic="invoice_lines", event_time="invoice_ts",
        key="customer_id", tolerance="1d",
        schema={"invoice_no": String, "stock_code": String, "quantity": Int64,
                "invoice_ts": UnixTimestamp, "unit_price": Float64, "customer_id": Int64,
                "country": String},
        expect=[Between("unit_price", 0, 100_000), NotNull("stock_code")])  # fmt: skip
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
    customer_spend = StreamView(
        name="customer_spend", entity=customer, source=invoice_lines,
        where="customer_id IS NOT NULL AND quantity > 0",
        derive={"amount": "quantity * unit_price"},
        features=[Count(over=["1h", "1d", "30d"]),
                  Sum("amount", over=["1h", "1d", "30d"]),
                  Mean("amount", over=["30d"]), Max("amount", over=["30d"]),
                  ApproxDistinct("stock_code", over=["30d"]), Last("country")],
        owner="growth@shop.example", description="What a customer spent lately.",
        tags={"tier": "gold", "pii": "no"}, freshness="10s",
        expect=[Between("amount_sum_1h", 0, 100_000), NotNull("country_last", mostly=0.99)])  # fmt: skip
    churn = FeatureService(name="churn", features=[customer_spend])

    plan = compile_plan("shop", [customer, invoice_lines, customer_spend, churn])

    view = plan.stream_views()[0]
    assert [(f.name, f.dtype) for f in view.outputs()] == [
        ("count_1h", "int64"), ("count_1d", "int64"), ("count_30d", "int64"),
        ("amount_sum_1h", "float64"), ("amount_sum_1d", "float64"), ("amount_sum_30d", "float64"),
        ("amount_mean_30d", "float64"), ("amount_max_30d", "float64"),
        ("stock_code_approx_distinct_30d", "int64"), ("country_last", "string"),
    ]  # fmt: skip
    assert [(k.name, k.dtype) for k in view.keys] == [("customer_id", "int64")]
    assert view.tags == {"tier": "gold", "pii": "no"}
    assert view.freshness == 10_000_000
    assert [e.mostly for e in view.expectations] == [1.0, 0.99]
    assert plan.source("invoice_lines").tolerance == DAY
    assert plan.service("churn").features == (("customer_spend", tuple(f.name for f in view.features)),)


def test_a_plan_survives_its_json() -> None:
    plan = compiled(make_view(where="n > 1", derive={"y": "x * 2"}, features=[Sum("y", over="1h", where="ok")]))
    assert decode_plan(encode_plan(plan)) == plan


def test_types_of_results_follow_the_columns() -> None:
    features = [
        Sum("n"), Sum("x"), Mean("n"), Min("shop"), Max("ok"), Min("at"), Max("x"), Last("raw"), Last("at"),
        ApproxDistinct("x"), Var("n"), Stddev("x", scale=2), First("shop"), Max("raw"), LastN("shop", 5), LastN("at", n=2),
        Distinct("raw", limit=7), TopK("at", 3, limit=50), ApproxQuantile("n", 0.9),
    ]  # fmt: skip
    assert outputs(features=features) == {
        "n_sum": "int64", "x_sum": "float64", "n_mean": "float64", "shop_min": "string", "ok_max": "bool",
        "at_min": "timestamp", "x_max": "float64", "raw_last": "bytes", "at_last": "timestamp",
        "x_approx_distinct": "int64", "n_var": "float64", "x_stddev": "float64", "shop_first": "string", "raw_max": "bytes",
        "shop_last_n": "list[string]", "at_last_n": "list[timestamp]", "raw_distinct": "int64", "at_top_k": "counts[timestamp]",
        "n_approx_quantile": "float64",
    }  # fmt: skip


def test_lifetime_windows_have_no_suffix_and_all_means_the_same() -> None:
    view = compiled(make_view(features=[Count(), Sum("n", over="all"), Max("n", over=["all", "2h"])])).view("activity")
    assert [(f.name, f.window, f.hop) for f in view.features] == [
        ("count", None, None), ("n_sum", None, None), ("n_max", None, None), ("n_max_2h", 2 * HOUR, 300_000_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("over", "hop"), [("11h", 300_000_000), ("12h", HOUR), ("11d", HOUR), ("12d", DAY), ("400d", DAY)]
)
def test_hops_follow_the_window_law(over: str, hop: int) -> None:
    assert compiled(make_view(features=[Count(over=over)])).view("activity").features[0].hop == hop


def test_a_hop_can_be_overridden() -> None:
    feature = compiled(make_view(features=[Count(over="1h", hop="1m")])).view("activity").features[0]
    assert (feature.window, feature.hop) == (HOUR, 60_000_000)


def test_a_name_is_used_as_it_is_for_one_window_and_as_a_stem_for_several() -> None:
    names = outputs(features=[Count(over="1h", name="recent"), Sum("n", over=["1h", "1d"], name="units")])
    assert list(names) == ["recent", "units_1h", "units_1d"]


def test_derived_columns_may_use_each_other_in_any_order() -> None:
    view = compiled(make_view(derive={"c": "b + 1", "a": "n * 2", "b": "a + n"}, features=[Sum("c")])).view("activity")
    assert [d.name for d in view.derive] == ["a", "b", "c"]


def test_a_views_key_is_in_the_order_of_its_entities() -> None:
    plan = compiled(make_view(entity=None, entities=[shop, user]))
    assert [k.name for k in plan.view("activity").keys] == ["shop", "id"]
    assert plan.view("activity").entities == ("shop", "user")


def test_an_entity_without_a_type_takes_the_columns() -> None:
    loose = Entity(name="loose", join_keys=["id"], value_type=ValueType.UNKNOWN)
    assert compile_plan("shop", [loose, make_view(entity=loose)]).view("activity").keys[0].dtype == "int64"


def hash_of(**changes: Any) -> str:
    return compiled(make_view(**changes)).view("activity").state_hash


def test_the_state_hash_ignores_what_only_describes() -> None:
    described = {"owner": "me", "description": "words", "tags": {"a": "b"}, "freshness": "1h"}
    assert hash_of(**described) == hash_of()
    assert hash_of(expect=[Between("count", 0)]) == hash_of()
    assert hash_of(source=make_source(expect=[NotNull("n", mostly=0.5)])) == hash_of()


@pytest.mark.parametrize(
    "changes",
    [
        {"where": "n > 0"},
        {"entity": shop},
        {"features": [Count(over="1h")]},
        {"features": [Count(where="ok")]},
        {"derive": {"y": "x + 1.0"}},
        {"source": make_source(topic="other")},
        {"source": make_source(tolerance="2h")},
        {"source": make_source(expect=[NotNull("n")])},
        {"source": make_source(schema={**SCHEMA, "more": Int64})},
    ],
)
def test_the_state_hash_changes_with_what_a_value_means(changes: dict[str, Any]) -> None:
    assert hash_of(**changes) != hash_of()


def test_a_batch_views_features_are_its_querys_result() -> None:
    view = BatchView(
        "profile",
        entity=user,
        sql="""
            WITH recent AS (SELECT * FROM clicks WHERE at < :as_of)
            SELECT id, count(*) AS clicks, sum(n) AS units, avg(x) AS mean_x, max(at) AS last_at,
                   bool_or(ok) AS any_ok, CAST(sum(x) AS DECIMAL(18, 2)) AS cents, min(_offset) AS first_offset
            FROM recent GROUP BY id
        """,
        ttl="30d",
        expect=[InSet("any_ok", [True])],
    )
    compiled_view = compiled(make_source(), view).batch_views()[0]
    assert [(f.name, f.dtype) for f in compiled_view.features] == [
        ("clicks", "int64"), ("units", "int64"), ("mean_x", "float64"), ("last_at", "timestamp"),
        ("any_ok", "bool"), ("cents", "float64"), ("first_offset", "int64"),
    ]  # fmt: skip
    assert [(k.name, k.dtype) for k in compiled_view.keys] == [("id", "int64")]
    assert compiled_view.ttl == 30 * DAY


def test_a_batch_views_declared_schema_chooses_and_orders_its_features() -> None:
    sql = "SELECT id, count(*) AS c, sum(x) AS s FROM clicks GROUP BY id"
    view = BatchView("profile", entity=user, sql=sql, schema={"s": Float64})
    assert [f.name for f in compiled(make_source(), view).view("profile").outputs()] == ["s"]


def test_a_service_names_the_features_it_chose() -> None:
    view = make_view(features=[Count(over=["1h", "1d"]), Sum("n")])
    service = FeatureService(name="model", features=[view[["n_sum", "count_1h"]]])
    assert compiled(view, service).service("model").features == (("activity", ("n_sum", "count_1h")),)


def test_a_service_may_name_views_and_features_as_text() -> None:
    view = make_view(features=[Count(over=["1h", "1d"]), Sum("n")])
    service = FeatureService(name="model", features=["activity:n_sum", "activity:count_1h"])
    assert compiled(view, service).service("model").features == (("activity", ("n_sum", "count_1h")),)
    whole = FeatureService(name="model", features=["activity"])
    assert compiled(view, whole).service("model").features == (("activity", ("count_1h", "count_1d", "n_sum")),)


def test_names_of_columns_are_their_newest_values_and_have_a_ttl() -> None:
    source = make_source(schema={**SCHEMA, "tags": Array(String), "v": Vector(3, Float32)})
    view = make_view(source=source, features=["shop", "tags", Latest("v", name="embedding"), "x"], ttl="30d")
    found = compiled(view).view("activity")
    assert [(f.name, f.function, f.dtype, f.length, f.window) for f in found.features] == [
        ("shop", "latest", "string", None, None), ("tags", "latest", "list[string]", None, None),
        ("embedding", "latest", "list[float64]", 3, None), ("x", "latest", "float64", None, None),
    ]  # fmt: skip
    assert found.ttl == 30 * DAY
    assert view.ttl == timedelta(days=30)
    assert {f.name: f.vector_length for f in view.features}["embedding"] == 3
    windowed = outputs(features=[Latest("shop", over=["1h", "all"])])
    assert windowed == {"shop_1h": "string", "shop": "string"}


def test_an_envelope_changes_what_values_mean() -> None:
    def hashed(**said: Any) -> str:
        return compiled(make_view(source=make_source(**said))).view("activity").state_hash

    kinds = [{}, {"envelope": "debezium"}, {"envelope": "debezium", "updates": "count"}, {"format": "avro"}]
    assert len({hashed(**said) for said in kinds}) == 4
    view = make_view(source=make_source(envelope="debezium", updates="count"))
    source = next(c for c in differences(None, compiled(view)) if c.kind == "source")
    assert {d.place: d.new for d in source.differences}["envelope"] == "debezium, updates count"


def test_a_vector_can_be_said_in_feasts_own_words() -> None:
    field = Field(name="v", dtype=Array(Float32), vector_length=3)
    schema = [Field(name=n, dtype=t) for n, t in SCHEMA.items()]
    ours, feasts = make_source(schema={**SCHEMA, "v": Vector(3, Float32)}), make_source(schema=[*schema, field])
    assert ours == feasts
    assert compiled(ours).source("clicks").field("v").length == 3


def test_a_ttl_is_no_part_of_the_state_hash_and_a_vectors_length_is() -> None:
    def hashed(length: int, ttl: str | None) -> str:
        source = make_source(schema={**SCHEMA, "v": Vector(length)})
        view = compiled(make_view(source=source, features=["v"], ttl=ttl)).view("activity")
        return view.state_hash

    assert hashed(3, "1d") == hashed(3, None)
    assert hashed(3, None) != hashed(4, None)


def test_a_batch_views_lists_and_vectors_are_those_of_its_query() -> None:
    sql = "SELECT id, list(x) AS xs, [1, 2]::FLOAT[2] AS pair, list(at) AS ats FROM clicks GROUP BY id"

    def fields(**changes: Any) -> list[tuple[str, str, int | None]]:
        view = BatchView(name="lists", entity=user, sql=sql, **changes)
        return [(f.name, f.dtype, f.length) for f in compiled(make_source(), view).view("lists").outputs()]

    found = [("xs", "list[float64]", None), ("pair", "list[float64]", 2), ("ats", "list[timestamp]", None)]
    assert fields() == found
    declared = {"xs": Vector(3), "pair": Vector(2, Float32), "ats": Array(UnixTimestamp)}
    assert fields(schema=declared) == [("xs", "list[float64]", 3), *found[1:]]
