"""The diff of two plans says what was added, changed with old and new, removed, and who uses it."""

from __future__ import annotations

from typing import Any

from feast import Entity, FeatureService, ValueType
from feast.types import Float64, Int64, UnixTimestamp

from headwater.definitions import Count, StreamSource, StreamView, Sum
from headwater.plans.announcement import as_lines, summary
from headwater.plans.compile import compile_plan
from headwater.plans.diff import as_json, differences
from headwater.plans.plan import Plan

customer = Entity(name="customer", join_keys=["id"], value_type=ValueType.INT64)
orders = StreamSource("orders", event_time="at", schema={"id": Int64, "at": UnixTimestamp, "amount": Float64})


def make_plan(*names: str, service: bool = False, **changes: Any) -> Plan:
    views = [
        StreamView(name, **{"entity": customer, "source": orders, "features": [Count(over="1h")], **changes})
        for name in names
    ]
    return compile_plan(
        "shop", [customer, *views, *([FeatureService(name="model", features=views)] if service else [])]
    )


def lines(old: Plan | None, new: Plan, *, full: bool = False) -> list[str]:
    return [line.strip() for _, line in as_lines(differences(old, new), full=full)]


def test_equal_plans_differ_in_nothing() -> None:
    assert differences(make_plan("spend"), make_plan("spend")) == []


def test_what_is_added_is_put_together_in_a_few_lines() -> None:
    new = make_plan(
        "spend",
        service=True,
        where="amount > 0.0",
        derive={"pence": "amount * 100"},
        features=[Count(over=["1h", "1d"])],
    )
    assert lines(None, new) == [
        "+ source orders: topic orders, 3 columns",
        "used by view spend",
        "+ view spend: 2 features by customer (id int64) from orders",
        "where amount > 0.0",
        "pence = amount * 100",
        "count_1h, count_1d",
        "used by service model",
        "+ service model: 2 features of spend",
    ]


def test_ten_added_views_fit_on_a_screen() -> None:
    features = [Count(over=["1h", "1d", "30d"]), Sum("amount", over=["1h", "1d", "30d"])]
    plan = make_plan(*(f"view_{i}" for i in range(10)), where="amount > 0.0", features=features)
    assert len(lines(None, plan)) <= 40


def test_a_first_plan_in_full_is_all_that_it_says() -> None:
    condition = Count(over="1h", where="amount > 1.5 AND id > 0", name="large")
    said = lines(None, make_plan("spend", service=True, features=[Count(over="1h"), condition]), full=True)
    assert "feature large: count over 1h by 5m, int64, where amount > 1.5 AND id > 0" in said
    assert "+ source orders" in said
    assert "+ view spend" in said
    assert "entities: customer (id int64)" in said
    assert "feature count_1h: count over 1h by 5m, int64" in said
    assert "used by service model" in said


def test_a_changed_view_shows_old_and_new_and_that_it_has_to_be_filled_again() -> None:
    old = make_plan("spend", service=True, where="amount > 0.0", owner="ann")
    new = make_plan(
        "spend", service=True, where="amount > 1.0", owner="bob", features=[Count(over="1h"), Sum("amount")]
    )
    said = lines(old, new)
    assert "~ view spend" in said
    assert "~ where: amount > 0.0 -> amount > 1.0" in said
    assert "~ owner: ann -> bob" in said
    assert "+ feature amount_sum: sum of amount over all time, float64, scale 6" in said
    assert "used by service model" in said
    assert any("filled again" in line for line in said)


def test_a_new_owner_needs_no_new_values() -> None:
    changes = differences(make_plan("spend", owner="ann"), make_plan("spend", owner="bob"))
    assert [(c.change, c.name, c.refill) for c in changes] == [("changed", "spend", False)]
    assert as_json(changes) == {
        "added": [],
        "changed": [
            {
                "kind": "view", "name": "spend", "differences": [{"place": "owner", "old": "ann", "new": "bob"}],
                "consumers": [], "refill": False,
            }
        ],
        "removed": [],
    }  # fmt: skip


def test_a_removed_view_says_who_used_it() -> None:
    changes = differences(make_plan("spend", "visits", service=True), make_plan("spend"))
    assert [(c.change, c.kind, c.name, c.consumers) for c in changes] == [
        ("removed", "view", "visits", ["service model"]), ("removed", "service", "model", []),
    ]  # fmt: skip
    assert summary(changes) == "0 added, 0 changed, 2 removed"
