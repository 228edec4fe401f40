"""What quickstart sends and asks: the shop's events moved to today, and a spine drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headwater.errors import UsageError
from headwater.events.json_rows import json_rows, key_texts
from headwater.plans.plan import Source
from pipelines.produce import EventFile

LIVE_EVENTS = 200
TIME, CUSTOMER = "invoice_ts", "customer_id"
DAY, SECOND = 86_400_000_000, 1_000_000
CHURN = 7 * DAY
"""Who buys nothing for so long after a purchase is taken for lost."""


@dataclass(frozen=True)
class Replay:
    """The events in two parts: `bulk`, a Parquet file to send at once, and `live`, sent one by one.

    Both were moved by the same whole number of days, so that the last event lies within the last day.
    """

    events: pa.Table
    bulk: Path
    live: Path

    @property
    def bulk_rows(self) -> int:
        """Rows of `bulk`."""
        return int(self.events.num_rows) - LIVE_EVENTS


@dataclass(frozen=True)
class Spine:
    """A spine on disk, and a customer who was active lately."""

    path: Path
    customer: int


def split_for_replay(data: Path, folder: Path, now: float) -> Replay:
    """Read the events, move them to `now` (seconds since the epoch), and write both parts to `folder`.

    Raises:
        UsageError: the file has not the columns of the shop's events, or too few rows.
    """
    events = pq.read_table(data)
    missing = {TIME, CUSTOMER} - set(events.column_names)
    if missing or events.num_rows <= LIVE_EVENTS:
        raise UsageError(
            f"Expected more than {LIVE_EVENTS} retail events with the columns {TIME} and {CUSTOMER} in {data}, "
            f"got {events.num_rows} rows with {', '.join(events.column_names)}."
        )
    times = _micros(events)
    days = (int(now * 1_000_000) - int(times.max())) // DAY
    moved = pa.array(times + days * DAY, pa.int64()).cast(pa.timestamp("us", "UTC"))
    events = events.set_column(events.column_names.index(TIME), TIME, moved)
    replay = Replay(events, folder / "bulk.parquet", folder / "live.parquet")
    pq.write_table(events.slice(0, replay.bulk_rows), replay.bulk)
    pq.write_table(events.slice(replay.bulk_rows), replay.live)
    return replay


def live_records(replay: Replay, source: Source) -> list[tuple[bytes | None, bytes]]:
    """The live part as Kafka records (key, value), as `headwater produce` sends them."""
    return [
        (key.encode() if isinstance(key, str) else key, value)
        for frame in EventFile(replay.live, source).blocks()
        for key, value in zip(key_texts(frame, source), json_rows(frame), strict=True)
    ]


def write_spine(replay: Replay, path: Path, rows: int) -> Spine:
    """Draw purchases evenly over all events, and label each: was the customer lost (see CHURN)?

    Each is asked for a second later, so that what was just bought counts: a window is open at its end.
    Only purchases whose label the events can tell are drawn; where they cover less than that time, any
    purchase is, and the labels are null.
    """
    known = replay.events.filter(pc.is_valid(replay.events[CUSTOMER]))
    times, customers = _micros(known), known[CUSTOMER].cast(pa.int64()).to_numpy()
    told = np.flatnonzero(times <= times.max() - CHURN)
    chosen = told if len(told) else np.arange(len(times))
    # The newest first: a reader looks at the head, and the oldest windows are still empty.
    drawn = chosen[np.unique(np.linspace(0, len(chosen) - 1, rows).astype(np.int64))][::-1]
    labels = _churned(times, customers, drawn) if len(told) else pa.nulls(len(drawn), pa.bool_())
    columns: dict[str, Any] = {
        CUSTOMER: customers[drawn],
        "event_timestamp": pa.array(times[drawn] + SECOND).cast(pa.timestamp("us", "UTC")),
        "churned": labels,
    }
    pq.write_table(pa.table(columns), path)
    return Spine(path, int(customers[np.argmax(times)]))


def _churned(times: NDArray[np.int64], customers: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
    order = np.lexsort((times, customers))
    sorted_customers, sorted_times = customers[order], times[order]
    labels = np.empty(len(drawn), np.bool_)
    for at, index in enumerate(drawn):
        first = np.searchsorted(sorted_customers, customers[index], "left")
        end = np.searchsorted(sorted_customers, customers[index], "right")
        later = np.searchsorted(sorted_times[first:end], times[index], "right") + first
        labels[at] = later == end or sorted_times[later] - times[index] > CHURN
    return labels


def _micros(events: pa.Table) -> NDArray[np.int64]:
    stamps = events[TIME].cast(pa.timestamp("us", getattr(events[TIME].type, "tz", None)))
    result: NDArray[np.int64] = stamps.cast(pa.int64()).to_numpy()
    return result
