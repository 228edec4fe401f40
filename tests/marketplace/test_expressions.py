"""Conditions of features are shown as a person would write them."""

from __future__ import annotations

import pytest

from headwater.expressions.parse import parse
from headwater.plans.plan import Feature, Field, StreamView
from marketplace.expressions import feature_conditions


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("quantity > 0", "quantity > 0"),
        ("unit_price > 0.5", "unit_price > 0.5"),
        ("country = 'Côte d''Ivoire'", "country = 'Côte d''Ivoire'"),
        ("country IS NOT NULL", "country IS NOT NULL"),
        ("quantity > 0 AND country IS NULL", "(quantity > 0) AND country IS NULL"),
        ("quantity * 2 > 3 OR upper(country) IN ('FRANCE', 'SPAIN')", None),
    ],
)
def test_a_condition_reads_as_it_was_written(written: str, shown: str | None) -> None:
    columns = {"quantity": "int64", "unit_price": "float64", "country": "string"}
    where = parse(written, columns, place="here")
    feature = Feature("count", "count", None, None, None, None, where, 6, "int64")
    view = StreamView("v", ("e",), (Field("k", "int64"),), "s", None, (), (feature,), "0" * 16)
    conditions = feature_conditions(view)
    assert shown is None or conditions == {"count": shown}
    assert parse(conditions["count"], columns, place="here") == where
