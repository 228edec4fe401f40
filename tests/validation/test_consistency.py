"""Each planted fault is named with its key and cause, and nothing is named without one."""

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from headwater.events.select import select
from headwater.lake.records import Gap
from headwater.receipts.results import Example
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of
from tests.history.log_factory import FIELDS, HOUR, SOURCE, make_events, make_feature, make_view
from validation.consistency import check_view
from validation.lake_side import Kept
from validation.online_side import Served

NOON = 1_320_000_000_000_000
VIEW = make_view(make_feature("count", window=None, name="n"), make_feature("sum", "price", name="s"))
LINES = [{"customer": 1 + i % 3, "ts": NOON + i, "price": 1.5 + i} for i in range(9)]


def rows_of(lines):
    events, _ = make_events(lines)
    return {str(r.key[0]).encode(): r.data for r in fold(layout_of(VIEW), select(VIEW, events), born=0)}


def kept_of(lines, offsets=None, end=9, missing=()):
    events, _ = make_events(lines)
    offsets = np.arange(len(lines)) if offsets is None else np.array(offsets)
    columns = {name: events.columns[name].to_arrow() for name in FIELDS}
    columns |= {
        "_partition": pa.array([0] * len(lines), pa.int32()), "_offset": pa.array(offsets),
        "_arrived_at": pa.array([NOON] * len(lines), pa.timestamp("us", "UTC")),
    }  # fmt: skip
    places = (np.zeros(len(lines), np.int64), offsets.astype(np.int64))
    return Kept(pa.table(columns), {0: end}, places, list(missing), {0: max(end, 9)})


def check(rows, kept, position=9):
    return check_view(VIEW, SOURCE, Served({0: position}, rows, None), kept, drawn=None, now=NOON)


def causes(result):
    return {(e.key, e.cause) for e in result.examples}


def test_without_a_fault_all_receipts_and_rows_are_equal():
    result = check(rows_of(LINES), kept_of(LINES))
    assert (result.drawn, result.drawn_equal, result.compared, result.compared_equal) == (3, 3, 3, 3)
    assert result.differences == {}


def test_a_row_replaced_by_older_bytes_is_a_defect():
    rows = rows_of(LINES) | {b"2": rows_of(LINES[:6])[b"2"]}
    assert causes(check(rows, kept_of(LINES))) == {("2", "defect")}


def test_a_deleted_row_is_missing_online():
    rows = rows_of(LINES)
    del rows[b"3"]
    assert causes(check(rows, kept_of(LINES))) == {("3", "missing online")}


@pytest.mark.parametrize("byte", [0, 9, 30, -1])
def test_a_flipped_byte_is_a_defect(byte):
    rows = rows_of(LINES)
    changed = bytearray(rows[b"1"])
    changed[byte] ^= 1
    assert causes(check(rows | {b"1": bytes(changed)}, kept_of(LINES))) == {("1", "defect")}


@pytest.mark.parametrize("offset", [4, 9, 1000])
def test_an_event_only_in_the_lake_is_missing_online(offset):
    kept = kept_of([*LINES, {"customer": 2, "ts": NOON, "price": 1.0}], [*range(9), offset])
    assert causes(check(rows_of(LINES), kept)) == {("2", "missing online")}


def test_a_lost_file_of_the_lake_is_missing_in_lake():
    kept = kept_of(LINES[:6], missing=["part-2.parquet"])
    assert causes(check(rows_of(LINES), kept)) == {
        ("1", "missing in lake"),
        ("2", "missing in lake"),
        ("3", "missing in lake"),
    }


def test_a_row_that_only_redis_has_is_missing_in_lake():
    rows = rows_of([*LINES, {"customer": 7, "ts": NOON, "price": 1.0}])
    assert causes(check(rows, kept_of(LINES, end=10), position=10)) >= {("7", "missing in lake")}


def test_events_that_the_worker_has_not_come_to_are_no_difference():
    result = check(rows_of(LINES[:6]), kept_of(LINES), position=6)
    assert (result.differences, result.waiting, result.compared_equal) == ({}, 0, 3)


def test_a_row_that_is_ahead_of_its_position_is_compared_up_to_its_own_offsets():
    # The worker wrote customers 1 and 2 after the position was read.
    rows = rows_of(LINES) | {b"3": rows_of(LINES[:6])[b"3"]}
    result = check(rows, kept_of(LINES), position=6)
    assert (result.differences, result.compared_equal) == ({}, 3)


def test_rows_past_the_sink_wait_and_are_not_compared():
    result = check(rows_of(LINES), kept_of(LINES[:7], end=7))
    assert (result.differences, result.waiting) == ({}, 2)
    assert (result.drawn, result.compared, result.compared_equal) == (1, 1, 1)
    assert "2 rows are not compared, because the sink has not kept their last events yet" in result.notes[0]


def test_an_event_past_the_topics_end_is_only_in_the_lake_whatever_the_sink_says():
    kept = kept_of([*LINES, {"customer": 2, "ts": NOON, "price": 1.0}], [*range(9), 20], end=21)
    assert causes(check(rows_of(LINES), replace(kept, ends={0: 9}))) == {("2", "missing online")}


def test_an_event_past_the_sinks_own_position_is_only_in_the_lake():
    kept = kept_of(LINES, end=8)
    assert causes(check(rows_of(LINES[:8]), kept, position=8)) == {("3", "missing online")}


def test_rows_past_what_the_sink_had_kept_are_missing_in_lake():
    kept = replace(kept_of(LINES[:7], end=7), committed={0: 9})
    assert causes(check(rows_of(LINES), kept)) == {("2", "missing in lake"), ("3", "missing in lake")}


