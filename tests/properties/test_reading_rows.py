"""Reading rows: one by one and many at once give the same values, which are those of the slow loop."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import ReadError
from headwater.events.select import select
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of
from headwater.rows.reader import NOT_FOUND, PRESENT, ViewReader
from tests.history.log_factory import HOUR, MINUTE, make_events, make_feature, make_view
from tests.history.naive import naive_answers, spec_of
from tests.history.test_windows_at_any_time import EVERYTHING, NOON, lines, times

MANY = 40
NOBODY = 9
# Sums of quantities far out leave 64 bits; that error has a test of its own.
some_lines = st.lists(
    lines.map(lambda r: {**r, "quantity": None if r["quantity"] is None else r["quantity"] % 1000}), max_size=40
)
wide_lines = st.lists(
    lines.map(lambda r: {**r, "price": 9.2e12 if r["price"] else -9.2e12, "quantity": 1}), max_size=40
)


def folded(view, rows):
    events, full = make_events(rows)
    return {r.key[0]: r.data for r in fold(layout_of(view), select(view, events), born=0)}, full


def by_row(read):
    return [dict(zip(read.values, values, strict=True)) for values in zip(*read.values.values(), strict=True)]


@settings(max_examples=25, deadline=None)
@given(some_lines | wide_lines, st.lists(st.tuples(st.sampled_from([0, 1, 2, NOBODY]), times), min_size=1, max_size=6))
def test_many_rows_at_once_read_as_each_alone_and_as_the_slow_loop(rows, asked):
    view = make_view(*EVERYTHING)
    found, full = folded(view, rows)
    asked = (asked * MANY)[:MANY]
    data, at = [found.get(key) for key, _ in asked], [q for _, q in asked]
    reader = ViewReader(view)
    many, each = reader.read(data, at), [reader.read([row], q) for row, q in zip(data, at, strict=True)]
    assert many.effective == [one.effective[0] for one in each]
    assert many.newest == [one.newest[0] for one in each]
    assert many.status == [one.status[0] for one in each] == [NOT_FOUND if row is None else PRESENT for row in data]
    assert by_row(many) == [by_row(one)[0] for one in each]
    assert by_row(many) == naive_answers(
        full, spec_of(view, "ts"), [((k,), q) for (k, _), q in zip(asked, many.effective, strict=True)]
    )


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize("price", [9.2e12, -9.2e12, 2.0**27])
def test_sums_of_tiles_that_leave_64_bits_together_are_exact(rows, price):
    view = make_view(*(make_feature(f, "price", HOUR, 5 * MINUTE) for f in ("sum", "mean")))
    found, full = folded(view, [{"customer": 1, "ts": NOON - 1 - 5 * MINUTE * i, "price": price} for i in range(9)])
    expected = naive_answers(full, spec_of(view, "ts"), [((1,), NOON)])[0]
    assert by_row(ViewReader(view).read([found[1]] * rows, NOON)) == [expected] * rows


@settings(max_examples=10, deadline=None)
@given(some_lines)
def test_the_features_asked_for_come_in_their_order_and_no_others(rows):
    view = make_view(*EVERYTHING)
    found, _ = folded(view, rows)
    names = [f.name for f in view.features][::-7]
    for data in ([found.get(0)], [found.get(0)] * MANY):
        whole, part = ViewReader(view).read(data, NOON), ViewReader(view, names).read(data, NOON)
        assert part.values == {name: whole.values[name] for name in names}
        assert list(part.values) == names


@pytest.mark.parametrize("rows", [1, MANY])
def test_an_integer_sum_past_64_bits_names_view_and_feature_however_many_rows_are_read(rows):
    view = make_view(make_feature("sum", "quantity", HOUR, 5 * MINUTE))
    found, _ = folded(view, [{"customer": 1, "ts": NOON - 1, "quantity": 2**62}] * 3)
    with pytest.raises(ReadError, match=f"'{view.name}': The sum 'quantity_sum_3600000000' needs more than 64 bits"):
        ViewReader(view).read([found[1]] * rows, NOON)


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda row: row[:-8], "do not fit its length"),
        (lambda row: row[:-3], "length is not that of a row"),
        (lambda row: row[:16], "length is not that of a row"),
        (lambda row: row[:10] + b"\xff\xff" + row[12:], "do not fit its length"),
        (lambda row: row[:8] + b"\x07" + row[9:], "another codec version or definition"),
    ],
)
def test_a_damaged_row_is_an_error_that_names_the_view_however_many_rows_are_read(rows, damage, message):
    view = make_view(make_feature("count", None, HOUR, 5 * MINUTE))
    found, _ = folded(view, [{"customer": 1, "ts": NOON - 1}])
    with pytest.raises(ReadError, match=f"'{view.name}' has a row .*{message}"):
        ViewReader(view).read([damage(found[1])] * rows, NOON)
