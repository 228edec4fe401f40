"""The lake's tables: what is written is read, once, from one snapshot, and nothing is silently less."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from headwater.errors import TopicChanged
from headwater.events.admission import Admission
from headwater.events.batch import Events
from headwater.lake import Lake, LakeDamaged
from headwater.lake.event_log import CommitRefused
from headwater.lake.event_rows import event_rows
from headwater.lake.records import Gap
from headwater.plans.plan import BatchView, Expectation, Field, Plan, Source
from headwater.receipts.results import Example, ViewCheck

ORDERS = Source(
    name="orders", topic="shop-orders", event_time="at", key="customer", tolerance=86_400_000_000,
    fields=(Field("at", "timestamp"), Field("customer", "int64"), Field("price", "float64"), Field("code", "string")),
    expectations=(Expectation("between", "price", 0, 100),),
)  # fmt: skip
T = 1_700_000_000_000_000


def rows(source: Source, records: list[tuple[int, int, str]]) -> pa.Table:
    """Rows of (partition, offset, JSON) records, all of the broker time T, arrived at T + 1 s."""
    n = len(records)
    partition, offset = np.array([r[0] for r in records]), np.array([r[1] for r in records])
    times = np.full(n, T)
    admitted = Admission(source).admit([r[2].encode() for r in records], partition, offset, times)
    return event_rows(source, admitted, times, np.full(n, 2, np.int8), T + 1_000_000)


def event(customer: int, price: float = 1.5, **more: object) -> str:
    return json.dumps({"at": T - 1, "customer": customer, "price": price, "code": "x", **more})


def places(table: pa.Table) -> list[tuple[int, int]]:
    return sorted(zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_a_lake_without_tables_answers_with_empty_ones(lake: Lake) -> None:
    assert lake.positions("shop-orders") == {}
    assert lake.read_events(ORDERS).num_rows == 0
    assert len(Events.from_arrow(ORDERS, lake.read_events(ORDERS))) == 0
    assert lake.duplicates("shop-orders").num_rows == 0
    assert lake.latest_checks() == {}
    assert lake.gaps("shop-orders") == []
    assert not os.path.exists(lake.location)


def test_admitted_events_come_back_with_place_and_times_and_rejected_ones_apart(lake: Lake) -> None:
    records = [(0, 5, event(1)), (0, 6, "{"), (1, 0, event(2, -3)), (1, 1, event(3, 2))]
    lake.writer(ORDERS, "T1").append(rows(ORDERS, records), {0: 5, 1: 0}, {0: 7, 1: 2})
    table = lake.read_events(ORDERS).sort_by("_partition")
    assert table.to_pydict() | {"at": None} == {
        "at": None, "customer": [1, 3], "price": [1.5, 2.0], "code": ["x", "x"],
        "_partition": [0, 1], "_offset": [5, 1],
        "_broker_time": table["_broker_time"].to_pylist(), "_arrived_at": table["_arrived_at"].to_pylist(),
    }  # fmt: skip
    assert table["_broker_time"].cast(pa.int64()).to_pylist() == [T, T]
    assert table["_arrived_at"].cast(pa.int64()).to_pylist() == [T + 1_000_000] * 2
    assert Events.from_arrow(ORDERS, table).time.tolist() == [T - 1, T - 1]
    snapshot = lake.events("shop-orders")
    assert snapshot is not None
    rejected = snapshot.read_rejected(ORDERS).sort_by("_partition").to_pydict()
    assert rejected["_kind"] == ["dead-letter", "quarantine"]
    assert rejected["_raw"] == [b"{", event(2, -3).encode()]
    assert rejected["_reason"][1] == "price: expected a value between 0 and 100, got -3.0"


def test_reading_is_limited_by_offsets_columns_and_keys(lake: Lake) -> None:
    records = [(p, o, event(10 * p + o)) for p in (0, 1, 2) for o in range(3)]
    lake.writer(ORDERS, "T1").append(rows(ORDERS, records), {0: 0, 1: 0, 2: 0}, {0: 3, 1: 3, 2: 3})
    assert places(lake.read_events(ORDERS, up_to={0: 2, 1: 1})) == [(0, 0), (0, 1), (1, 0)]
    assert lake.read_events(ORDERS, up_to={}).num_rows == 0
    assert places(lake.read_events(ORDERS, where_keys={"customer": [21, 11, 99]})) == [(1, 1), (2, 1)]
    narrow = lake.read_events(ORDERS, columns=["price", "at"]).column_names
    assert narrow == ["at", "price", "_partition", "_offset", "_broker_time", "_arrived_at"]


def test_positions_travel_with_the_rows_and_survive_checkpoints(lake: Lake) -> None:
    writer = lake.writer(ORDERS, "T1")
    for i in range(12):
        writer.append(rows(ORDERS, [(0, i, event(i))]), {0: i}, {0: i + 1})
    writer.append(rows(ORDERS, []), {3: 0}, {3: 4})
    handle = DeltaTable(lake.events_table("shop-orders").uri)
    handle.create_checkpoint()
    handle.cleanup_metadata()
    assert lake.positions("shop-orders") == {0: 12, 3: 4}
    assert lake.writer(ORDERS, "T1").positions() == {0: 12, 3: 4}


def test_a_batch_that_does_not_start_at_the_position_is_refused(lake: Lake) -> None:
    writer = lake.writer(ORDERS, "T1")
    writer.append(rows(ORDERS, [(0, 0, event(1))]), {0: 0}, {0: 1})
    for start in (0, 2):
        with pytest.raises(CommitRefused, match="the lake is at 1"):
            writer.append(rows(ORDERS, [(0, start, event(1))]), {0: start}, {0: start + 1})
    assert lake.read_events(ORDERS).num_rows == 1


def test_of_two_writers_at_the_same_position_one_wins(lake: Lake) -> None:
    lake.writer(ORDERS, "T1").append(rows(ORDERS, [(0, 0, event(1))]), {0: 0}, {0: 1})
    one, two = lake.writer(ORDERS, "T1"), lake.writer(ORDERS, "T1")
    one.append(rows(ORDERS, [(0, 1, event(2))]), {0: 1}, {0: 2})
    with pytest.raises(CommitRefused):
        two.append(rows(ORDERS, [(0, 1, event(2)), (0, 2, event(3))]), {0: 1}, {0: 3})
    assert places(lake.read_events(ORDERS)) == [(0, 0), (0, 1)]
    assert lake.duplicates("shop-orders").num_rows == 0


def test_writers_of_different_partitions_do_not_disturb_each_other(lake: Lake) -> None:
    lake.writer(ORDERS, "T1").append(rows(ORDERS, [(0, 0, event(1)), (1, 0, event(1))]), {0: 0, 1: 0}, {0: 1, 1: 1})
    one, two = lake.writer(ORDERS, "T1"), lake.writer(ORDERS, "T1")
    one.append(rows(ORDERS, [(0, 1, event(2))]), {0: 1}, {0: 2})
    two.append(rows(ORDERS, [(1, 1, event(2))]), {1: 1}, {1: 2})
    assert lake.positions("shop-orders") == {0: 2, 1: 2}


def test_a_recreated_topic_is_refused(lake: Lake) -> None:
    lake.writer(ORDERS, "T1")
    with pytest.raises(TopicChanged, match="was deleted and created again"):
        lake.writer(ORDERS, "T2")


def test_a_new_column_is_null_in_old_rows_and_readable_before_it_was_ever_written(lake: Lake) -> None:
    lake.writer(ORDERS, "T1").append(rows(ORDERS, [(0, 0, event(1))]), {0: 0}, {0: 1})
    wider = Source(**{**{f: getattr(ORDERS, f) for f in ORDERS.__struct_fields__}, "fields": (
        *ORDERS.fields, Field("paid", "bool"))})  # fmt: skip
    assert lake.read_events(wider)["paid"].to_pylist() == [None]
    lake.writer(wider, "T1").append(rows(wider, [(0, 1, event(2, paid=True))]), {0: 1}, {0: 2})
    table = lake.read_events(wider).sort_by("_offset")
    assert table["paid"].to_pylist() == [None, True]
    assert lake.read_events(ORDERS).num_rows == 2


def test_a_missing_file_is_an_error_that_names_it_unless_it_is_skipped(lake: Lake) -> None:
    writer = lake.writer(ORDERS, "T1")
    for i in range(2):
        writer.append(rows(ORDERS, [(0, i, event(i))]), {0: i}, {0: i + 1})
    gone = lake.admitted_parquet_files("shop-orders")[0]
    os.remove(gone)
    with pytest.raises(LakeDamaged, match=f"lacks 1 of its 2 files.*{os.path.basename(gone)}"):
        lake.read_events(ORDERS)
    with pytest.raises(LakeDamaged, match="events/shop-orders"):
        lake.admitted_parquet_files("shop-orders")
    with pytest.raises(LakeDamaged):
        lake.register_duckdb(duckdb.connect(), Plan("shop", sources=(ORDERS,)))
    table, missing = lake.read_events(ORDERS, missing_files="skip")
    assert table.num_rows == 1
    assert missing == [gone]


def test_a_broken_file_is_an_error_that_names_the_table(lake: Lake) -> None:
    lake.writer(ORDERS, "T1").append(rows(ORDERS, [(0, 0, event(1))]), {0: 0}, {0: 1})
    Path(lake.admitted_parquet_files("shop-orders")[0]).write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(LakeDamaged, match="events/shop-orders"):
        lake.read_events(ORDERS)


@pytest.mark.parametrize("damage", ["gap", "garbage", "no beginning", "no log", "empty log"])
def test_a_broken_log_is_an_error_that_names_the_table_and_says_what_to_do(lake: Lake, damage: str) -> None:
    writer = lake.writer(ORDERS, "T1")
    for i in range(3):
        writer.append(rows(ORDERS, [(0, i, event(i))]), {0: i}, {0: i + 1})
    log = Path(lake.location, "events/shop-orders/_delta_log")
    commits = sorted(log.glob("*.json"))
    match damage:
        case "gap":
            commits[2].unlink()
        case "garbage":
            commits[1].write_text("no JSON")
        case "no beginning":
            commits[0].unlink()
        case "no log":
            shutil.rmtree(log)
        case "empty log":
            for file in log.iterdir():
                file.unlink()
    for ask in (lake.events, lake.positions, lambda topic: lake.writer(ORDERS, "T1")):
        with pytest.raises(LakeDamaged, match=r"'events/shop-orders'.*Restore the folder from a backup") as raised:
            ask("shop-orders")
        assert "\n" not in str(raised.value)


def test_duplicates_are_found(lake: Lake) -> None:
    writer = lake.writer(ORDERS, "T1")
    writer.append(rows(ORDERS, [(0, 0, event(1)), (0, 0, event(1)), (0, 1, event(1))]), {0: 0}, {0: 2})
    assert lake.duplicates("shop-orders").to_pylist() == [{"_partition": 0, "_offset": 0, "count": 2}]


def test_compaction_keeps_rows_and_positions(lake: Lake) -> None:
    writer = lake.writer(ORDERS, "T1")
    for i in range(6):
        writer.append(rows(ORDERS, [(0, i, event(i))]), {0: i}, {0: i + 1})
    before = lake.events("shop-orders")
    writer.compact(most=5)
    writer.append(rows(ORDERS, [(0, 6, event(6))]), {0: 6}, {0: 7})
    assert len(lake.admitted_parquet_files("shop-orders")) == 2
    assert places(lake.read_events(ORDERS)) == [(0, i) for i in range(7)]
    assert lake.positions("shop-orders") == {0: 7}
    assert before is not None
    assert before.read(ORDERS).num_rows == 6


RFM = BatchView(
    name="profile", entities=("customer",), keys=(Field("customer", "int64"),), sql="…", ttl=None,
    features=(Field("spent", "float64"), Field("seen", "timestamp")), state_hash="0" * 16,
)  # fmt: skip


def test_a_view_snapshot_of_the_same_time_is_replaced_and_others_are_added(lake: Lake) -> None:
    for as_of, spent in ((T, 1.0), (T + 1, 2.0), (T, 3.0)):
        seen = pa.array([T], pa.int64()).cast(pa.timestamp("us", "UTC"))
        lake.append_view_snapshot(RFM, pa.table({"customer": [7], "spent": [spent], "seen": seen, "other": [1]}), as_of)
    table = lake.read_view(RFM).sort_by("event_timestamp")
    assert table["event_timestamp"].cast(pa.int64()).to_pylist() == [T, T + 1]
    assert table["spent"].to_pylist() == [3.0, 2.0]
    assert table.column_names == ["customer", "spent", "seen", "event_timestamp", "_created"]


def test_quarantine_gaps_and_checks_are_kept(lake: Lake) -> None:
    lake.append_quarantine("profile", pa.table({"customer": [1], "_reason": ["spent: …"]}))
    assert DeltaTable(f"{lake.location}/quarantine/profile").to_pyarrow_table().num_rows == 1
    gap = Gap(partition=1, start=5, end=9, found_at=T)
    lake.append_gap("shop-orders", gap)
    assert lake.gaps("shop-orders") == [gap]
    old = ViewCheck("profile", T, 1, 1, 2, 2, {}, ())
    new = ViewCheck("profile", T + 1, 3, 2, 4, 3, {"defect": 1}, (Example("7", "defect", "a ≠ b"),))
    lake.append_checks([old])
    lake.append_checks([new])
    assert lake.latest_checks() == {"profile": new}
    assert lake.check_history("profile") == [new, old]


def test_duckdb_sees_admitted_rows_and_empty_tables_with_types(lake: Lake) -> None:
    lake.writer(ORDERS, "T1").append(rows(ORDERS, [(0, 0, event(1)), (0, 1, "{")]), {0: 0}, {0: 2})
    connection = duckdb.connect()
    wider = Source(**{**{f: getattr(ORDERS, f) for f in ORDERS.__struct_fields__}, "fields": (
        *ORDERS.fields, Field("paid", "bool"))})  # fmt: skip
    lake.register_duckdb(connection, Plan("shop", sources=(wider,), views=(RFM,)))
    columns = [c[0] for c in connection.execute("SELECT * FROM orders").description or []]
    assert columns == [
        "at",
        "customer",
        "price",
        "code",
        "paid",
        "_partition",
        "_offset",
        "_broker_time",
        "_arrived_at",
    ]
    assert connection.execute('SELECT customer, paid, epoch_us("at") FROM orders').fetchall() == [(1, None, T - 1)]
    assert connection.execute("SELECT count(*), sum(spent) FROM profile").fetchall() == [(0, None)]
    lake.append_view_snapshot(RFM, pa.table({"customer": [7], "spent": [1.0], "seen": pa.nulls(1)}), T)
    lake.register_duckdb(connection, Plan("shop", sources=(ORDERS,), views=(RFM,)))
    assert connection.execute("SELECT customer, spent, epoch_us(event_timestamp) FROM profile").fetchall() == [
        (7, 1.0, T)
    ]
