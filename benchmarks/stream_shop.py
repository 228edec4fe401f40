"""What the stream benchmark feeds on: the shop's view, drawn events with 40 days of history, and the right values.

Apart from stream.py because it is data, made with seeds. The values that every row must give in the end are
computed here by Polars' group_by over all events, by the window law and by nothing of the library but the view's
definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.durations import DAY, HOUR, MINUTE, SECOND
from headwater.events.batch import Events
from headwater.events.select import select
from headwater.online.keys import entity_key
from headwater.plans.plan import Feature, Plan, Source, StreamView, stream_state_hash
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of
from headwater.rows.reader import ViewReader
from headwater.windows.law import window_start

VIEW = "customer_spend"
PARTITIONS = 4
HISTORY_DAYS = 40
PRODUCTS, COUNTRIES = 3_900, 37


@dataclass(frozen=True)
class Drawn:
    """Events of `customers` customers: those in the topic, in its order, and the 40 days before them, in rows already.

    A history event's place is offset 0 of its partition, where the topic holds one record that nobody reads.
    """

    customers: int
    events: pl.DataFrame
    history: pl.DataFrame
    end: int


def shop_plan(topic: str, *, distinct: bool) -> Plan:
    """The shop's definitions, compiled, with this one view over this topic; with or without its distinct count."""
    from headwater.definitions.repositories import repository_plan
    from headwater.repository import load_repository

    plan = repository_plan(load_repository(Path(__file__).resolve().parent.parent / "feature_repo"))
    view = plan.view(VIEW)
    assert isinstance(view, StreamView)
    source = msgspec.structs.replace(plan.source(view.source), topic=topic)
    kept = tuple(f for f in view.features if distinct or f.function != "approx_distinct")
    view = msgspec.structs.replace(view, features=kept)
    view = msgspec.structs.replace(view, state_hash=stream_state_hash(view, source))
    return Plan("bench", sources=(source,), views=(view,))


def draw(customers: int, events: int, history: int, minutes: float, now: int) -> Drawn:
    """Events that end a few hours before `now` (microseconds): `events` in the last `minutes`, in order of time.

    Each customer has `history` events in the 40 days before: on every day, and a quarter of them in the last one.
    One event in fifty is a return, which the view's `where` leaves out.
    """
    rng = np.random.default_rng(7)
    end = (now - 3 * HOUR) // HOUR * HOUR
    begin = end - int(minutes * MINUTE)
    made = _lines(rng, rng.integers(1, customers + 1, events), begin + np.sort(rng.integers(0, end - begin, events)))
    offsets = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("_partition")
    return Drawn(customers, made.with_columns(_offset=offsets), _history(rng, customers, history, begin), end)


def _history(rng: np.random.Generator, customers: int, each: int, begin: int) -> pl.DataFrame:
    customer = np.repeat(np.arange(1, customers + 1), each)
    number = np.tile(np.arange(each), customers)
    lately = number % 4 == 0
    day = (number * 3 // 4) % HISTORY_DAYS
    before = np.where(lately, rng.integers(0, DAY, len(number)), day * DAY + rng.integers(0, DAY, len(number)))
    return _lines(rng, customer, begin - 1 - before).with_columns(_offset=pl.lit(0, pl.Int64))


def _lines(rng: np.random.Generator, customer: NDArray[np.int64], time: NDArray[np.int64]) -> pl.DataFrame:
    n = len(customer)
    stock = np.array([f"{20_000 + s}A" for s in range(PRODUCTS)], object)[rng.zipf(1.3, n) % PRODUCTS]
    country = np.array([f"Country {c:02d}" for c in range(COUNTRIES)], object)[rng.zipf(1.8, n) % COUNTRIES]
    return pl.DataFrame(
        {
            "invoice_no": pl.Series(np.arange(n) // 20 + 536_365).cast(pl.String),
            "stock_code": pl.Series(stock, dtype=pl.String),
            "description": pl.repeat("WHITE HANGING HEART T-LIGHT HOLDER", n, eager=True),
            "quantity": np.where(rng.random(n) < 0.02, -1, rng.integers(1, 25, n)),
            "invoice_ts": pl.Series(time).cast(pl.Datetime("us", "UTC")),
            "unit_price": np.round(rng.gamma(2, 2, n) + 0.01, 2),
            "customer_id": customer,
            "country": pl.Series(country, dtype=pl.String),
            "_partition": customer % PARTITIONS,
        }
    )


def history_rows(view: StreamView, source: Source, drawn: Drawn) -> dict[bytes, bytes]:
    """The rows as backfill would have written them, by entity key."""
    frame = drawn.history
    columns = {f.name: Column.from_arrow(f.dtype, frame[f.name].to_arrow()) for f in source.fields}
    place = [frame[name].to_numpy() for name in ("_partition", "_offset")]
    events = Events(source.name, columns, place[0], place[1], columns[source.event_time].values)
    return {entity_key(row.key): row.data for row in fold(layout_of(view), select(view, events), born=0)}


def assert_values(view: StreamView, drawn: Drawn, rows: dict[bytes, bytes]) -> None:
    """Every feature of every customer against Polars. Past 256 distinct values a count is an estimate, by design."""
    lines = pl.concat([drawn.history, drawn.events.select(drawn.history.columns)])
    lines = lines.filter(pl.col("quantity") > 0).with_columns(
        amount=pl.col("quantity") * pl.col("unit_price"), time=pl.col("invoice_ts").to_physical()
    )
    customers = lines["customer_id"].unique().sort().to_list()
    assert set(rows) == {b"%d" % c for c in customers}, "other customers have rows than have events"
    at = drawn.end + 7 * SECOND
    read = ViewReader(view).read([rows[b"%d" % c] for c in customers], at)
    for feature in view.features:
        expected = _expected(feature, lines, customers, at)
        near = feature.function == "approx_distinct"
        for customer, value, right in zip(customers, read.values[feature.name], expected, strict=True):
            assert value == right or (near and right > 256 and abs(value - right) < 0.15 * right), (
                f"{feature.name} of customer {customer}: {value!r}, Polars says {right!r}"
            )


def _expected(feature: Feature, lines: pl.DataFrame, customers: list[int], at: int) -> list[Any]:
    seen = lines.filter(pl.col("time") >= window_start(at, feature.window, feature.hop))
    whole = (pl.col("amount") * 10.0**feature.scale + 0.5).floor().cast(pl.Int64).sum()
    value = {
        "count": pl.len(),
        "sum": whole,
        "mean": pl.concat_list(whole, pl.len().cast(pl.Int64)),
        "max": pl.col("amount").max(),
        "approx_distinct": pl.col("stock_code").n_unique(),
        "last": pl.col("country").sort_by("time", "_offset").last(),
    }[feature.function]
    found = dict(seen.group_by("customer_id").agg(value=value).iter_rows())
    # Python divides integers exactly and rounds once; Polars multiplies by an inverse.
    if feature.function == "sum":
        found = {c: total / 10**feature.scale for c, total in found.items()}
    if feature.function == "mean":
        found = {c: total / (count * 10**feature.scale) for c, (total, count) in found.items()}
    return [found.get(c, 0 if feature.function in ("count", "approx_distinct") else None) for c in customers]
