"""As-of joins of plain views, compared with a loop that looks at every row for every question."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.columns import Column
from headwater.history.as_of import newest_rows, take
from tests.history.log_factory import make_questions

DAY = 86_400_000_000


def make_rows(rows):
    """(customer, time, created, value) tuples as key columns, times and tie columns."""
    customers, times, created, values = (list(c) for c in zip(*rows, strict=True)) if rows else ([], [], [], [])
    ties = [pa.chunked_array([pa.array(created, pa.int64())]), pa.chunked_array([pa.array(values, pa.string())])]
    return [Column.of("int64", customers)], Column.of("timestamp", times), ties


def slow_answer(rows, key, at, ttl):
    best = None
    for customer, time, created, value in rows:
        if None in (customer, key, time, at) or customer != key or time > at or (ttl is not None and time < at - ttl):
            continue
        rank = (time, (created is not None, created or 0), (value is not None, value or ""))
        best = rank if best is None else max(best, rank)
    return None if best is None else (best[2][1] if best[2][0] else None)


keys = st.one_of(st.none(), st.integers(0, 2))
moments = st.one_of(st.none(), st.integers(-4, 4), st.sampled_from([-(2**62), 2**62]))
table = st.lists(
    st.tuples(keys, moments, st.one_of(st.none(), st.integers(0, 1)), st.sampled_from([None, "", "a", "🧁", "é"])),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(table, st.lists(st.tuples(st.tuples(keys), moments), max_size=8), st.sampled_from([None, 0, 1, 3]))
def test_the_newest_row_in_time_equals_the_slow_loop(rows, asked, ttl):
    columns, times, ties = make_rows(rows)
    found = newest_rows(columns, times, make_questions(asked), ttl, ties)
    expected = [slow_answer(rows, key, at, ttl) for (key,), at in asked]
    assert take(ties[1], found).to_pylist() == expected


def test_a_row_counts_at_its_own_time_and_until_the_ttl_is_over():
    #    Mon        Tue        Wed
    #     |==========|          |      ttl 1d, both ends included
    columns, times, ties = make_rows([(1, 0, 0, "monday")])
    asked = make_questions([((1,), at) for at in (-1, 0, DAY, DAY + 1)])
    assert newest_rows(columns, times, asked, DAY, ties).tolist() == [-1, 0, 0, -1]
    assert newest_rows(columns, times, asked, None, ties).tolist() == [-1, 0, 0, 0]


def test_without_join_keys_every_question_sees_every_row():
    times = Column.of("timestamp", [5, 9])
    asked = make_questions([((), at) for at in (4, 5, 9)], keys=())
    assert newest_rows([], times, asked, None).tolist() == [-1, 0, 1]
