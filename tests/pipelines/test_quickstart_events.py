"""What quickstart sends and asks: whole days, one shift for both parts, labels that the events can tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.errors import UsageError
from pipelines.quickstart_events import LIVE_EVENTS, split_for_replay, write_spine

START = datetime(2011, 11, 1, 8, 0)


@pytest.fixture
def write_events(tmp_path):
    """A file of retail events as (customer, days after START); its path."""

    def write(events):
        table = pa.table(
            {
                "customer_id": pa.array([customer for customer, _ in events], pa.int32()),
                "invoice_ts": pa.array([START + timedelta(days=d) for _, d in events], pa.timestamp("us")),
            }
        )
        pq.write_table(table, tmp_path / "events.parquet")
        return tmp_path / "events.parquet"

    return write


def test_both_parts_are_moved_by_the_same_whole_days_up_to_now(write_events, tmp_path):
    path = write_events([(1, 0)] * 10 + [(2, 9.9)] * LIVE_EVENTS)
    now = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)  # the last event is at 05:36 of its day

    replay = split_for_replay(path, tmp_path, now.timestamp())

    assert replay.bulk_rows == 10
    assert pq.read_table(replay.bulk)["invoice_ts"][0].as_py() == datetime(2026, 2, 28, 8, 0, tzinfo=UTC)
    live = pq.read_table(replay.live)
    assert live.num_rows == LIVE_EVENTS
    assert live["invoice_ts"][0].as_py() == datetime(2026, 3, 10, 5, 36, tzinfo=UTC)


def test_spine_labels_say_whether_a_customer_came_back_within_a_week(write_events, tmp_path):
    events = [(c, d) for d in range(30) for c in (1, 2, 3, None) if c is None or d % {1: 1, 2: 10, 3: 7}[c] == 0]
    path = write_events(events + [(1, 30)] * LIVE_EVENTS)
    replay = split_for_replay(path, tmp_path, datetime(2026, 3, 10, tzinfo=UTC).timestamp())

    spine = write_spine(replay, tmp_path / "spine.parquet", 1_000)

    rows = pq.read_table(spine.path).to_pylist()
    known = [(e["customer_id"], e["invoice_ts"]) for e in replay.events.to_pylist() if e["customer_id"] is not None]
    last = max(at for _, at in known)
    assert spine.customer == 1
    assert len(rows) == sum(at <= last - timedelta(days=7) for _, at in known)
    for row in rows:
        customer, at = row["customer_id"], row["event_timestamp"]
        came_back = any(c == customer and at < later <= at + timedelta(days=7) for c, later in known)
        assert row["churned"] == (not came_back)
    assert {row["churned"] for row in rows} == {True, False}


def test_events_of_less_than_a_week_give_a_spine_without_labels(write_events, tmp_path):
    path = write_events([(1, 0.01 * n) for n in range(LIVE_EVENTS + 5)])
    replay = split_for_replay(path, tmp_path, datetime(2026, 3, 10, tzinfo=UTC).timestamp())
    spine = write_spine(replay, tmp_path / "spine.parquet", 100)
    rows = pq.read_table(spine.path).to_pylist()
    assert len(rows) == 100
    assert {row["churned"] for row in rows} == {None}


def test_a_file_of_something_else_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="invoice_ts"):
        split_for_replay(tmp_path / "x.parquet", tmp_path, 0)
