"""What stands on the pages, over facts that are given: no server is needed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from headwater.plans.plan import Plan
from marketplace.facts import Facts, MemoryFacts, Unknown, ViewFacts
from marketplace.latest import LatestFacts

Browse = Callable[[Facts, str], httpx.Response]
MakeFacts = Callable[..., Facts]


def text_of(page: str) -> str:
    """The page's visible words, one space between them."""
    words = re.sub(r"<[^>]+>", " ", page.split("<body>")[1])
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&#34;", '"'), ("&amp;", "&")):
        words = words.replace(entity, character)
    return " ".join(words.split())


def test_the_list_shows_each_view_with_its_evidence(browse: Browse, make_facts: MakeFacts) -> None:
    response = browse(make_facts(), "/")
    text = text_of(response.text)
    assert response.status_code == 200
    assert (
        "customer_spend stream What a customer spent lately. customer 4 features growth@shop.example "
        "Freshness 43 ms Last check 4,372 of 4,372 equal"
    ) in text
    assert "product_demand stream How much of a product sells. product 1 feature" in text
    assert "Freshness 95 s Last check 3 differ, explained" in text
    assert "customer_profile batch" in text
    assert "Freshness unknown Last check not checked" in text


def test_a_search_and_a_filter_narrow_the_list(browse: Browse, make_facts: MakeFacts) -> None:
    assert "1 view for product" in text_of(browse(make_facts(), "/?q=product").text)
    filtered = text_of(browse(make_facts(), "/?owner=growth%40shop.example&tag=tier%3Agold").text)
    assert "2 views" in filtered
    assert "How much of a product sells." not in filtered


def test_a_search_that_finds_nothing_says_so(browse: Browse, make_facts: MakeFacts) -> None:
    text = text_of(browse(make_facts(), "/?q=zzzzqq").text)
    assert "No view matches" in text
    assert "look through all 3" in text


def test_a_typing_error_is_named_on_the_page(browse: Browse, make_facts: MakeFacts) -> None:
    text = text_of(browse(make_facts(), "/?q=custmer").text)
    assert "Nothing has custmer ; shown is what has customer" in text


def test_a_view_page_shows_definition_windows_and_consumers(browse: Browse, make_facts: MakeFacts) -> None:
    text = text_of(browse(make_facts(), "/views/customer_spend").text)
    for said in (
        "Freshness now 43 ms target 10s, measured at 2026-11-21 12:04:07 UTC",
        "Lag 0 events", "Online served online", "Last check 4,372 of 4,372 equal",
        "Owner growth@shop.example", "tier: gold", "Keys customer_id int64", "Source invoice_lines topic",
        "Where customer_id IS NOT NULL AND quantity > 0", "Derives amount = quantity * unit_price",
        "Services churn", "State hash 0f3a9c51d2e47b86", "count_1h count events 1h 5m int64",
        "amount_sum_30d sum amount 30d 1d float64", "country_last last country lifetime none string",
        "country_last not null, for at least 99% of the values",
        "Receipts 200 of 200 equal", "Recomputed 4,372 of 4,372 equal",
    ):  # fmt: skip
        assert said in text


def test_a_view_page_shows_what_operators_were_given_and_how_long_vectors_are(
    browse: Browse, make_facts: MakeFacts, parametrised: Plan
) -> None:
    page = text_of(browse(make_facts(plan=parametrised), "/views/customer_spend").text)
    for said in ("country_last_n last_n n 5", "country_top_k top_k n 3, limit 1,000", "approx_quantile q 0.95",
                 "list[float64] of 384", "Served for 30d after a key's newest event"):  # fmt: skip
        assert said in page
    source = text_of(browse(make_facts(plan=parametrised), "/sources/invoice_lines").text)
    assert "Events JSON in Debezium's envelopes, updates are events" in source
    assert "embedding list[float64] of 384" in source


def test_a_batch_view_shows_its_sql_and_no_windows(browse: Browse, make_facts: MakeFacts) -> None:
    text = text_of(browse(make_facts(), "/views/customer_profile").text)
    assert "SQL SELECT customer_id, count(*) AS frequency FROM invoice_lines WHERE invoice_ts < :as_of" in text
    assert "Kept for 30d" in text
    assert "Hop" not in text


def test_defects_are_shown_with_causes_and_examples(browse: Browse, make_facts: MakeFacts, broken_check: Any) -> None:
    measured = make_facts().measured("customer_spend")
    facts = make_facts(views={"customer_spend": replace(measured, check=broken_check)})
    text = text_of(browse(facts, "/views/customer_spend").text)
    assert "Last check 2 defects" in text
    assert "Receipts 199 of 200 equal" in text
    assert "defect 2 late data 1" in text
    assert "17850 defect amount_sum_1h: 12.5 online, 13.5 in the lake" in text


def test_without_redis_pages_come_from_the_registry_and_say_what_is_unknown(
    browse: Browse, make_facts: MakeFacts
) -> None:
    away = Unknown("Redis is not reachable at 127.0.0.1:6379")
    facts = make_facts(
        origin="the registry", problems=(f"Online facts are unknown: {away.reason}.",),
        views={"customer_spend": ViewFacts(away, away, away, away)},
    )  # fmt: skip
    text = text_of(browse(facts, "/views/customer_spend").text)
    assert "Online facts are unknown: Redis is not reachable at 127.0.0.1:6379." in text
    assert "Freshness now unknown Redis is not reachable at 127.0.0.1:6379" in text
    assert "Lag unknown Redis is not reachable" in text
    assert "Definitions from the registry" in text
    assert " 0 events" not in text


