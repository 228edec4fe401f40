"""The naive loop, held against another slow loop (of the tests), numbers by hand, and numpy's expressions."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.aggregations.statistics import FUNCTIONS
from headwater.expressions.evaluate import evaluate
from headwater.expressions.parse import parse
from headwater.plans.plan import Expectation, Field, Source
from headwater.testing.cases import Record
from headwater.testing.naive_expressions import value_of
from headwater.testing.naive_loop import OPERATORS, PAST_64_BITS, NaiveLoop, admitted
from tests.history.log_factory import FIELDS, HOUR, MINUTE, SOURCE, make_events, make_feature, make_view
from tests.history.naive import naive_answers, spec_of
from tests.history.test_windows_at_any_time import EVERYTHING, NOON, customers, lines, times
from tests.properties.test_expressions import EXPRESSIONS, bits, tables

FIT = {"quantity": st.integers(-5, 5)}


def loop_over(view, rows):
    records = [Record(r.get("_partition", 0), r.get("_offset", i), r["ts"], r) for i, r in enumerate(rows)]
    return NaiveLoop(view, SOURCE, records)


def test_every_operator_of_the_product_has_a_function_of_its_own_here():
    assert set(FUNCTIONS) <= set(OPERATORS)


@settings(max_examples=60, deadline=None)
@given(st.lists(lines, max_size=8), st.lists(st.tuples(st.tuples(customers.filter(lambda c: c is not None)), times)))
def test_the_slow_loop_of_the_tests_says_the_same(rows, asked):
    view = make_view(*EVERYTHING)
    _, full = make_events(rows)
    loop = loop_over(view, full)
    expected = naive_answers(full, spec_of(view, "ts"), asked)
    too_wide = {f.name for f in view.features if f.function == "sum" and f.column_dtype == "int64"}
    for (key, at), answer in zip(asked, expected, strict=True):
        for name in too_wide:
            if answer[name] is not None and not -(2**63) <= answer[name] < 2**63:
                answer[name] = PAST_64_BITS
        assert loop.answer(key, at) == answer


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), st.one_of(*EXPRESSIONS.values()))
def test_expressions_one_by_one_equal_those_over_columns(table, text):
    tree = parse(text, {name: column.dtype for name, column in table.items()}, place="test")
    items = {name: column.to_list() for name, column in table.items()}
    expected = evaluate(tree, table, len(items["i"])).to_list()
    found = [value_of(tree, {name: values[i] for name, values in items.items()}) for i in range(len(expected))]
    assert [bits(v) for v in found] == [bits(v) for v in expected], text


def test_a_window_begins_on_a_hop_and_ends_before_the_read():
    #   10:00     10:05          11:02       11:05
    #     |.........|===============|)         |      1h, hop 5m, read at 11:02: floor(10:02, 5m) = 10:00
    #     [===========================)
    view = make_view(make_feature("count", name="n"))
    ten = NOON - 2 * HOUR
    moments = (ten - 1, ten, ten + HOUR, ten + 62 * MINUTE - 1, ten + 62 * MINUTE)
    loop = loop_over(view, [{"customer": 1, "ts": t} for t in moments])
    assert [loop.answer((1,), ten + m * MINUTE)["n"] for m in (62, 65)] == [3, 3]
    assert [loop.answer((1,), ten + us)["n"] for us in (0, 1)] == [1, 2]
    assert (loop.newest((1,)), loop.newest((2,))) == (ten + 62 * MINUTE, None)


@pytest.mark.parametrize(
    ("values", "broker_time", "form", "taken"),
    [
        ({"price": 0.0}, NOON, "full", True),
        ({"price": -0.0000001}, NOON, "full", False),
        ({"price": None}, NOON, "full", True),
        ({"price": float("nan")}, NOON, "full", True),
        ({"price": 1.0, "product": None}, NOON, "full", False),
        ({"price": 1.0, "quantity": 2**63}, NOON, "full", False),
        ({"price": 1.0}, NOON - MINUTE, "sparse", True),
        ({"price": 1.0}, NOON - MINUTE - 1, "full", False),
        ({"price": 1.0, "ts": None}, NOON, "full", False),
        ({"price": 1.0}, NOON, "cut off", False),
        ({"price": 1.0}, NOON, "tombstone", False),
    ],
)
def test_admission_of_one_event(values, broker_time, form, taken):
    fields = tuple(Field(name, dtype) for name, dtype in FIELDS.items())
    expected = (
        Expectation("between", "price", 0, 10), Expectation("not_null", "product"),
        Expectation("in_set", "product", values=("b",), mostly=0.5),
    )  # fmt: skip
    source = Source("lines", "lines", "ts", None, MINUTE, fields, expected)
    record = Record(0, 0, broker_time, {"product": "a", "ts": NOON, **values}, form)
    assert (admitted(record, source) is not None) == taken
