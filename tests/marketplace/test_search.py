"""Search by words: what matches, in which order, and what happens to typing errors."""

from __future__ import annotations

import pytest

from headwater.plans.plan import BatchView, Field, View
from marketplace.search import Query, search


def view(name: str, *, features: tuple[str, ...] = ("x",), description: str = "", **more: object) -> View:
    fields = tuple(Field(f, "int64") for f in features)
    return BatchView(name, ("customer",), (Field("customer_id", "int64"),), "SELECT 1", None, fields, "0" * 16,
                     description=description, **more)  # fmt: skip


def names(views: list[View], words: str, **filters: str) -> list[str]:
    return [v.name for v in search(views, Query(words, **filters)).views]


def test_without_words_every_view_comes_in_the_order_of_names() -> None:
    assert names([view("b"), view("c"), view("a")], "  ") == ["a", "b", "c"]


def test_a_name_counts_more_than_a_feature_and_a_feature_more_than_a_description() -> None:
    views = [
        view("a", description="All about revenue."),
        view("b", features=("revenue_sum_1h",)),
        view("customer_revenue"),
        view("revenue"),
        view("unrelated"),
    ]
    assert names(views, "revenue") == ["revenue", "customer_revenue", "b", "a"]


def test_every_word_must_match() -> None:
    views = [view("customer_spend"), view("product_spend"), view("customer_age")]
    assert names(views, "Spend product") == ["product_spend"]


@pytest.mark.parametrize(("typed", "meant"), [("custmer", "customer"), ("spned", "spend"), ("prodct", "product")])
def test_a_typing_error_finds_the_nearest_word_and_says_so(typed: str, meant: str) -> None:
    views = [view("customer_age"), view("customer_spend"), view("product_spend")]
    found = search(views, Query(typed))
    assert found.replaced == {typed: meant}
    assert [v.name for v in found.views] == names(views, meant)


def test_a_word_that_is_near_nothing_finds_nothing() -> None:
    found = search([view("customer_spend")], Query("zzzzqq"))
    assert (found.views, found.replaced) == ((), {})


def test_owner_tags_and_entities_are_searched() -> None:
    views = [view("a", owner="growth@shop.example"), view("b", tags={"tier": "gold"}), view("c")]
    assert names(views, "growth@shop.example") == ["a"]
    assert names(views, "gold") == ["b"]
    assert names(views, "customer") == ["a", "b", "c"]


def test_filters_are_exact_and_narrow_the_search() -> None:
    views = [view("a", owner="x", tags={"tier": "gold"}), view("b", owner="x"), view("c", owner="xy")]
    assert names(views, "", owner="x") == ["a", "b"]
    assert names(views, "", owner="x", tag="tier:gold") == ["a"]
    assert names(views, "", tag="tier") == ["a"]
    assert names(views, "", tag="tier:silver") == []
    assert names(views, "", entity="product") == []


def test_words_in_other_scripts_are_found() -> None:
    assert names([view("a", description="Umsätze je Kundin"), view("b", description="顧客の売上")], "umsätze") == ["a"]
    assert names([view("a", description="Umsätze je Kundin"), view("b", description="顧客の売上")], "売上") == ["b"]
