"""The diff of two plans says what was added, changed with old and new, removed, and who uses it."""

from __future__ import annotations

from typing import Any

from feast import Entity, FeatureService, ValueType
from feast.types import Float64, Int64, UnixTimestamp

from headwater.definitions import Count, StreamSource, StreamView, Sum
from headwater.plans.compile import compile_plan
from headwater.plans.diff import as_json, as_lines, differences, summary
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


def lines(old: Plan | None, new: Plan) -> list[str]:
    return [line.strip() for _, line in as_lines(differences(old, new))]


def test_equal_plans_differ_in_nothing() -> None:
    assert differences(make_plan("spend"), make_plan("spend")) == []


def test_a_first_plan_is_added_with_all_that_it_says() -> None:
    said = lines(None, make_plan("spend", service=True))
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
