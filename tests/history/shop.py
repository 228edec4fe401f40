"""A small repository for tests of training sets: its definitions, its events in a lake, and how they are written."""

import json

import numpy as np

from headwater.events.admission import Admission
from headwater.lake import Lake
from headwater.lake.event_rows import event_rows

DAY = 86_400_000_000
NOON = 1_323_432_000_000_000  # 2011-12-09 12:00 UTC

DEFINITIONS = """
from feast import Entity, FeatureService, ValueType
from feast.types import Float64, Int64, String, UnixTimestamp
from headwater.definitions import ApproxDistinct, BatchView, Count, Last, StreamSource, StreamView, Sum

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
product = Entity(name="product", join_keys=["stock_code"], value_type=ValueType.STRING)
lines = StreamSource(
    name="lines", topic="history_lines", event_time="ts", key="customer_id", tolerance="1d",
    schema={"customer_id": Int64, "stock_code": String, "quantity": Int64, "price": Float64, "ts": UnixTimestamp},
)
spend = StreamView(
    name="spend", entity=customer, source=lines, where="quantity > 0", derive={"amount": "quantity * price"},
    features=[Count(over=["1d"]), Sum("amount", over=["1d"]), Last("stock_code"), Last("ts")],
)
pairs = StreamView(
    name="pairs", entities=[customer, product], source=lines,
    features=[Sum("quantity"), ApproxDistinct("price", over=["30d"])],
)
profile = BatchView(
    name="profile", entity=customer, ttl="2d", schema={"lines": Int64, "favourite": String},
    sql="SELECT customer_id, count(*) AS lines, max(stock_code) AS favourite FROM lines "
        "WHERE customer_id IS NOT NULL GROUP BY customer_id",
)
churn = FeatureService(name="churn", features=[spend[["count_1d"]], profile])
"""

EVENTS = [
    # customer, stock_code, quantity, price, us before noon
    (1, "tea", 2, 1.25, 3_600_000_000),
    (1, "cup", 1, 3.0, 1),
    (1, "cup", -1, 3.0, 0),
    (2, "tea", 1, 1.25, 2 * DAY),
    (None, "tea", 9, 9.0, 5),
    (1, "🫖", 1, 20.0, 40 * DAY),
]


def fill_lake(lake: Lake, source, events=EVENTS, arrived_at=NOON, first_offset=0):
    """Write events of (customer, stock_code, quantity, price, microseconds before noon) to the lake."""
    names = ("customer_id", "stock_code", "quantity", "price")
    records = [
        json.dumps(dict(zip(names, event[:4], strict=True)) | {"ts": NOON - event[4]}).encode() for event in events
    ]
    n = len(records)
    offsets, times = np.arange(first_offset, first_offset + n), np.full(n, NOON)
    admitted = Admission(source).admit(records, np.zeros(n, np.int64), offsets, times)
    rows = event_rows(source, admitted, times, np.full(n, 2, np.int8), arrived_at)
    lake.writer(source, "T1").append(rows, {0: first_offset}, {0: first_offset + n})
