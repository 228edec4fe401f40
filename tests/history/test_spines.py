"""What a spine may be, and what is said about one that is not."""

import datetime as dt

import pyarrow as pa
import pytest

from headwater.errors import UsageError
from headwater.history import spine as spines
from headwater.plans.plan import Field

NOON = dt.datetime(2011, 12, 9, 12, tzinfo=dt.UTC)
MICROS = 1_323_432_000_000_000
CUSTOMER = Field("customer_id", "int64")


def spine_of(**columns):
    return pa.table(columns)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([NOON], pa.timestamp("us", "UTC")),
        ([NOON.replace(tzinfo=None)], pa.timestamp("us")),
        ([NOON.replace(tzinfo=None)], pa.timestamp("s")),
        ([NOON], pa.timestamp("ns", "Europe/Berlin")),
        ([NOON], pa.timestamp("ms", "America/New_York")),
    ],
)
def test_times_of_any_unit_and_zone_are_microseconds_in_utc(values, kind):
    assert spines.times(spine_of(event_timestamp=pa.array(values, kind))).to_list() == [MICROS]


def test_a_date_is_its_midnight_and_a_missing_time_stays_missing():
    dates = spine_of(event_timestamp=pa.array([dt.date(1970, 1, 2), None]))
    assert spines.times(dates).to_list() == [86_400_000_000, None]
    assert spines.times(spine_of(event_timestamp=pa.nulls(2))).to_list() == [None, None]


def test_nanoseconds_are_cut_off_towards_the_past():
    column = pa.array([1_999, -1], pa.timestamp("ns"))
    assert spines.times(spine_of(event_timestamp=column)).to_list() == [1, -1]


def test_a_missing_time_column_is_named_with_its_nearest():
    with pytest.raises(UsageError, match=r"no column 'event_timestamp', its time column\. Did you mean 'event_time'"):
        spines.times(spine_of(event_time=[1], customer_id=[1]))


def test_text_is_no_time():
    with pytest.raises(UsageError, match="'event_timestamp' is string, expected a timestamp"):
        spines.times(spine_of(event_timestamp=["2011-12-09"]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([17850, None], pa.int32()),
        pa.array([17850, None], pa.uint64()),
        pa.array([17850.0, None], pa.float64()),
        pa.array([17850.0, float("nan")], pa.float32()),
        pa.array([17850, None], pa.int16()).dictionary_encode(),
    ],
)
def test_whole_numbers_of_any_width_are_integer_keys(column):
    assert spines.key_column(spine_of(customer_id=column), "spend", CUSTOMER, "customer_id").to_list() == [17850, None]


@pytest.mark.parametrize(
    "column",
    [pa.array(["17850"]), pa.array([17850.5]), pa.array([2**63], pa.uint64()), pa.array([True]), pa.array([1e300])],
)
def test_what_only_looks_like_an_integer_is_refused(column):
    with pytest.raises(UsageError, match=r"'customer_id' is .*, but the join key of view 'spend' is int64"):
        spines.key_column(spine_of(customer_id=column), "spend", CUSTOMER, "customer_id")


def test_numbers_are_no_text_keys():
    with pytest.raises(UsageError, match="'stock_code' is int64, but the join key of view 'demand' is string"):
        spines.key_column(spine_of(stock_code=[85123]), "demand", Field("stock_code", "string"), "stock_code")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_keys_may_be_stored_in_any_way(kind):
    column = pa.array(["85123A", None, "🫖"]).cast(kind)
    found = spines.key_column(spine_of(stock_code=column), "demand", Field("stock_code", "string"), "stock_code")
    assert found.to_list() == ["85123A", None, "🫖"]


def test_a_missing_join_key_is_named_with_its_view_and_nearest():
    with pytest.raises(
        UsageError, match=r"no column 'customer_id', a join key of view 'spend'\. Did you mean 'customerid'"
    ):
        spines.key_column(spine_of(customerid=[1]), "spend", CUSTOMER, "customer_id")


def test_a_column_that_is_there_twice_is_refused():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["customer_id", "customer_id"])
    with pytest.raises(UsageError, match="2 columns named 'customer_id'"):
        spines.key_column(table, "spend", CUSTOMER, "customer_id")
