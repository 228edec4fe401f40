"""Windowed features at any time, compared with the slow loop of `naive.py`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import ReadError
from headwater.history.local import point_in_time
from tests.history.log_factory import (
    ALL_FUNCTIONS,
    FIELDS,
    HOUR,
    MINUTE,
    answers,
    make_events,
    make_feature,
    make_questions,
    make_view,
)
from tests.history.naive import naive_answers, spec_of

NOON = 1_320_000_000_000_000 // HOUR * HOUR
EVERYTHING = [
    make_feature(function, column, window, hop)
    for function, column in ALL_FUNCTIONS
    for window, hop in ((HOUR, 5 * MINUTE), (30 * 24 * HOUR, 24 * HOUR), (None, None))
]

times = st.one_of(
    st.integers(NOON - 3 * HOUR, NOON),
    st.integers(-40, 0).map(lambda n: NOON + 5 * MINUTE * n),
    st.integers(-60, 0).map(lambda n: NOON + 24 * HOUR * n),
)
customers = st.one_of(st.none(), st.integers(0, 2))
products = st.one_of(st.none(), st.sampled_from(["85123A", "🫖🧁", "é", "e\u0301", "", "10", "9", "C|1", "\\"]))
prices = st.one_of(
    st.none(), st.sampled_from([2.55, 0.0000005, -0.0000005, 1e300, -1e300, 9.2e12, -0.0, float("nan"), float("inf")]),
    st.floats(-1e6, 1e6),
)  # fmt: skip
quantities = st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**60), 2**60))
lines = st.fixed_dictionaries(
    {
        "customer": customers, "product": products, "ts": times, "price": prices, "quantity": quantities,
        "paid": st.sampled_from([None, True, False]), "raw": st.sampled_from([None, b"", b"\x00\xff", b"7"]),
        "_partition": st.integers(0, 1),
    }
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(lines, max_size=6), st.lists(st.tuples(st.tuples(customers), times), max_size=8))
def test_every_function_equals_the_slow_loop(rows, asked):
    view = make_view(*EVERYTHING)
    events, full = make_events(rows)
    expected = naive_answers(full, spec_of(view, "ts"), asked)
    assert answers(point_in_time(view, events, make_questions(asked))) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(lines, max_size=40), st.lists(st.tuples(st.tuples(products, customers), times), max_size=8))
def test_keys_of_two_columns_equal_the_slow_loop(rows, asked):
    keys = ("product", "customer")
    view = make_view(make_feature("count"), make_feature("last", "price", None), keys=keys)
    events, full = make_events(rows)
    expected = naive_answers(full, spec_of(view, "ts"), asked)
    assert answers(point_in_time(view, events, make_questions(asked, keys))) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(lines, max_size=25), st.randoms())
def test_the_order_in_which_events_arrive_changes_no_value(rows, random):
    view = make_view(*EVERYTHING)
    asked = [((c,), NOON - m * 7 * MINUTE) for c in (0, 1, 2) for m in range(4)]
    _, full = make_events([{**r, "quantity": None} for r in rows])
    shuffled = random.sample(full, len(full))
    first, _ = make_events(full)
    second, _ = make_events(shuffled)
    questions = make_questions(asked)
    assert answers(point_in_time(view, first, questions)) == answers(point_in_time(view, second, questions))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30), st.integers(-(2**63), 2**63 - 1))
def test_times_anywhere_in_int64_equal_the_slow_loop(moments, at):
    view = make_view(
        make_feature("count"), make_feature("last", "quantity", None), make_feature("count", None, None, name="n")
    )
    events, full = make_events([{"customer": i % 2, "ts": t, "quantity": i} for i, t in enumerate(moments)])
    asked = [((c,), q) for c in (0, 1) for q in [at, *moments]]
    assert answers(point_in_time(view, events, make_questions(asked))) == naive_answers(
        full, spec_of(view, "ts"), asked
    )


def test_a_window_begins_on_a_hop_and_ends_before_the_read():
    #   10:00     10:05          11:02       11:05
    #     |.........|===============|)         |      1h, hop 5m, read at 11:02: floor(10:02, 5m) = 10:00
    #     [===========================)
    ten = NOON - 2 * HOUR
    view = make_view(make_feature("count"))
    events, _ = make_events([{"customer": 1, "ts": ten + at} for at in (-1, 0, HOUR, 62 * MINUTE - 1, 62 * MINUTE)])
    asked = make_questions([((1,), ten + 62 * MINUTE), ((1,), ten + 65 * MINUTE), ((1,), ten), ((1,), ten + 1)])
    assert point_in_time(view, events, asked)[view.features[0].name].to_list() == [3, 3, 1, 2]


def test_windows_before_1970_begin_on_a_hop_too():
    #   -00:10   -00:05     0
    #     [=========)                 1h window of hop 5m read 1 us before 1970 begins at -01:05
    view = make_view(make_feature("count"))
    events, _ = make_events([{"customer": 1, "ts": t} for t in (-HOUR - 5 * MINUTE - 1, -HOUR - 5 * MINUTE, -2, -1)])
    assert point_in_time(view, events, make_questions([((1,), -1)]))[view.features[0].name].to_list() == [2]


def test_among_equal_times_first_and_last_are_by_partition_and_offset():
    view = make_view(make_feature("last", "product"), make_feature("first", "product", None))
    rows = [
        {"customer": 1, "ts": NOON - 1, "product": "b", "_partition": 1, "_offset": 3},
        {"customer": 1, "ts": NOON - 1, "product": "c", "_partition": 1, "_offset": 7},
        {"customer": 1, "ts": NOON - 1, "product": None, "_partition": 2, "_offset": 0},
        {"customer": 1, "ts": NOON - 1, "product": "a", "_partition": 0, "_offset": 9},
        {"customer": 1, "ts": NOON - 2, "product": "d", "_partition": 3, "_offset": 1},
    ]
    events, _ = make_events(rows)
    found = point_in_time(view, events, make_questions([((1,), NOON)]))
    assert [c.to_list() for c in found.values()] == [["c"], ["d"]]
    found = point_in_time(view, events.take(events.time == NOON - 1), make_questions([((1,), NOON)]))
    assert [c.to_list() for c in found.values()] == [["c"], ["a"]]


def test_an_empty_window_counts_0_has_empty_lists_and_no_other_value():
    view = make_view(*(make_feature(f, c) for f, c in ALL_FUNCTIONS))
    events, _ = make_events([{"customer": 1, "ts": NOON}])
    asked = make_questions([((None,), NOON), ((7,), NOON), ((1,), NOON), ((1,), None)])
    empty = {"count": 0, "distinct": 0, "approx_distinct": 0, "last_n": [], "top_k": []}
    nothing = {f.name: empty.get(f.function) for f in view.features}
    assert answers(point_in_time(view, events, asked)) == [nothing] * 4


def test_there_may_be_no_events_or_no_questions():
    view = make_view(*EVERYTHING)
    none, _ = make_events([])
    some, _ = make_events([{"customer": 1, "ts": NOON}])
    assert len(answers(point_in_time(view, none, make_questions([((1,), NOON)])))) == 1
    assert answers(point_in_time(view, some, make_questions([]))) == []


def test_an_integer_sum_past_64_bits_is_an_error_that_names_its_key():
    view = make_view(make_feature("sum", "quantity", name="quantity_sum_1h"))
    rows = [{"customer": c, "ts": NOON - 1, "quantity": 2**62} for c in (3, 3, 4)]
    events, _ = make_events(rows)
    assert point_in_time(view, events, make_questions([((4,), NOON)]))["quantity_sum_1h"].to_list() == [2**62]
    with pytest.raises(ReadError, match=r"'spend', feature 'quantity_sum_1h'.*\{'customer': 3\} at 2011-.*64 bits"):
        point_in_time(view, events, make_questions([((4,), NOON), ((3,), NOON)]))


def test_sums_and_means_at_the_ends_of_int64_are_exact():
    view = make_view(make_feature("sum", "quantity"), make_feature("mean", "quantity"))
    top = 2**63 - 1
    rows = [{"customer": 1, "ts": NOON - 1, "quantity": q} for q in (top, top, -top - 1, -top - 1, top)]
    events, _ = make_events(rows)
    result = answers(point_in_time(view, events, make_questions([((1,), NOON)])))
    assert list(result[0].values()) == [top - 2, (top - 2) / 5]


def test_variances_at_the_ends_of_int64_are_exact():
    view = make_view(make_feature("var", "quantity", None), make_feature("stddev", "quantity", None))
    far = [2**63 - 1, -(2**63), 2**63 - 1, 0, 2**31, -(2**31), 2**32 + 1]
    rows = [{"customer": c, "ts": NOON - 1, "quantity": q} for c in (1, 2) for q in far[c - 1 :: c]]
    events, full = make_events([*rows, {"customer": 3, "ts": NOON - 1, "quantity": 5}])
    asked = [((c,), NOON) for c in (1, 2, 3)]
    expected = naive_answers(full, spec_of(view, "ts"), asked)
    assert answers(point_in_time(view, events, make_questions(asked))) == expected
    assert expected[2] == dict.fromkeys(expected[2])


def test_more_than_256_distinct_values_are_estimated_like_the_published_algorithm():
    view = make_view(make_feature("approx_distinct", "product", None), make_feature("approx_distinct", "product"))
    rows = [{"customer": i % 2, "ts": NOON - 9000 + i, "product": f"🫖{i * 7 % 6007}"} for i in range(9000)]
    events, full = make_events(rows)
    asked = [((c,), NOON - back) for c in (0, 1) for back in (0, 20, 300, 4500, 8480, 8488, 8490, 9000)]
    expected = naive_answers(full, spec_of(view, "ts"), asked)
    assert answers(point_in_time(view, events, make_questions(asked))) == expected


def test_only_the_features_asked_for_are_computed():
    view = make_view(*EVERYTHING)
    events, _ = make_events([])
    assert list(point_in_time(view, events, make_questions([]), ["price_sum_None"])) == ["price_sum_None"]
    assert FIELDS["price"] == "float64"
