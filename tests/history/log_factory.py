"""Views, events and questions for tests, from literals."""

import numpy as np

from headwater.columns import Column
from headwater.events.batch import Events
from headwater.history.local import Questions
from headwater.plans.plan import Derived, Feature, Field, Source, StreamView

HOUR = 3_600_000_000
MINUTE = 60_000_000
FIELDS = {
    "customer": "int64", "product": "string", "ts": "timestamp", "price": "float64", "quantity": "int64",
    "paid": "bool", "raw": "bytes",
}  # fmt: skip
RESULTS = {
    "count": "int64", "distinct": "int64", "approx_distinct": "int64", "mean": "float64", "var": "float64", "stddev": "float64",
    "approx_quantile": "float64",
}  # fmt: skip
ALL_FUNCTIONS = [
    ("count", None), ("sum", "price"), ("mean", "price"), ("min", "price"), ("max", "price"), ("last", "price"),
    ("approx_distinct", "price"), ("sum", "quantity"), ("mean", "quantity"), ("min", "quantity"),
    ("max", "quantity"), ("last", "quantity"), ("approx_distinct", "quantity"), ("min", "product"),
    ("max", "product"), ("last", "product"), ("approx_distinct", "product"), ("min", "ts"), ("max", "ts"),
    ("last", "ts"), ("approx_distinct", "ts"), ("last", "paid"), ("min", "paid"), ("approx_distinct", "paid"),
    ("last", "raw"), ("approx_distinct", "raw"),
    ("var", "price"), ("stddev", "price"), ("var", "quantity"), ("stddev", "quantity"),
    ("first", "price"), ("first", "quantity"), ("first", "product"), ("first", "ts"), ("first", "paid"),
    ("first", "raw"), ("min", "raw"), ("max", "raw"),
    ("last_n", "price"), ("last_n", "quantity"), ("last_n", "product"), ("last_n", "ts"), ("last_n", "paid"),
    ("last_n", "raw"),
    ("distinct", "price"), ("distinct", "quantity"), ("distinct", "product"), ("distinct", "ts"), ("distinct", "paid"),
    ("distinct", "raw"),
    ("top_k", "price"), ("top_k", "quantity"), ("top_k", "product"), ("top_k", "ts"), ("top_k", "paid"),
    ("top_k", "raw"),
    ("approx_quantile", "price"), ("approx_quantile", "quantity"),
    ("latest", "price"), ("latest", "quantity"), ("latest", "product"), ("latest", "ts"), ("latest", "paid"),
    ("latest", "raw"),
]  # fmt: skip
"""Every function with every type of column that it takes."""
SOURCE = Source(
    name="lines", topic="lines", event_time="ts", key="customer", tolerance=0,
    fields=tuple(Field(name, dtype) for name, dtype in FIELDS.items()),
)  # fmt: skip


def make_feature(
    function,
    column=None,
    window=HOUR,
    hop=5 * MINUTE,
    scale=6,
    where=None,
    name=None,
    dtypes=FIELDS,
    n=None,
    limit=None,
    q=None,
):
    """A feature of a plan; `column` None for count."""
    dtype = dtypes.get(column)
    lists = {"last_n": f"list[{dtype}]", "top_k": f"counts[{dtype}]"}
    out = (RESULTS | lists).get(function, dtype)
    n = 3 if n is None and function in lists else n
    q = 0.5 if q is None and function == "approx_quantile" else q
    limit = 4 if limit is None and function in ("distinct", "top_k") else limit
    name = name or f"{column}_{function}_{window}"
    hop = None if window is None else hop
    return Feature(name, function, column, dtype, window, hop, where, scale, out, n, limit, q)


def make_view(*features, keys=("customer",), where=None, derive=()):
    """A StreamView over SOURCE."""
    fields = tuple(Field(k, FIELDS[k]) for k in keys)
    return StreamView("spend", keys, fields, "lines", where, tuple(Derived(*d) for d in derive), features, "0" * 16)


def make_events(rows, partitions=None):
    """Events of dicts (missing columns are null); offsets are positions unless a row says `_offset`."""
    full = [
        {**dict.fromkeys(FIELDS), "_partition": 0, "_offset": i, "_arrived_at": row.get("ts", 0)} | row
        for i, row in enumerate(rows)
    ]
    columns = {name: Column.of(dtype, [r[name] for r in full]) for name, dtype in FIELDS.items()}
    place = [np.array([r[n] for r in full], np.int64) for n in ("_partition", "_offset")]
    return Events("lines", columns, place[0], place[1], columns["ts"].values), full


def make_questions(rows, keys=("customer",)):
    """Questions of (key values, at) pairs; `at` may be None."""
    columns = [Column.of(FIELDS[k], [row[0][i] for row in rows]) for i, k in enumerate(keys)]
    at = Column.of("timestamp", [row[1] for row in rows])
    return Questions(columns, at.values, at.valid)


def answers(result):
    """The columns of a read as a list of dicts, one a row."""
    lists = {name: column.to_list() for name, column in result.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
