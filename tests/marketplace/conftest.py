"""A shop by hand: definitions as plans and measured facts, so that pages are tested without servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import msgspec
import pytest

from headwater.durations import DAY, HOUR, MINUTE, SECOND
from headwater.plans.plan import BatchView, Expectation, Feature, Field, Plan, Service, Source, StreamView
from headwater.receipts.results import Example, ViewCheck
from marketplace.app import make_app
from marketplace.facts import ExampleRow, Facts, Freshness, MemoryFacts, Unknown, ViewFacts

AT = 1_795_262_648_000_000  # 2026-11-21 12:04:08 UTC


def windowed(name: str, function: str, column: str | None, window: int | None, hop: int | None, dtype: str) -> Feature:
    return Feature(name, function, column, None, window, hop, None, 6, dtype)


SOURCE = Source(
    "invoice_lines", "shop.invoice_lines", "invoice_ts", "customer_id", DAY,
    (Field("invoice_no", "string"), Field("stock_code", "string"), Field("quantity", "int64"),
     Field("invoice_ts", "timestamp"), Field("unit_price", "float64"), Field("customer_id", "int64")),
    (Expectation("between", "unit_price", 0, 100_000),), "Every line of every invoice.", "growth@shop.example",
)  # fmt: skip
SPEND = StreamView(
    "customer_spend", ("customer",), (Field("customer_id", "int64"),), "invoice_lines", None, (),
    (windowed("count_1h", "count", None, HOUR, 5 * MINUTE, "int64"),
     windowed("amount_sum_1h", "sum", "amount", HOUR, 5 * MINUTE, "float64"),
     windowed("amount_sum_30d", "sum", "amount", 30 * DAY, DAY, "float64"),
     windowed("country_last", "last", "country", None, None, "string")),
    "0f3a9c51d2e47b86", 10 * SECOND, "growth@shop.example", "What a customer spent lately.",
    {"tier": "gold", "pii": "no"}, (Expectation("not_null", "country_last", mostly=0.99),),
    "customer_id IS NOT NULL AND quantity > 0", {"amount": "quantity * unit_price"},
)  # fmt: skip
DEMAND = StreamView(
    "product_demand", ("product",), (Field("stock_code", "string"),), "invoice_lines", None, (),
    (windowed("quantity_sum_1d", "sum", "quantity", DAY, HOUR, "int64"),), "77aa03b1c0ffee12",
    None, "supply@shop.example", "How much of a product sells.", {"tier": "silver"},
)  # fmt: skip
PROFILE = BatchView(
    "customer_profile", ("customer",), (Field("customer_id", "int64"),),
    "SELECT customer_id, count(*) AS frequency\nFROM invoice_lines\nWHERE invoice_ts < :as_of\nGROUP BY 1", 30 * DAY,
    (Field("frequency", "int64"), Field("monetary", "float64")), "5be1d3a0e4f79c22", None, "growth@shop.example",
    "Recency, frequency and monetary value.", {"tier": "gold"},
)  # fmt: skip
CHURN = Service(
    "churn", (("customer_spend", ("count_1h", "amount_sum_30d")), ("customer_profile", ("frequency",))),
    "growth@shop.example", "Will this customer leave?",
)  # fmt: skip
SHOP = Plan("shop", (SOURCE,), (SPEND, DEMAND, PROFILE), (CHURN,))

EQUAL = ViewCheck("customer_spend", AT - HOUR, 200, 200, 4372, 4372, {}, ())
LATE = ViewCheck("product_demand", AT - HOUR, 200, 200, 4070, 4067, {"late data": 3}, ())
BROKEN = ViewCheck(
    "customer_spend", AT - HOUR, 200, 199, 4372, 4370, {"defect": 2, "late data": 1},
    (Example("17850", "defect", "amount_sum_1h: 12.5 online, 13.5 in the lake"),),
)  # fmt: skip
MEASURED = {
    "customer_spend": ViewFacts("active", 0, Freshness(43.2, AT - SECOND), EQUAL),
    "product_demand": ViewFacts("filling", 1200, Freshness(95_000.0, AT - HOUR), LATE),
    "customer_profile": ViewFacts("active", Unknown("a batch view has no lag"), Unknown("no row was written yet"),
                                  Unknown("no check was recorded yet; run 'headwater check'")),
}  # fmt: skip


@pytest.fixture
def make_facts() -> Callable[..., Facts]:
    """Facts of the shop, any of them replaced."""

    def make(**replaced: object) -> Facts:
        given = {"project": "shop", "repository": "/srv/shop", "plan": SHOP, "origin": "the published plan",
                 "views": MEASURED, "measured_at": AT}  # fmt: skip
        return Facts(**(given | replaced))

    return make


@pytest.fixture
def broken_check() -> ViewCheck:
    """A check of customer_spend that found defects."""
    return BROKEN


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    """The shop's plan with fields of customer_spend replaced."""

    def make(**replaced: object) -> Plan:
        view = msgspec.structs.replace(SPEND, **replaced)
        return msgspec.structs.replace(SHOP, views=(view, DEMAND, PROFILE))

    return make


@pytest.fixture
def parametrised(make_plan: Callable[..., Plan]) -> Plan:
    """The shop with operators that take more than a column, a vector, a ttl, and an envelope."""
    made = [
        windowed("country_last_n", "last_n", "country", None, None, "list[string]"),
        windowed("country_top_k", "top_k", "country", DAY, HOUR, "counts[string]"),
        windowed("amount_p95", "approx_quantile", "amount", DAY, HOUR, "float64"),
        windowed("embedding", "latest", "embedding", None, None, "list[float64]"),
    ]
    given: list[dict[str, object]] = [{"n": 5}, {"n": 3, "limit": 1000}, {"q": 0.95}, {"length": 384}]
    features = tuple(msgspec.structs.replace(f, **g) for f, g in zip(made, given, strict=True))
    fields = (*SOURCE.fields, Field("embedding", "list[float64]", 384))
    source = msgspec.structs.replace(SOURCE, envelope="debezium", updates="count", fields=fields)
    return msgspec.structs.replace(make_plan(features=features, ttl=30 * DAY), sources=(source,))


@pytest.fixture
def examples() -> dict[str, tuple[ExampleRow, ...]]:
    """Rows that exist in the shop."""
    return {
        "customer_spend": (ExampleRow({"customer_id": 17850}, AT - SECOND), ExampleRow({"customer_id": 13047}, AT - 9)),
        "product_demand": (ExampleRow({"stock_code": "85123A"}, AT - DAY),),
    }


@pytest.fixture
def browse(examples: dict[str, tuple[ExampleRow, ...]]) -> Callable[..., httpx.Response]:
    """GETs one address of a catalog over the facts given, in this process."""

    def get(facts: Facts, address: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(make_app(MemoryFacts(facts, examples)))
            async with httpx.AsyncClient(transport=transport, base_url="http://catalog") as client:
                return await client.get(address)

        return asyncio.run(ask())

    return get
