"""Timestamps of events: RFC 3339 in all its forms, many at a time and one by one alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.events.timestamps import format_timestamp, parse_timestamp, parse_timestamps

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(*args: int) -> int:
    return (datetime(*args, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2011-12-09T12:50:00Z", micros(2011, 12, 9, 12, 50)),
        ("2011-12-09T12:50:00", micros(2011, 12, 9, 12, 50)),
        ("2011-12-09 12:50:00z", micros(2011, 12, 9, 12, 50)),
        ("2011-12-09t12:50:00.5Z", micros(2011, 12, 9, 12, 50, 0, 500_000)),
        ("2011-12-09T12:50:00.123Z", micros(2011, 12, 9, 12, 50, 0, 123_000)),
        ("2011-12-09T12:50:00.123456", micros(2011, 12, 9, 12, 50, 0, 123_456)),
        ("2011-12-09T12:50:00.123456999Z", micros(2011, 12, 9, 12, 50, 0, 123_456)),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2011-12-09T12:50:00+05:30", micros(2011, 12, 9, 7, 20)),
        ("2011-12-09T12:50:00.25-01:00", micros(2011, 12, 9, 13, 50, 0, 250_000)),
        ("2012-02-29T00:00:00Z", micros(2012, 2, 29)),
        ("0001-01-01T00:00:00Z", micros(1, 1, 1)),
        ("9999-12-31T23:59:59.999999Z", micros(9999, 12, 31, 23, 59, 59, 999_999)),
    ],
)
def test_rfc_3339_in_its_forms(text: str, expected: int) -> None:
    assert parse_timestamp(text) == expected
    assert parse_timestamps([text])[0].tolist() == [expected]
    assert parse_timestamps([text, None, 5, text])[0].tolist() == [expected, 0, 5, expected]


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2011-12-09", "2011-12-09T12:50Z",
        "2011-13-09T12:50:00Z", "2011-00-09T12:50:00Z", "2011-12-32T12:50:00Z", "2011-12-00T12:50:00Z",
        "2011-02-29T12:50:00Z", "2011-12-09T24:00:00Z", "2011-12-09T12:60:00Z", "2011-12-09T12:50:60Z",
        "0000-01-01T00:00:00Z", "2011-12-09T12:50:00.Z", "2011-12-09T12:50:00.1234567890Z", "2011-12-09T12:50:00+24:00",
        "2011-12-09T12:50:00+0530", "2011-12-09T12:50:00 Z", "+011-12-09T12:50:00Z", "2011-12-09T12:50:00Z\n",
        "\uff12011-12-09T12:50:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2011/12/09T12:50:00Z",
        "2011-12-09X12:50:00Z", "2011-12-09T12:50:0aZ",
    ],
)  # fmt: skip
def test_anything_else_is_wrong_and_spoils_no_neighbour(text: str) -> None:
    assert parse_timestamp(text) is None
    values, valid, wrong = parse_timestamps(["2011-12-09T12:50:00Z", text, "2011-12-09T12:50:00.000001Z"])
    good = micros(2011, 12, 9, 12, 50)
    assert values.tolist() == [good, 0, good + 1]
    assert valid.tolist() == [True, False, True]
    assert wrong.tolist() == [False, True, False]


def test_null_is_neither_a_value_nor_wrong() -> None:
    values, valid, wrong = parse_timestamps([None, 7])
    assert (values.tolist(), valid.tolist(), wrong.tolist()) == ([0, 7], [False, True], [False, False])


@given(st.lists(st.tuples(st.datetimes(), st.sampled_from(["seconds", "milliseconds", "microseconds"]),
                          st.sampled_from(["", "Z"]), st.sampled_from("T ")), max_size=6))  # fmt: skip
def test_many_at_a_time_equals_the_standard_library(parts: list[tuple[datetime, str, str, str]]) -> None:
    texts = [moment.isoformat(sep, timespec) + zone for moment, timespec, zone, sep in parts]
    expected = [
        (datetime.fromisoformat(t[:-1] if t.endswith("Z") else t) - datetime(1970, 1, 1)) // timedelta(microseconds=1)
        for t in texts
    ]
    assert parse_timestamps(texts)[0].tolist() == expected
    assert [parse_timestamp(t) for t in texts] == expected


@given(st.datetimes())
def test_what_is_written_reads_back(moment: datetime) -> None:
    at = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert parse_timestamp(format_timestamp(at)) == at
