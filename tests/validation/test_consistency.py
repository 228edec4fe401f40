"""Each planted fault is named with its key and cause, and nothing is named without one."""

import numpy as np
import pyarrow as pa
import pytest

from headwater.events.select import select
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of
from tests.history.log_factory import FIELDS, SOURCE, make_events, make_feature, make_view
from validation.consistency import Kept, Served, check_view

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


def test_a_worker_that_is_behind_makes_no_defect():
    result = check(rows_of(LINES[:6]), kept_of(LINES), position=6)
    assert set(result.differences) == {"not yet applied"}
    assert result.defects == 0


def test_a_sink_that_is_behind_makes_no_defect():
    result = check(rows_of(LINES), kept_of(LINES[:6], end=6))
    assert (set(result.differences), result.defects) == ({"not yet applied"}, 0)
