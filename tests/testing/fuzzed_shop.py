"""A small repository to fuzz, and the command run in this process, so that the product can be broken on purpose."""

import json
from contextlib import redirect_stdout
from io import StringIO

from headwater.cli import cli
from headwater.errors import DefectsFound

DEFINITIONS = """
from feast import Entity, ValueType
from feast.types import Float64, Int64, String, UnixTimestamp
from headwater.definitions import BatchView, Between, Count, Last, Mean, StreamSource, StreamView, Sum

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
lines = StreamSource(
    name="lines", topic="fuzzed_lines", event_time="ts", key="customer_id", tolerance="1d",
    schema={"customer_id": Int64, "product": String, "quantity": Int64, "price": Float64, "ts": UnixTimestamp},
    expect=[Between("price", 0, 1000)],
)
spend = StreamView(
    name="spend", entity=customer, source=lines, where="quantity > 0",
    features=[Count(over=["1h"]), Sum("price", over=["1h", "1d"]), Mean("price", over=["1d"]), Last("product")],
)
profile = BatchView(
    name="profile", entity=customer, schema={"lines": Int64},
    sql="SELECT customer_id, count(*) AS lines FROM lines GROUP BY customer_id",
)
"""


def run_test(repository, *args):
    """`headwater test` in this process: whether it ended with DefectsFound (exit code 1), and what it printed."""
    printed = StringIO()
    with redirect_stdout(printed):
        try:
            cli.main(["-C", str(repository), "test", *map(str, args)], prog_name="headwater", standalone_mode=False)
        except DefectsFound:
            return True, printed.getvalue()
    return False, printed.getvalue()


def found_in(repository, *args):
    """The failure that `headwater test spend --json` prints."""
    failed, printed = run_test(repository, "spend", "--json", *args)
    assert failed, printed
    (view,) = json.loads(printed)["views"]
    return view["failure"]
