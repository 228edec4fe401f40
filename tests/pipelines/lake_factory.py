"""A lake with events of tests/history/log_factory.SOURCE, written as the sink writes them."""

import random

import numpy as np
import pyarrow as pa

from headwater.lake import Lake
from headwater.lake.event_rows import event_schema
from tests.history.log_factory import FIELDS, HOUR, MINUTE, SOURCE

NOON = 1_320_000_000_000_000 // HOUR * HOUR
DAY = 24 * HOUR


def write_events(lake: Lake, rows: list[dict], source=SOURCE) -> None:
    """Append dicts (missing columns are null) at the ends of their partitions, with their doubles as they are."""
    writer = lake.writer(source, "topic-id")
    full = [{"_broker_time": 0, "_arrived_at": 0, "_timestamp_type": 2, **row} for row in rows]
    arrays = []
    for field in event_schema(source):
        items = [row.get(field.name) for row in full]
        if pa.types.is_timestamp(field.type):
            arrays.append(pa.array(items, pa.int64()).cast(field.type))
        else:
            arrays.append(pa.array(items, field.type))
    ends: dict[int, int] = {}
    for row in rows:
        ends[row["_partition"]] = max(ends.get(row["_partition"], 0), row["_offset"] + 1)
    writer.append(pa.Table.from_arrays(arrays, schema=event_schema(source)), {}, ends)


def dirty_rows(count: int, seed: int = 7) -> list[dict]:
    """Events with all that hurts: nulls, NaN, infinities, -0.0, ties of the scale, huge integers, odd texts, ties
    of time, times on hop borders, before 1970 and after the read."""
    pick = random.Random(seed)
    rows = []
    for i in range(count):
        row = dict.fromkeys(FIELDS) | {
            "customer": pick.choice([None, 1, 1, 1, 2, 2, 3, 2**63 - 1, -(2**63)]),
            "product": pick.choice([None, "", "é", "e\u0301", "🫖🧁", "10", "9", "C|1", "\\",
                                    *(f"p{pick.randrange(2000)}" for _ in range(8))]),
            "ts": pick.choice([
                NOON - pick.randrange(3 * HOUR), NOON - 5 * MINUTE * pick.randrange(400),
                NOON - DAY * pick.randrange(60), NOON, NOON + pick.randrange(HOUR), NOON - 1, -pick.randrange(DAY),
            ]),
            "price": pick.choice([
                None, float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 2.55, 0.0000005, -0.0000005, 1e300, 9.2e12,
                pick.uniform(-1e6, 1e6), round(pick.uniform(0, 100), 2),
            ]),
            "quantity": pick.choice([None, 0, pick.randrange(-5, 6), pick.randrange(-(2**40), 2**40), 2**53 + 1]),
            "paid": pick.choice([None, True, False]),
            "raw": pick.choice([None, b"", b"\x00\xff", b"7", bytes([pick.randrange(256), pick.randrange(256)])]),
            "_partition": i % 2, "_offset": i // 2,
        }  # fmt: skip
        rows.append(row)
    rejected = {"_kind": "dead-letter", "_reason": "no JSON", "_raw": b"{", "_partition": 0, "_offset": count}
    return [*rows, dict.fromkeys(FIELDS) | rejected]


def same_bits(left: pa.Table, right: pa.Table) -> None:
    """Equal names, types, nulls and values, doubles by their bits."""
    assert left.schema == right.schema
    for name in left.column_names:
        a, b = left[name].combine_chunks(), right[name].combine_chunks()
        if a.type == pa.float64():
            assert a.is_valid().equals(b.is_valid()), name
            x, y = (c.fill_null(0.0).to_numpy().view(np.int64) for c in (a, b))
            assert (x == y).all(), (name, [(i, a[i], b[i]) for i in np.flatnonzero(x != y)[:3]])
        else:
            assert a.equals(b), (name, [(i, p, q) for i, (p, q) in enumerate(zip(a, b, strict=True)) if p != q][:3])
