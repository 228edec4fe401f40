"""Trees are shown as a person would write them (that parsing gives them back: tests/properties)."""

from __future__ import annotations

import pytest

from headwater.dtypes import Dtype
from headwater.expressions.parse import parse
from headwater.expressions.readable import readable

COLUMNS: dict[str, Dtype] = {
    "quantity": "int64", "unit_price": "float64", "country": "string", "at": "timestamp", "ok": "bool", "order": "int64",
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("quantity > 0", None),
        ("unit_price > 0", "unit_price > 0.0"),
        ("quantity > 1.5", None),
        ("country = 'Côte d''Ivoire'", None),
        ("(quantity > 0) AND (country IS NOT NULL)", "quantity > 0 AND country IS NOT NULL"),
        ("ok AND (quantity > 0 OR NOT ok)", None),
        ("upper(country) NOT IN ('FRANCE', 'SPAIN')", None),
        ("country NOT LIKE 'a%'", None),
        ("quantity BETWEEN 1 AND 3", "quantity >= 1 AND quantity <= 3"),
        ("(quantity * 2) - (3 - quantity) = -quantity", "quantity * 2 - (3 - quantity) = -quantity"),
        ("CAST(quantity AS DOUBLE) = CAST(\"order\" AS DOUBLE)", None),
        ("quantity / 2 > 1", "quantity / 2.0 > 1.0"),
        ("NOT (quantity > 1)", None),
        ("at >= TIMESTAMP '2011-01-31 08:26:00'", None),
        ("CASE WHEN ok THEN 'a' END = 'b'", None),
        ("date_trunc('day', at) = at", None),
    ],
)  # fmt: skip
def test_a_condition_reads_as_it_was_written(written: str, shown: str | None) -> None:
    assert readable(parse(written, COLUMNS, place="here")) == (shown or written)