def test_nothing_registered_yet_says_what_to_do(browse: Browse, make_facts: MakeFacts) -> None:
    facts = make_facts(plan=None, origin="", views={})
    text = text_of(browse(facts, "/").text)
    assert "Nothing is registered yet" in text
    assert "headwater -C /srv/shop apply" in text
    for address in ("/services", "/sources"):
        assert "headwater -C /srv/shop apply" in text_of(browse(facts, address).text)


def test_a_registry_that_cannot_be_read_is_named(browse: Browse, make_facts: MakeFacts) -> None:
    facts = make_facts(plan=None, origin="", views={}, plan_unknown="the file registry.db is damaged")
    assert "The definitions cannot be read the file registry.db is damaged." in text_of(browse(facts, "/").text)
    assert browse(facts, "/health").status_code == 503


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/views/custmer_spend", "There is no view 'custmer_spend'. Did you mean 'customer_spend'"),
        ("/services/chur", "There is no service 'chur'. Did you mean 'churn'?"),
        ("/sources/nothing", "There is no source 'nothing'. It has: invoice_lines."),
        ("/elsewhere", "Nothing lies at /elsewhere."),
    ],
)
def test_an_unknown_name_is_a_404_with_the_nearest_names(
    browse: Browse, make_facts: MakeFacts, address: str, said: str
) -> None:
    response = browse(make_facts(), address)
    assert response.status_code == 404
    assert said in text_of(response.text)


def test_services_and_sources_have_pages(browse: Browse, make_facts: MakeFacts) -> None:
    assert "churn Will this customer leave? customer_spend (2) customer_profile (1)" in text_of(
        browse(make_facts(), "/services").text
    )
    service = text_of(browse(make_facts(), "/services/churn").text)
    assert "customer_spend count_1h , amount_sum_30d 43 ms 4,372 of 4,372 equal" in service
    assert 'store.get_feature_service("churn")' in service
    source = text_of(browse(make_facts(), "/sources/invoice_lines").text)
    assert "Topic shop.invoice_lines" in source
    assert "unit_price between 0 and 100,000" in source
    assert "Views customer_spend , product_demand" in source


def test_all_that_users_write_is_escaped(browse: Browse, make_facts: MakeFacts, make_plan: Any) -> None:
    attack = "<script>alert('x')</script>\"'>"
    plan = make_plan(
        description=attack, owner=attack, tags={attack: attack}, where_text=attack, derive_text={attack: attack}
    )
    for address in ("/", "/views/customer_spend", f"/?q={attack}", f"/views/{attack}", "/services/churn"):
        page = browse(make_facts(plan=plan), address).text
        assert "<script>" not in page
        assert attack not in page


def test_pages_load_nothing_from_elsewhere(browse: Browse, make_facts: MakeFacts) -> None:
    for address in ("/", "/views/customer_spend", "/services/churn", "/sources/invoice_lines", "/api"):
        response = browse(make_facts(), address)
        loaded = re.findall(r'(?:src|href)="([^"]+)"', response.text)
        assert loaded
        assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in loaded)
        assert "default-src 'none'" in response.headers["content-security-policy"]
    css = browse(make_facts(), "/static/catalog.css")
    assert css.status_code == 200
    assert "url(" not in css.text
    assert "@import" not in css.text


def test_every_link_on_the_pages_leads_somewhere(browse: Browse, make_facts: MakeFacts) -> None:
    seen, waiting = set(), ["/"]
    while waiting:
        address = waiting.pop()
        response = browse(make_facts(), address)
        assert response.status_code == 200, address
        seen.add(address)
        if "html" in response.headers["content-type"]:
            links = {link.replace("&amp;", "&") for link in re.findall(r'href="(/[^"]*)"', response.text)}
            # Filters combine without end; one at a time is enough here.
            waiting += [x for x in links - seen - set(waiting) if x.count("=") <= 1]
    assert {"/views/customer_spend", "/services/churn", "/sources/invoice_lines", "/api", "/health"} <= seen


def test_a_page_does_not_wait_for_slow_facts_and_shows_older_ones(make_facts: MakeFacts) -> None:
    class Slow(MemoryFacts):
        def read(self) -> Facts:
            time.sleep(0.2)
            return self.facts

    latest = LatestFacts(Slow(make_facts()), max_age=0.0, patience=0.02)
    assert latest.get() is None
    time.sleep(0.3)
    assert latest.get() == make_facts()
    latest.close()


def test_facts_that_may_be_wrong_by_now_say_how_old_they_are(make_facts: MakeFacts) -> None:
    reading = threading.Event()

    class Stuck(MemoryFacts):
        def read(self) -> Facts:
            reading.wait(20)
            return self.facts

    latest = LatestFacts(Stuck(make_facts()), max_age=0.0, patience=0.02, old=0.0)
    assert latest.get() is None
    reading.set()
    while latest.get() is None:
        time.sleep(0.01)
    reading.clear()
    aged = latest.get()
    reading.set()
    latest.close()
    assert aged is not None
    assert any("Reading newer facts takes long: what is shown was measured" in p for p in aged.problems)
