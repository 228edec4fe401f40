"""Laws of states with a bound (lists, sets, counts): what is left out never changes a value, nor do cuts and orders bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.rows.reader import ViewReader
from tests.history.log_factory import HOUR, MINUTE, make_feature, make_view
from tests.history.naive import naive_answers, spec_of
from tests.history.test_windows_at_any_time import NOON
from tests.properties.test_rows import folded, streamed

COLUMNS = ("product", "quantity", "price", "raw", "paid", "ts")
WINDOWS = ((HOUR, 5 * MINUTE), (2 * HOUR, 15 * MINUTE), (None, None))
BOUNDED = [
    make_feature(function, column, window, hop, n=bound, limit=bound, name=f"{column}_{function}_{window}")
    for function in ("last_n", "distinct", "top_k")
    for column in COLUMNS
    # The lifetime has a bound of its own, else its state would serve the windows too, and never be trimmed.
    for window, hop, bound in ((*WINDOWS[0], 2), (*WINDOWS[1], 2), (None, None, 3))
]
words = st.sampled_from(["a", "b", "", "🫖", "ab", "a\x00"])
# Few values and few moments, so that bounds, ties and values that come back are met all the time.
events = st.lists(
    st.fixed_dictionaries(
        {
            "customer": st.integers(0, 1), "product": st.none() | words, "quantity": st.none() | st.integers(-2, 2),
            "price": st.none() | st.sampled_from([-1.5, -0.0, 0.0, 1e300, 2.0]), "paid": st.none() | st.booleans(),
            "raw": st.none() | words.map(str.encode), "ts": st.integers(-36, 0).map(lambda n: NOON + 5 * MINUTE * n),
            "_partition": st.integers(0, 1),
        }
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(events, st.lists(st.integers(0, 40), max_size=4), st.integers(0, 30))
def test_values_are_those_of_the_slow_loop_and_bytes_those_of_any_cut(rows, cuts, later):
    view = make_view(*BOUNDED)
    found, batch, full = folded(view, rows)
    assert streamed(view, batch, sorted(min(c, len(rows)) for c in cuts)) == found
    keys = [(0,), (1,)]
    read = ViewReader(view).read([found.get(k) for k in keys], NOON - HOUR + 5 * MINUTE * later)
    expected = naive_answers(full, spec_of(view, "ts"), list(zip(keys, read.effective, strict=True)))
    for i, answer in enumerate(expected):
        assert {name: values[i] for name, values in read.values.items()} == answer


@settings(max_examples=30, deadline=None)
@given(events, st.randoms())
def test_bytes_do_not_depend_on_how_partitions_interleave(rows, random):
    view = make_view(*BOUNDED)
    whole, batch, full = folded(view, rows)
    lines = [[i for i, e in enumerate(full) if e["_partition"] == p] for p in (0, 1)]
    order = [line.pop(0) for line in random.sample([lines[e["_partition"]] for e in full], len(full))]
    assert streamed(view, batch.take(np.array(order, np.int64)), [len(rows) // 3]) == whole


def test_a_set_past_its_limit_keeps_the_values_seen_last():
    #   11:00           11:50    12:00
    #     |--a--b--c-------|--d----|    limit 3: the hour sees a b c d and says 3, ten minutes see d alone
    view = make_view(
        make_feature("distinct", "product", limit=3, name="hour"),
        make_feature("distinct", "product", 10 * MINUTE, 5 * MINUTE, limit=3, name="ten"),
    )
    times = {"a": NOON - 59 * MINUTE, "b": NOON - 50 * MINUTE, "c": NOON - 40 * MINUTE, "d": NOON - MINUTE}
    found, *_ = folded(view, [{"customer": 1, "ts": t, "product": p} for p, t in times.items()])
    assert ViewReader(view).read([found[1,]], NOON).values == {"hour": [3], "ten": [1]}


@pytest.mark.parametrize("limit", [1, 300, 1000])
def test_sets_and_counts_of_many_values_are_exact_up_to_the_limit(limit):
    view = make_view(*(make_feature(f, c, w, h, limit=limit, name=f"{f}{c}{w}") for f in ("distinct", "top_k")
                       for c in ("product", "quantity") for w, h in WINDOWS))  # fmt: skip
    rows = [
        {"customer": 1, "ts": NOON - (i * 7919) % (3 * HOUR), "product": f"p{i % 800}", "quantity": i % 500}
        for i in range(3000)
    ]
    found, batch, full = folded(view, rows)
    assert streamed(view, batch, [1, 700, 2500]) == found
    read = ViewReader(view).read([found[1,]], NOON)
    expected = naive_answers(full, spec_of(view, "ts"), [((1,), read.effective[0])])
    assert {name: values[0] for name, values in read.values.items()} == expected[0]
