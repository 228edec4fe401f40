"""The shop: an online gift retailer's invoice lines become features of customers and products.

One Kafka topic feeds three views, by customer, by product, and by product and country; a
fourth view sums up each customer's history once a run. Replace it with your own.
"""

from feast import Entity, FeatureService, ValueType
from feast.types import Float64, Int64, String, UnixTimestamp

from headwater.definitions import (
    ApproxDistinct,
    BatchView,
    Between,
    Count,
    Last,
    Max,
    Mean,
    Min,
    NotNull,
    StreamSource,
    StreamView,
    Sum,
)

customer = Entity(
    name="customer",
    join_keys=["customer_id"],
    value_type=ValueType.INT64,
    description="A registered customer. Guests have no customer_id and belong to no customer's row.",
    owner="growth@shop.example",
)

product = Entity(
    name="product",
    join_keys=["stock_code"],
    value_type=ValueType.STRING,
    description="A stock code. Some are no products but postage, discounts or manual corrections.",
    owner="merchandising@shop.example",
)

market = Entity(
    name="market",
    join_keys=["country"],
    value_type=ValueType.STRING,
    description="The country that an invoice goes to.",
    owner="merchandising@shop.example",
)

invoice_lines = StreamSource(
    name="invoice_lines",
    topic="invoice_lines",
    event_time="invoice_ts",
    key="customer_id",
    tolerance="1d",
    schema={
        "invoice_no": String,
        "stock_code": String,
        "description": String,
        "quantity": Int64,
        "invoice_ts": UnixTimestamp,
        "unit_price": Float64,
        "customer_id": Int64,
        "country": String,
    },
    expect=[Between("unit_price", 0, 100_000), NotNull("stock_code")],
    description="One event for each line of an invoice, as the till writes it. Returns have negative quantities; "
    "invoice numbers of cancellations begin with C.",
    owner="platform@shop.example",
    tags={"domain": "sales", "pii": "customer_id"},
)

customer_spend = StreamView(
    name="customer_spend",
    entity=customer,
    source=invoice_lines,
    where="customer_id IS NOT NULL AND quantity > 0",
    derive={"amount": "quantity * unit_price"},
    features=[
        Count(over=["1h", "1d", "30d"]),
        Sum("amount", over=["1h", "1d", "30d"]),
        Mean("amount", over=["30d"]),
        Max("amount", over=["30d"]),
        ApproxDistinct("stock_code", over=["30d"]),
        Last("country"),
    ],
    owner="growth@shop.example",
    description="What a customer spent lately: lines bought, money spent, different products, and where to. "
    "Returns do not count.",
    tags={"domain": "sales", "tier": "gold", "pii": "no"},
    freshness="10s",
    expect=[Between("amount_sum_1h", 0, 100_000), NotNull("country_last", mostly=0.99)],
)

product_demand = StreamView(
    name="product_demand",
    entity=product,
    source=invoice_lines,
    derive={"amount": "quantity * unit_price"},
    features=[
        Count(over=["1h", "1d", "7d"], where="quantity > 0", name="orders"),
        Count(over=["30d"], where="quantity < 0", name="returns_30d"),
        Sum("quantity", over=["1d", "7d", "30d"]),
        Sum("amount", over=["30d"]),
        Mean("unit_price", over=["30d"], where="unit_price > 0"),
        Min("unit_price", over=["30d"], where="unit_price > 0"),
        Max("unit_price", over=["30d"], where="unit_price > 0"),
        ApproxDistinct("customer_id", over=["30d"]),
        Last("invoice_ts"),
    ],
    owner="merchandising@shop.example",
    description="How a product sells: orders, units (returns taken off), takings, its price, and how many different "
    "customers buy it.",
    tags={"domain": "merchandising", "tier": "gold", "pii": "no"},
    freshness="30s",
    expect=[Between("unit_price_max_30d", 0, 100_000), Between("returns_30d", 0)],
)

product_country_demand = StreamView(
    name="product_country_demand",
    entities=[product, market],
    source=invoice_lines,
    where="quantity > 0",
    features=[
        Count(over=["1d", "30d"]),
        Sum("quantity", over=["1d", "30d"]),
        Mean("unit_price", over=["30d"]),
        ApproxDistinct("customer_id", over=["30d"]),
    ],
    owner="merchandising@shop.example",
    description="How a product sells in one country, returns left out: for stock planning by market.",
    tags={"domain": "merchandising", "tier": "silver", "pii": "no"},
    freshness="1m",
    expect=[Between("quantity_sum_30d", 0)],
)

customer_profile = BatchView(
    name="customer_profile",
    entity=customer,
    sql="""
        SELECT
            customer_id,
            date_diff('day', CAST(max(invoice_ts) AS DATE), CAST(:as_of AS DATE)) AS recency_days,
            count(DISTINCT invoice_no) AS frequency,
            sum(quantity * unit_price) AS monetary,
            sum(quantity * unit_price) / count(DISTINCT invoice_no) AS basket_value
        FROM invoice_lines
        WHERE customer_id IS NOT NULL AND quantity > 0 AND invoice_ts < :as_of
        GROUP BY customer_id
    """,
    ttl="30d",
    owner="growth@shop.example",
    description="Recency, frequency and monetary value of a customer over the whole history, as of the snapshot.",
    tags={"domain": "sales", "tier": "gold", "pii": "no"},
    freshness="2d",
    expect=[
        Between("recency_days", 0),
        Between("frequency", 1),
        Between("monetary", 0, 10_000_000),
        NotNull("basket_value"),
    ],
)

churn = FeatureService(
    name="churn",
    features=[
        customer_spend[["count_30d", "amount_sum_30d", "amount_mean_30d", "stock_code_approx_distinct_30d"]],
        customer_profile[["recency_days", "frequency", "monetary"]],
    ],
    description="Inputs of the model that tells which customers are about to leave.",
    owner="growth@shop.example",
    tags={"model": "churn", "domain": "sales"},
)
