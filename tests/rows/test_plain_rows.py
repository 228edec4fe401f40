"""Packed rows of views without windows: every value comes back, on the scalar and the vectorised path."""

import math
import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.columns import Column
from headwater.errors import ReadError, UsageError
from headwater.plans.plan import BatchView, Field
from headwater.rows.plain import PlainReader, encode_plain

SCALARS = ("int64", "float64", "string", "bool", "timestamp", "bytes")
DTYPES = (*SCALARS, *(f"list[{dtype}]" for dtype in SCALARS))
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "int64": INT64,
    "timestamp": INT64,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=20),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "float64": st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
}
VALUES |= {f"list[{dtype}]": st.lists(values, max_size=4) for dtype, values in VALUES.items()}


def view_of(*dtypes, ttl=None):
    fields = tuple(Field(f"f{i}", dtype) for i, dtype in enumerate(dtypes))
    return BatchView("profile", ("c",), (Field("customer_id", "int64"),), "", ttl, fields, "00000000000000ff")


def rows_of(view, table, event_time):
    """`table`: a list of rows, each a list of values in the order of the features."""
    columns = {f.name: Column.of(f.dtype, [row[i] for row in table]) for i, f in enumerate(view.features)}
    return encode_plain(view, columns, event_time)


def test_a_row_is_laid_out_as_documented():
    view = view_of("int64", "string", "float64", "bool", "string")
    (row,) = rows_of(view, [[-7, "né", None, True, "x"]], 1_000)
    body = struct.pack("<BBHIQqQqQdqQ", 2, 2, 0, 4, 0xFF, 1_000, 0b100, -7, 0 << 32 | 3, 0.0, 1, 3 << 32 | 1)
    body += "néx".encode()
    assert row == struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body


@st.composite
def snapshots(draw):
    dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=70))
    count = draw(st.sampled_from([1, 2, 7, 8, 9, 20]))
    table = [[draw(st.none() | VALUES[d]) for d in dtypes] for _ in range(count)]
    return dtypes, table


@settings(max_examples=60, deadline=None)
@given(snapshots(), INT64.filter(lambda t: t < 2**63 - 1))
def test_every_value_comes_back_with_its_type(snapshot, event_time):
    dtypes, table = snapshot
    view = view_of(*dtypes)
    read = PlainReader(view).read(rows_of(view, table, event_time), 0)
    for i, name in enumerate(read.values):
        expected = [row[i] for row in table]
        assert read.values[name] == expected
        assert [type(v) for v in read.values[name]] == [type(v) for v in expected]
    assert read.newest == [event_time] * len(table)
    assert read.effective == [max(0, event_time + 1)] * len(table)


@pytest.mark.parametrize("copies", [1, 10])
def test_extremes_and_emoji_come_back_on_both_paths(copies):
    table = [
        [2**63 - 1, 1.7976931348623157e308, "🦆🏴‍☠️", -(2**63), b"\x00\xff"],
        [-(2**63), 5e-324, "", 2**63 - 1, b""],
    ] * copies
    view = view_of("int64", "float64", "string", "timestamp", "bytes")
    read = PlainReader(view).read(rows_of(view, table, 5), 10)
    assert list(map(list, zip(*read.values.values(), strict=True))) == table


def test_nan_infinity_and_minus_zero_are_stored_normalised():
    view = view_of("float64")
    read = PlainReader(view).read(rows_of(view, [[math.nan], [math.inf], [-0.0]], 5), 10)
    assert read.values["f0"] == [None, None, 0.0]
    assert math.copysign(1, read.values["f0"][2]) == 1


@pytest.mark.parametrize("copies", [1, 4])
def test_missing_rows_too_old_rows_and_nulls_are_told_apart(copies):
    view = view_of("int64", "string", ttl=100)
    young, null, old = (
        rows_of(view, [[1, "a"]], 1_000) + rows_of(view, [[None, "b"]], 900) + rows_of(view, [[3, "c"]], 899)
    )
    read = PlainReader(view).read([young, None, null, old] * copies, 1_000)
    assert read.status == ["PRESENT", "NOT_FOUND", "PRESENT", "OUTSIDE_MAX_AGE"] * copies
    assert read.values == {"f0": [1, None, None, None] * copies, "f1": ["a", None, "b", None] * copies}
    assert read.effective == [1_001, 1_000, 1_000, 1_000] * copies
    assert read.newest == [1_000, None, 900, 899] * copies


@pytest.mark.parametrize("copies", [1, 8])
def test_each_row_may_be_read_at_its_own_time(copies):
    view = view_of("int64", ttl=100)
    (row,) = rows_of(view, [[1]], 1_000)
    read = PlainReader(view).read([row, row, None] * copies, [1_100, 1_101, 7] * copies)
    assert read.values["f0"] == [1, None, None] * copies
    assert read.effective == [1_100, 1_101, 7] * copies


@pytest.mark.parametrize("copies", [1, 10])
def test_features_come_in_the_order_asked_for(copies):
    view = view_of("int64", "string", "float64")
    rows = rows_of(view, [[1, "a", None]], 0) * copies
    read = PlainReader(view, ["f2", "f0"]).read(rows, 0)
    assert list(read.values.items()) == [("f2", [None] * copies), ("f0", [1] * copies)]


def test_each_row_may_have_its_own_event_time():
    view = view_of("int64")
    rows = encode_plain(view, {"f0": Column.of("int64", [1, 2])}, np.array([10, 20]))
    assert PlainReader(view).read(rows, 0).newest == [10, 20]


def test_equal_values_give_equal_bytes_whatever_lies_under_a_null():
    view = view_of("int64", "string")
    valid = np.array([True, False])
    one = {"f0": Column("int64", np.array([1, 99]), valid), "f1": Column.of("string", ["a", "b"])}
    two = {"f0": Column("int64", np.array([1, 0]), valid), "f1": Column.of("string", ["a", "b"])}
    assert encode_plain(view, one, 5) == encode_plain(view, two, 5)


@pytest.mark.parametrize("copies", [1, 10])
@pytest.mark.parametrize(
    "damage",
    [lambda r: r[:-1], lambda r: r + b"x", lambda r: r[:20], lambda r: r[:9] + b"\x01" + r[10:], lambda r: b""],
    ids=["cut", "longer", "half a header", "another kind", "empty"],
)
def test_a_damaged_row_is_an_error_and_never_a_value(damage, copies):
    view = view_of("int64", "string")
    (row,) = rows_of(view, [[1, "abc"]], 0)
    with pytest.raises(ReadError, match="headwater materialize profile"):
        PlainReader(view).read([row, damage(row)] * copies, 0)


def test_wrong_columns_are_named():
    view = view_of("int64", "string")
    good = Column.of("int64", [1])
    with pytest.raises(UsageError, match="no column for feature 'f1'"):
        encode_plain(view, {"f0": good}, 0)
    with pytest.raises(UsageError, match="'f1': expected string, got int64"):
        encode_plain(view, {"f0": good, "f1": good}, 0)
    with pytest.raises(UsageError, match=r"one length expected, got \[1, 2\]"):
        encode_plain(view, {"f0": good, "f1": Column.of("string", ["a", "b"])}, 0)
    with pytest.raises(UsageError, match="has no feature 'f9'"):
        PlainReader(view, ["f9"])
