"""A small shop, published and filled without Kafka or Feast: what tests of reading read."""

import uuid

import msgspec
import numpy as np

from headwater.columns import Column
from headwater.durations import DAY, HOUR
from headwater.events.batch import Events
from headwater.events.select import select
from headwater.online.connection import Connection
from headwater.online.keys import entity_key, fill_key, plan_id_key, plan_key, row_prefix
from headwater.online.plain_writes import write_plain_rows
from headwater.online.published import Active, Fill, PublishedPlan
from headwater.plans.plan import CODEC_VERSION, BatchView, Feature, Field, Plan, Service, Source, StreamView
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of

NOON = 1_323_432_000_000_000  # 2011-12-09T12:00:00Z

SOURCE = Source(
    "lines", "lines", "at", "customer_id", DAY,
    (Field("customer_id", "int64"), Field("country", "string"), Field("quantity", "int64"), Field("at", "timestamp")),
)  # fmt: skip
SPEND = StreamView(
    "spend", ("customer",), (Field("customer_id", "int64"),), "lines", None, (),
    (
        Feature("count_1h", "count", None, None, HOUR, 300_000_000, None, 0, "int64"),
        Feature("quantity_sum_1h", "sum", "quantity", "int64", HOUR, 300_000_000, None, 0, "int64"),
        Feature("country_last", "last", "country", "string", None, None, None, 0, "string"),
    ),
    "aaaa000000000001",
)  # fmt: skip
DEMAND = StreamView(
    "demand", ("customer", "country"), (Field("customer_id", "int64"), Field("country", "string")), "lines", None, (),
    (Feature("count", "count", None, None, None, None, None, 0, "int64"),),
    "aaaa000000000002",
)  # fmt: skip
PROFILE = BatchView(
    "profile", ("customer",), (Field("customer_id", "int64"),), "", DAY,
    (Field("recency", "float64"), Field("name", "string"), Field("joined", "timestamp"), Field("gold", "bool")),
    "aaaa000000000003",
)  # fmt: skip
UNFILLED = BatchView("later", ("customer",), PROFILE.keys, "", None, (Field("x", "int64"),), "aaaa000000000004")
SERVICE = Service("churn", (("spend", ("count_1h", "country_last")), ("profile", ("name",))))

EVENTS = [  # customer, country, quantity, event time
    (1, "France", 2, NOON - 30 * 60_000_000),
    (1, "Spain", 3, NOON - 20 * 60_000_000),
    (1, "France", 5, NOON - 3 * HOUR),
    (2, "a|b\\", 7, NOON - 10 * 60_000_000),
]


class Shop:
    """`project`, the published `plan`, and its `connection` to Redis."""

    def __init__(self, url):
        self.url, self.project = url, f"t{uuid.uuid4().hex[:8]}"
        self.connection = Connection(url)
        self.definition = Plan(self.project, (SOURCE,), (SPEND, DEMAND, PROFILE, UNFILLED), (SERVICE,))
        self.publish({view.name: Active("f1", view) for view in (SPEND, DEMAND, PROFILE)})
        self.feed(SPEND, "f1")
        self.feed(DEMAND, "f1")
        write_plain_rows(
            self.connection, self.project, PROFILE, "f1", [Column.of("int64", [1, 2])],
            {
                "recency": Column.of("float64", [0.1, None]), "name": Column.of("string", ["Ada 🦆", "Bob"]),
                "joined": Column.of("timestamp", [NOON - 5 * DAY, None]), "gold": Column.of("bool", [True, False]),
            },
            np.array([NOON - HOUR, NOON - 2 * DAY]),
        )  # fmt: skip

    def publish(self, active, definition=None):
        """Publish with these active fills under a new id."""
        self.plan = PublishedPlan(uuid.uuid4().hex, definition or self.definition, active, codec=CODEC_VERSION)
        for name, each in active.items():
            record = Fill(each.fill, name, each.definition.state_hash, None, None, 1, "active")
            self.connection.command("SET", fill_key(self.project, name, each.fill), msgspec.json.encode(record))
        self.connection.command("SET", plan_key(self.project), msgspec.json.encode(self.plan))
        self.connection.command("SET", plan_id_key(self.project), self.plan.id)

    def feed(self, view, fill, events=EVENTS):
        """Write the rows of the events (offsets count up from 10 in partition 0)."""
        columns = list(zip(*events, strict=True))
        n = len(events)
        batch = Events(
            "lines",
            {f.name: Column.of(f.dtype, c) for f, c in zip(SOURCE.fields, columns, strict=True)},
            np.zeros(n, np.int64), np.arange(10, 10 + n), np.array(columns[3]),
        )  # fmt: skip
        prefix = row_prefix(self.project, view.name, view.state_hash, fill)
        for row in fold(layout_of(view), select(view, batch), born=0):
            self.connection.command("SET", prefix + entity_key(row.key), row.data)
