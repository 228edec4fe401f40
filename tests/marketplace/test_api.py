"""The JSON API gives the facts of the pages, and null with a reason for what is unknown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import httpx

from headwater.plans.plan import Plan
from marketplace.app import make_app
from marketplace.facts import Facts, MemoryFacts, Unknown, ViewFacts

Browse = Callable[[Facts, str], httpx.Response]
MakeFacts = Callable[..., Facts]


def test_views_are_listed_with_their_facts(browse: Browse, make_facts: MakeFacts) -> None:
    answer = browse(make_facts(), "/api/views").json()
    assert (answer["project"], answer["measured_at"]) == ("shop", "2026-11-21T12:04:08Z")
    assert [v["view"] for v in answer["views"]] == ["customer_profile", "customer_spend", "product_demand"]
    spend = answer["views"][1]
    assert (spend["kind"], spend["lag"], spend["freshness_ms"], spend["freshness_target_ms"]) == (
        "stream",
        0,
        43.2,
        1e4,
    )
    assert spend["check"]["receipts"] == {"drawn": 200, "equal": 200}
    assert spend["unknown"] == {}


def test_search_answers_as_the_page_does(browse: Browse, make_facts: MakeFacts) -> None:
    answer = browse(make_facts(), "/api/views?q=prodct").json()
    assert answer["replaced"] == {"prodct": "product"}
    assert [v["view"] for v in answer["views"]] == ["product_demand"]


def test_one_view_has_schema_windows_and_consumers(browse: Browse, make_facts: MakeFacts) -> None:
    answer = browse(make_facts(), "/api/views/customer_spend").json()
    assert answer["keys"] == [{"name": "customer_id", "dtype": "int64"}]
    assert answer["schema"][1] == {
        "name": "amount_sum_1h", "function": "sum", "column": "amount", "dtype": "float64",
        "window_us": 3_600_000_000, "hop_us": 300_000_000, "where": None,
        "n": None, "limit": None, "q": None, "length": None,
    }  # fmt: skip
    assert answer["expectations"] == [{"kind": "not_null", "column": "country_last", "mostly": 0.99}]
    assert answer["services"] == ["churn"]


def test_operators_and_vectors_say_what_they_were_given(
    browse: Browse, make_facts: MakeFacts, parametrised: Plan
) -> None:
    answer = browse(make_facts(plan=parametrised), "/api/views/customer_spend").json()
    assert [(f["n"], f["limit"], f["q"], f["length"]) for f in answer["schema"]] == [
        (5, None, None, None), (3, 1000, None, None), (None, None, 0.95, None), (None, None, None, 384),
    ]  # fmt: skip
    assert answer["ttl_us"] == 30 * 86_400_000_000


def test_an_unknown_fact_is_null_with_its_reason_and_never_zero(browse: Browse, make_facts: MakeFacts) -> None:
    away = Unknown("Redis is not reachable at 127.0.0.1:6379")
    facts = make_facts(views={"customer_spend": ViewFacts(away, away, away, away)})
    answer = browse(facts, "/api/views/customer_spend").json()
    assert (answer["state"], answer["lag"], answer["freshness_ms"], answer["check"]) == (None, None, None, None)
    assert answer["unknown"] == dict.fromkeys(
        ("state", "lag", "freshness_ms", "freshness_measured_at", "check"), away.reason
    )


def test_an_unknown_view_is_a_404_with_the_known_names(browse: Browse, make_facts: MakeFacts) -> None:
    response = browse(make_facts(), "/api/views/customer_spent")
    assert response.status_code == 404
    assert "Did you mean 'customer_spend'" in response.json()["error"]
    assert response.json()["known"] == ["customer_profile", "customer_spend", "product_demand"]
    assert browse(make_facts(), "/api/nothing").json()["known"][0] == "/api/views"


def test_services_are_listed_with_their_features(browse: Browse, make_facts: MakeFacts) -> None:
    answer = browse(make_facts(), "/api/services").json()
    assert answer["services"][0]["features"] == [
        "customer_spend:count_1h", "customer_spend:amount_sum_30d", "customer_profile:frequency",
    ]  # fmt: skip


def test_health_does_not_wait_for_slow_facts_as_pages_do(make_facts: MakeFacts) -> None:
    answered = threading.Event()

    class Slow(MemoryFacts):
        slow = False

        def read(self) -> Facts:
            assert not self.slow or answered.wait(20), "health waited for the reading"
            self.slow = True
            return self.facts

    async def ask() -> list[str]:
        app = make_app(Slow(make_facts()), max_age=0.0, patience=60.0)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://catalog") as client:
            said = [(await client.get("/health")).json()["status"] for _ in range(2)]
        answered.set()
        return said

    assert asyncio.run(ask()) == ["ok", "ok"]


def test_health_says_what_is_away(browse: Browse, make_facts: MakeFacts) -> None:
    assert browse(make_facts(), "/health").json() == {"status": "ok", "problems": []}
    degraded = browse(make_facts(problems=("Redis is away.",)), "/health")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
