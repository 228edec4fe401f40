"""What becomes of an event: taken, dead letter or quarantined, whatever batch it comes in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.events.admission import Admission, Admitted
from headwater.plans.plan import Expectation, Field, Source

SOURCE = Source(
    name="orders", topic="orders", event_time="at", key="customer", tolerance=86_400_000_000,
    fields=(Field("at", "timestamp"), Field("customer", "int64"), Field("price", "float64"), Field("code", "string"),
            Field("paid", "bool"), Field("seen at", "timestamp"), Field("blob", "bytes")),
    expectations=(Expectation("between", "price", 0, 100), Expectation("in_set", "code", values=("a", "b", "é")),
                  Expectation("not_null", "customer", mostly=0.5)),
)  # fmt: skip
BROKER = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
T = '{"at": "2023-11-14T22:00:00Z", '


def admit(*values: bytes | str | None) -> Admitted:
    raw = [v.encode() if isinstance(v, str) else v for v in values]
    n = len(raw)
    return Admission(SOURCE).admit(raw, np.zeros(n, np.int64), np.arange(n) + 10, np.full(n, BROKER))


def reason(value: bytes | str | None) -> str:
    [rejected] = admit(value).rejected
    return f"{rejected.kind}: {rejected.reason}"


def row(value: str) -> dict[str, object]:
    admitted = admit(value)
    assert admitted.rejected == []
    return {name: column.to_list()[0] for name, column in admitted.events.columns.items()}


def test_an_event_becomes_a_row_of_its_fields() -> None:
    text = (
        '{"at": "2023-11-14T22:00:00Z", "customer": -5, "price": 2, "code": "\\u00e9", "paid": true,'
        ' "seen at": 7, "blob": "aGk=", "unknown": [{"x": 1e999}]}'
    )
    assert row(text) == {
        "at": 1_699_999_200_000_000, "customer": -5, "price": 2.0, "code": "é", "paid": True, "seen at": 7,
        "blob": b"hi",
    }  # fmt: skip


def test_missing_fields_and_explicit_nulls_are_null() -> None:
    assert row(T + '"price": null}') == {
        "at": 1_699_999_200_000_000, "customer": None, "price": None, "code": None, "paid": None, "seen at": None,
        "blob": None,
    }  # fmt: skip


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_not_a_number_is_null_even_for_integers_and_inside_unknown_fields(literal: str) -> None:
    text = T + f'"price": {literal}, "customer": {literal}, "code": "a", "x": [{literal}, "NaN"]}}'
    assert row(text)["price"] is None
    assert row(text)["customer"] is None


def test_a_text_that_says_nan_stays_a_text_beside_a_real_nan() -> None:
    [rejected] = admit(T + '"price": NaN, "code": "NaN"}').rejected
    assert rejected.reason == "code: expected one of 'a', 'b', '\\xe9', got 'NaN'"


def test_negative_zero_is_zero() -> None:
    assert str(row(T + '"price": -0.0}')["price"]) == "0.0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty value: expected a JSON object (a tombstone)"),
        (b"", "empty value: expected a JSON object"),
        (b" \n", "empty value: expected a JSON object"),
        ('{"at": 1', "truncated"),
        ("[1, 2]", "Expected `object`, got `array`"),
        ('"text"', "Expected `object`, got `str`"),
        ("NaN", "Expected `object`, got `null`"),
        ('{"at": 1} {"at": 2}', "trailing characters"),
        (b'{"at": 1, "code": "\xff"}', "invalid UTF-8 at byte 19"),
        (b'{"at": 1, "unknown": "\xff"}', "invalid UTF-8 at byte 22"),
        (b'{"at": 1, "unknown": "\xed\xa0\x80"}', "invalid UTF-8"),
        ('{"at": 1, "code": "\\ud800"}', "Input data was truncated"),
        ('{"at": 1, "code": "\\ud800", "price": NaN}', "JSON is malformed"),
        (T + '"customer": "7"}', "Expected `int | null`, got `str` - at `$.customer`"),
        (T + '"customer": 1.5}', "Expected `int | null`, got `float` - at `$.customer`"),
        (T + '"customer": true}', "Expected `int | null`, got `bool` - at `$.customer`"),
        (T + '"paid": 1}', "Expected `bool | null`, got `int` - at `$.paid`"),
        (T + '"code": 1}', "Expected `str | null`, got `int` - at `$.code`"),
        (T + '"blob": "*"}', "$.blob"),
        (T + '"customer": 9223372036854775808}', "customer: an integer that does not fit 64 bits"),
        (T + '"customer": -9223372036854775809}', "customer: an integer that does not fit 64 bits"),
        (T + '"price": 1e400}', "out of range"),
        (T + '"price": 1' + "0" * 400 + "}", "out of range"),
        ('{"customer": 1}', "at: the event time is missing"),
        ('{"at": null}', "at: the event time is missing"),
        ('{"at": "2023-11-31T00:00:00Z"}', "at: '2023-11-31T00:00:00Z' is not an RFC 3339 timestamp"),
        ('{"at": "yesterday"}', "at: 'yesterday' is not an RFC 3339 timestamp"),
        ('{"at": ""}', "at: '' is not an RFC 3339 timestamp"),
        ('{"at": 300000000000000000}', "at: 300000000000000000 is not an RFC 3339 timestamp of the years 1 to 9999"),
        (T + '"seen at": "soon"}', "seen at: 'soon' is not"),
        ('{"at": "2024-11-14T22:13:20Z"}', "at: event time 2024-11-14T22:13:20Z is 366d ahead of the broker's time "
         "2023-11-14T22:13:20Z, tolerance 1d"),
        ('{"at": 1, "x": ' + "[" * 101 + "]" * 101 + "}", "nested deeper than 100 levels"),
        ('{"at": 1, "x": ' + "[" * 100_000, "nested deeper than 100 levels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_dead_letter_with_its_reason(value: bytes | str | None, expected: str) -> None:
    assert reason(value).startswith("dead-letter: ")
    assert expected in reason(value)


def test_an_event_at_the_edge_of_the_tolerance_is_taken() -> None:
    assert len(admit('{"at": 1700086400000000}').events) == 1
    assert len(admit('{"at": 1700086400000001}').rejected) == 1


def test_the_largest_integers_fit() -> None:
    assert row(T + '"customer": 9223372036854775807}')["customer"] == 2**63 - 1
    assert row(T + '"customer": -9223372036854775808}')["customer"] == -(2**63)


def test_brackets_inside_of_texts_are_no_nesting() -> None:
    assert len(admit('{"at": 1, "x": "' + "[" * 5000 + '"}').events) == 1


def test_what_fails_an_expectation_is_quarantined_and_nulls_pass_between_and_in_set() -> None:
    assert reason(T + '"price": 100.5, "code": "z"}') == (
        "quarantine: price: expected a value between 0 and 100, got 100.5; "
        "code: expected one of 'a', 'b', '\\xe9', got 'z'"
    )
    assert len(admit(T + '"price": 100, "code": "b"}', '{"at": 1}').events) == 2


def test_rejected_records_keep_place_and_bytes_and_the_rest_flows_on() -> None:
    admitted = admit("{", T + '"customer": 1}', None, T + '"price": -1}', T + '"customer": 2}')
    assert admitted.events.columns["customer"].to_list() == [1, 2]
    assert admitted.events.offset.tolist() == [11, 14]
    assert admitted.index.tolist() == [1, 4]
    assert [(r.index, r.offset, r.kind, r.raw) for r in admitted.rejected] == [
        (0, 10, "dead-letter", b"{"),
        (2, 12, "dead-letter", None),
        (3, 13, "quarantine", (T + '"price": -1}').encode()),
    ]


def test_a_large_batch_keeps_every_event_at_its_place() -> None:
    bad = {0: "{", 1_999: None, 2_000: T + '"customer": "x"}', 4_500: T + '"price": -1}', 5_000: '{"at": "then"}'}
    admitted = admit(*(bad.get(i, T + f'"customer": {i}' + "}") for i in range(5_001)))
    good = [i for i in range(5_001) if i not in bad]
    assert admitted.index.tolist() == good == admitted.events.columns["customer"].to_list()
    assert admitted.events.offset.tolist() == [i + 10 for i in good]
    assert [(r.index, r.kind) for r in admitted.rejected] == [
        (0, "dead-letter"), (1_999, "dead-letter"), (2_000, "dead-letter"), (4_500, "quarantine"), (5_000, "dead-letter"),
    ]  # fmt: skip


def test_an_empty_batch_is_fine() -> None:
    admitted = admit()
    assert len(admitted.events) == 0
    assert admitted.rejected == []


FIELD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**66), 2**66), st.floats(), st.text(max_size=4), st.just("a"),
    st.sampled_from(["2023-11-14T22:00:00Z", "2023-11-14 22:00:00", "2023-11-14T22:00:00.123456789+01:00"]),
    st.lists(st.integers(), max_size=2),
)  # fmt: skip
TIME = st.one_of(
    FIELD,
    st.just("2023-11-14T22:00:00Z"),
    st.just("2023-11-14T22:00:00.123456Z"),
    st.integers(BROKER, BROKER + 2 * 86_400_000_000),
)
EVENT = st.fixed_dictionaries(
    {"at": TIME},
    optional={
        "customer": FIELD,
        "price": FIELD,
        "code": FIELD,
        "paid": FIELD,
        "seen at": FIELD,
        "blob": FIELD,
        "x": FIELD,
    },
)
GARBAGE = st.one_of(st.none(), st.binary(max_size=12), st.sampled_from([b"{", b'{"at": 1', b"[1]", b"\xc3", b'\xa9"}']))
RECORD = st.one_of(EVENT.map(lambda e: json.dumps(e).encode()), GARBAGE)


def rows(admitted: Admitted) -> list[str]:
    columns = [column.to_list() for column in admitted.events.columns.values()]
    return [repr(row) for row in zip(admitted.events.offset.tolist(), *columns, strict=True)]


@settings(max_examples=200, deadline=None)
@given(records=st.lists(RECORD, max_size=8))
def test_admission_does_not_depend_on_how_events_are_cut_into_batches(records: list[bytes | None]) -> None:
    admission, zero, broker = Admission(SOURCE), np.zeros(1, np.int64), np.array([BROKER])
    single = [admission.admit([record], zero, np.array([10 + i]), broker) for i, record in enumerate(records)]
    whole = admit(*records)
    assert rows(whole) == [row for one in single for row in rows(one)]
    assert [(r.offset, r.kind, r.reason, r.raw) for r in whole.rejected] == [
        (r.offset, r.kind, r.reason, r.raw) for one in single for r in one.rejected
    ]
