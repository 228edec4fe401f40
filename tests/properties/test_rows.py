"""Laws of rows: bytes do not depend on how events came, and reading a row equals the slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import ReadError
from headwater.events.select import select
from headwater.rows.codec import decode, digest_of, encode, read_header
from headwater.rows.fold import fold, key_items
from headwater.rows.layout import layout_of
from headwater.rows.reader import ViewReader
from headwater.rows.table import RowTable
from tests.history.log_factory import HOUR, MINUTE, make_events, make_feature, make_view
from tests.history.naive import naive_answers, spec_of
from tests.history.test_windows_at_any_time import EVERYTHING, NOON, customers, lines, times

# Sums of quantities far out leave 64 bits; that error has a test of its own.
rows_of_lines = st.lists(
    lines.map(lambda r: {**r, "quantity": None if r["quantity"] is None else r["quantity"] % 1000}), max_size=40
)


def folded(view, rows, *, born=0):
    events, full = make_events(rows)
    found = {r.key: r.data for r in fold(layout_of(view), select(view, events), born=born)}
    return found, events, full


def streamed(view, events, cuts):
    """The same events in batches that end at `cuts`, each row reloaded from its own bytes in between."""
    table = RowTable(layout_of(view))
    for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True):
        selected = select(view, events.take(np.arange(a, b)))
        numbers, _ = table.numbers(key_items(selected.keys))
        touched = table.fold(numbers, selected, born=0) if len(numbers) else numbers
        data, _ = table.encode(touched)
        table.load(touched, [bytes(d) for d in data])
    data, _ = table.encode(np.arange(len(table)))
    return {(key,): bytes(d) for key, d in zip(table.keys, data, strict=True)}


@settings(max_examples=25, deadline=None)
@given(rows_of_lines, st.lists(st.integers(0, 40), max_size=5))
def test_bytes_do_not_depend_on_how_events_are_cut_into_batches(rows, cuts):
    view = make_view(*EVERYTHING)
    whole, events, _ = folded(view, rows)
    assert streamed(view, events, sorted(min(c, len(rows)) for c in cuts)) == whole


@settings(max_examples=20, deadline=None)
@given(rows_of_lines, st.randoms())
def test_bytes_do_not_depend_on_how_partitions_interleave(rows, random):
    view = make_view(*EVERYTHING)
    whole, events, full = folded(view, rows)
    order = sorted(range(len(full)), key=lambda i: (random.random(), i))
    # Within a partition the order is the log's.
    slots = {p: iter([i for i in range(len(full)) if full[i]["_partition"] == p]) for p in (0, 1)}
    mixed = np.array([next(slots[full[i]["_partition"]]) for i in order], np.int64)
    assert streamed(view, events.take(mixed), [len(rows) // 2]) == whole


@settings(max_examples=25, deadline=None)
@given(rows_of_lines, st.lists(st.tuples(st.tuples(customers.filter(lambda c: c is not None)), times), max_size=6))
def test_reading_a_row_equals_the_slow_loop(rows, asked):
    view = make_view(*EVERYTHING)
    found, _, full = folded(view, rows)
    read = ViewReader(view).read([found.get(key) for key, _ in asked], [at for _, at in asked])
    questions = [(key, at) for (key, _), at in zip(asked, read.effective, strict=True)]
    expected = naive_answers(full, spec_of(view, "ts"), questions)
    for i, answer in enumerate(expected):
        assert {name: values[i] for name, values in read.values.items()} == answer


@settings(max_examples=20, deadline=None)
@given(rows_of_lines)
def test_decoding_and_encoding_gives_the_same_bytes(rows):
    view = make_view(*EVERYTHING)
    layout = layout_of(view)
    found = list(folded(view, rows)[0].values())
    if found:
        again, digests = encode(layout, decode(layout, found))
        assert [bytes(d) for d in again] == found
        assert [digest_of(d) for d in found] == digests.tolist() == [read_header(d).digest for d in found]


def test_events_that_were_applied_already_change_nothing():
    view = make_view(make_feature("count", window=None), make_feature("sum", "price"))
    events, _ = make_events([{"customer": 1, "ts": NOON + i, "price": 1.5} for i in range(4)])
    table = RowTable(layout_of(view))
    for part in (range(3), range(1, 4), range(4)):
        selected = select(view, events.take(np.array(part)))
        table.fold(table.numbers(key_items(selected.keys))[0], selected)
    data, _ = table.encode(np.array([0]))
    assert ViewReader(view).read([bytes(data[0])], NOON).values["None_count_None"] == [4]


def test_a_late_event_inside_the_window_edits_its_tile():
    #   10:00        10:55   11:00
    #     |--late-------|--on--|      1h: both count, whichever came first
    view = make_view(make_feature("count"))
    rows = [{"customer": 1, "ts": NOON + 59 * MINUTE}, {"customer": 1, "ts": NOON + MINUTE}]
    found, *_ = folded(view, rows)
    assert ViewReader(view).read([found[1,]], NOON + HOUR).values["None_count_3600000000"] == [2]


def test_a_list_keeps_no_value_that_has_left_its_longest_window():
    #   02:00          11:00      12:00
    #     |--a--|  …     |----b----|        2h: the row with a is that of an event without a value
    view = make_view(make_feature("last_n", "product"), make_feature("last_n", "product", 2 * HOUR))
    late, new = {"customer": 1, "ts": NOON - 10 * HOUR}, {"customer": 1, "ts": NOON, "product": "b"}
    for rows in ([{**late, "product": "a"}, new], [new, {**late, "product": "a"}]):
        nothing = [{**r, "product": None} if r["ts"] < NOON else r for r in rows]
        assert folded(view, rows)[0] == folded(view, nothing)[0]
    found, *_ = folded(
        make_view(*view.features, make_feature("last_n", "product", None)), [{**late, "product": "a"}, new]
    )
    assert b"a" in found[1,][-24:]


def test_a_list_holds_the_newest_of_all_partitions_and_a_late_event_finds_its_place():
    view = make_view(make_feature("last_n", "product", None, name="newest"))
    rows = [
        {"customer": 1, "ts": NOON, "product": "d"},
        {"customer": 1, "ts": NOON - 2, "product": "late"},
        {"customer": 1, "ts": NOON, "product": "e", "_partition": 1, "_offset": 0},
        {"customer": 1, "ts": NOON - 1, "product": ""},
        {"customer": 1, "ts": NOON + 1},
    ]
    found, events, _ = folded(view, rows)
    assert streamed(view, events, [1, 2, 3, 4]) == found
    assert ViewReader(view).read([found[1,]], NOON).values == {"newest": [["e", "d", ""]]}


def test_an_event_too_late_for_any_tile_still_moves_what_the_row_has_applied():
    view = make_view(make_feature("count"))
    rows = [{"customer": 1, "ts": NOON}, {"customer": 1, "ts": NOON - 10 * HOUR}]
    found, *_ = folded(view, rows)
    header = read_header(found[1,])
    assert (header.newest, header.partitions) == (NOON, ((0, 0, 1),))
    assert found != folded(view, rows[:1])[0]


def test_an_integer_sum_past_64_bits_is_an_error_of_the_read_that_names_the_view():
    view = make_view(make_feature("sum", "quantity", None, name="q"))
    found, *_ = folded(view, [{"customer": 1, "ts": NOON + i, "quantity": 2**63 - 1} for i in range(2)])
    with pytest.raises(ReadError, match="View 'spend': The sum 'q' needs more than 64 bits"):
        ViewReader(view).read([found[1,]], NOON)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9), min_size=1, max_size=30), st.integers(0, 30))
def test_variances_of_any_integers_are_exact_however_they_are_cut(quantities, cut):
    view = make_view(make_feature("var", "quantity", None, name="v"), make_feature("stddev", "quantity", name="s"))
    rows = [{"customer": 1, "ts": NOON - i * MINUTE, "quantity": q} for i, q in enumerate(quantities)]
    found, events, full = folded(view, rows)
    assert streamed(view, events, [min(cut, len(rows))]) == found
    read = ViewReader(view).read([found[1,]], NOON)
    expected = naive_answers(full, spec_of(view, "ts"), [((1,), read.effective[0])])
    assert [{name: values[0] for name, values in read.values.items()}] == expected


def test_a_row_of_another_definition_is_refused():
    view, other = make_view(make_feature("count")), make_view(make_feature("count"))
    found, *_ = folded(view, [{"customer": 1, "ts": NOON}])
    changed = bytearray(found[1,])
    changed[16] ^= 1
    with pytest.raises(ReadError, match="another codec version or definition"):
        ViewReader(other).read([bytes(changed)], NOON)


def test_more_than_256_distinct_values_are_estimated_as_the_slow_loop_does():
    view = make_view(make_feature("approx_distinct", "product", 30 * 24 * HOUR, 24 * HOUR, name="d"))
    rows = [{"customer": 1, "ts": NOON - (i % 29) * 24 * HOUR, "product": f"p{i}"} for i in range(3000)]
    found, _, full = folded(view, rows)
    read = ViewReader(view).read([found[1,]], NOON + 1)
    assert read.values["d"] == [naive_answers(full, spec_of(view, "ts"), [((1,), NOON + 1)])[0]["d"]]
