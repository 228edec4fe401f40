"""Views that the proof adds to the shop's: every operator, several windows, hops and conditions, by customer and by product.

Copied into the proof's repository, where Feast's rule imports it beside definitions.py.
"""

from definitions import customer, invoice_lines, product  # type: ignore[import-not-found]

from headwater.definitions import (
    ApproxQuantile,
    Count,
    Distinct,
    First,
    Last,
    LastN,
    Max,
    Mean,
    Stddev,
    StreamView,
    Sum,
    TopK,
    Var,
)

DESCRIPTION = "Every operator, for the proof."

customer_operators = StreamView(
    name="customer_operators",
    entity=customer,
    source=invoice_lines,
    where="customer_id IS NOT NULL",
    derive={"amount": "quantity * unit_price", "per_unit": "unit_price / quantity"},
    features=[
        Count(over=["2h"], hop="10m", name="count_2h_by_10m"),
        Count(over="all", where="quantity < 0", name="returns"),
        Sum("quantity", over="all"),
        Sum("amount", over=["1d", "7d"], where="quantity > 0"),
        Mean("per_unit", over=["30d"]),
        Var("amount", over=["1d", "30d"]),
        Stddev("quantity", over=["30d"], where="quantity > 0"),
        First("stock_code", over=["7d"]),
        First("amount"),
        Last("description", over=["1d"]),
        LastN("stock_code", n=5, over=["1d", "30d"]),
        LastN("amount", n=3, over=["30d"], where="quantity > 0"),
        Distinct("stock_code", over=["30d"]),
        Distinct("invoice_no", over=["7d"], limit=3),
        TopK("stock_code", n=3, over=["30d"]),
        ApproxQuantile("amount", q=0.5, over=["30d"]),
        ApproxQuantile("quantity", q=0.95, over=["7d"]),
    ],
    owner="proof@shop.example",
    description=DESCRIPTION,
    freshness="10s",
)

product_operators = StreamView(
    name="product_operators",
    entity=product,
    source=invoice_lines,
    features=[
        Var("unit_price", over=["7d"]),
        First("invoice_ts", over=["7d"]),
        LastN("customer_id", n=4, over=["7d"]),
        Distinct("country", over=["30d"]),
        TopK("country", n=2, over=["7d"]),
        TopK("customer_id", n=2, over=["1d"], limit=20),
        ApproxQuantile("unit_price", q=0.9, over=["1d"]),
        Max("description", over=["7d"]),
    ],
    owner="proof@shop.example",
    description=DESCRIPTION,
    freshness="10s",
)