def test_an_event_that_only_a_row_has_is_missing_in_lake():
    rows = rows_of(LINES) | {b"2": rows_of([*LINES, {}, {"customer": 2, "ts": NOON, "price": 1.0}])[b"2"]}
    assert causes(check(rows, kept_of(LINES))) == {("2", "missing in lake")}


def test_a_position_behind_rows_that_stands_still_was_moved_back():
    result = check_view(
        VIEW, SOURCE, Served({0: 5}, rows_of(LINES), None, behind={0: 5}), kept_of(LINES), drawn=None, now=NOON
    )
    assert causes(result) == {("1", "defect"), ("2", "defect"), ("3", "defect")}
    assert "moved back" in result.examples[0].detail


def test_a_position_moved_forward_is_suspected_where_no_row_has_what_lies_behind():
    result = check(rows_of(LINES[:6]), kept_of(LINES), position=9)
    assert causes(result) == {("1", "defect"), ("2", "defect"), ("3", "defect")}
    assert all("moved forward to 9: no row has an event behind offset 5" in e.detail for e in result.examples)


def test_a_position_past_the_topic_and_one_that_is_gone_are_named():
    served = Served({0: 12}, rows_of(LINES), None, partitions=2)
    result = check_view(VIEW, SOURCE, served, kept_of(LINES), drawn=None, now=NOON)
    assert causes(result) == {("position of partition 0", "defect"), ("position of partition 1", "missing online")}


def test_lost_offsets_are_named_until_they_are_accepted():
    gap = Gap(0, 3, 5, NOON)
    lines = [line for i, line in enumerate(LINES) if i not in (3, 4)]
    kept = replace(kept_of(lines, [0, 1, 2, 5, 6, 7, 8]), gaps=[gap])
    served = Served({0: 9}, rows_of(LINES), None)
    named = check_view(VIEW, SOURCE, served, kept, drawn=None, now=NOON)
    # Customers 1 and 2 have the lost events; 3 has none of them, and its row can be proven.
    assert causes(named) == {(key, "missing in lake") for key in ("partition 0", "1", "2")}
    accepted = check_view(VIEW, SOURCE, served, replace(kept, gaps=[replace(gap, accepted=True)]), drawn=None, now=NOON)
    assert (accepted.differences, accepted.waiting, accepted.compared_equal) == ({}, 2, 1)


def test_a_row_that_began_anew_is_expired_after_a_long_silence_and_lost_after_a_short_one():
    view = msgspec.structs.replace(
        VIEW, features=(make_feature("count", name="n"), make_feature("max", "price", name="m"))
    )
    late = NOON + 60 * HOUR
    lines = [{"customer": 1, "ts": NOON, "price": 1.0}, {"customer": 1, "ts": NOON + 1, "price": 2.0}]
    events, _ = make_events(lines)
    [row] = [r.data for r in fold(layout_of(view), select(view, events.take(np.array([1]))), born=None)]
    kept = kept_of(lines, end=2)
    for arrived, cause in ((NOON + 1, "missing online"), (late, "expired")):
        table = kept.table.set_column(
            kept.table.column_names.index("_arrived_at"), "_arrived_at",
            pa.array([NOON, arrived], pa.timestamp("us", "UTC")),
        )  # fmt: skip
        served = Served({0: 2}, {b"1": row}, 40 * HOUR // 1000)
        result = check_view(view, SOURCE, served, replace(kept, table=table), drawn=None, now=late)
        assert causes(result) == {("1", cause)}


@pytest.mark.parametrize(("arrived", "cause"), [(NOON, "expired"), (NOON + 80 * HOUR, "defect")])
def test_a_row_that_does_not_name_a_partition_began_anew_or_is_older(arrived, cause):
    # Of partition 1 the row has nothing: its event came long before the row's own, or after it.
    view = msgspec.structs.replace(VIEW, features=(make_feature("count", name="n"),))
    lines = [{"customer": 1, "ts": NOON, "_partition": 1, "_offset": 0}, {"customer": 1, "ts": NOON + 1, "_offset": 0}]
    events, _ = make_events(lines)
    [row] = [r.data for r in fold(layout_of(view), select(view, events.take(np.array([1]))), born=None)]
    kept = kept_of(lines, [0, 0], end=1)
    table = kept.table
    for name, column in {
        "_partition": pa.array([1, 0], pa.int32()),
        "_arrived_at": pa.array([arrived, NOON + 60 * HOUR], pa.timestamp("us", "UTC")),
    }.items():
        table = table.set_column(table.column_names.index(name), name, column)
    places = (np.array([1, 0]), np.array([0, 0]))
    kept = replace(kept, table=table, places=places, positions={0: 1, 1: 1}, ends={0: 1, 1: 1})
    served = Served({0: 1, 1: 1}, {b"1": row}, 40 * HOUR // 1000)
    assert causes(check_view(view, SOURCE, served, kept, drawn=None, now=NOON + 90 * HOUR)) == {("1", cause)}


def test_an_example_says_what_the_row_and_the_lake_say_which_values_differ_and_what_to_do():
    rows = rows_of(LINES) | {b"2": rows_of(LINES[:6])[b"2"]}
    [example] = check(rows, kept_of(LINES)).examples
    assert example == Example(
        "2", "defect",
        "an older copy of the row was put back (a restore, or a write past the worker)",
        "customer=2", "it has partition 0 from offset 0 to 4; newest event 2011-10-30T18:40:00.000004Z",
        "it has 1 event of this key behind that, below the view's position: partition 0 offset 7",
        "n 2 online, 3 from the lake; s 8.0 online, 16.5 from the lake (read at 2011-10-30T18:40:00.000008Z)",
        "headwater repair spend --entity customer=2",
    )  # fmt: skip
