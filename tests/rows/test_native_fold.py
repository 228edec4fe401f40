"""The compiled fold against the components' own laws: the same rows to the byte, whatever the cuts and orders of the events."""

import random

import numpy as np
import pytest

from headwater.durations import DAY
from headwater.events.select import select
from headwater.expressions.parse import parse
from headwater.native import library
from headwater.rows import table as table_module
from headwater.rows.fold import key_items
from headwater.rows.layout import layout_of
from headwater.rows.native_fold import compiled
from headwater.rows.table import RowTable
from tests.history.log_factory import ALL_FUNCTIONS, FIELDS, HOUR, MINUTE, make_events, make_feature, make_view
from tests.history.test_windows_at_any_time import EVERYTHING

pytestmark = pytest.mark.skipif(library() is None, reason="test_native_json.py says whether the library must be there")

SIMPLE = ("count", "sum", "mean", "min", "max", "first", "last")
WHERE = parse("quantity > 0", FIELDS, place="test")
FIXED = [
    make_feature(function, column, window, hop, where=where, name=f"{function}_{column}_{window}_{where is None}")
    for function, column in ALL_FUNCTIONS
    if function in SIMPLE and not (function in ("min", "max") and column in ("product", "raw"))
    for window, hop in ((HOUR, 5 * MINUTE), (7 * DAY, DAY), (None, None))
    for where in (None, WHERE)
]


def drawn(rng, origin, n):
    """Events in no order, many of them at equal times, some with the extremes of their types."""
    spread = rng.choice([MINUTE, HOUR, 9 * DAY])
    return [
        {
            "customer": rng.randrange(12), "ts": origin + rng.randrange(-spread, spread) // MINUTE * MINUTE,
            "price": rng.choice([None, 1.5, -2.25, 0.0, -0.0, 1e300, 9.2e12, 1e-7]),
            "quantity": rng.choice([None, 0, 7, -3, 2**63 - 1, -(2**63)]),
            "product": rng.choice([None, "", "a", "\u00e9\u00e9", "x" * 300]), "paid": rng.choice([None, True, False]),
            "raw": rng.choice([None, b"", b"\x00"]), "_partition": rng.randrange(3),
        }
        for _ in range(n)
    ]  # fmt: skip


def folded(view, cuts, born):
    """A table that took the cuts one by one, what each changed, and its rows."""
    table, changed = RowTable(layout_of(view), 4), []
    for events in cuts:
        selected = select(view, events)
        rows, _ = table.numbers(key_items(selected.keys))
        changed.append(table.fold(rows, selected, born=born).tolist())
    rows, digests = table.encode(np.arange(len(table)))
    return table, changed, [bytes(row) for row in rows], digests.tolist()


def cuts_of(rng, origin):
    """The same log in cuts that overlap: some events come twice, as after a position that was set back."""
    events, _ = make_events([row for i in range(4) for row in drawn(rng, origin + i * rng.choice([0, HOUR, DAY]), 120)])
    order = np.array(rng.sample(range(len(events)), len(events)))
    edges = sorted(rng.sample(range(1, len(events)), 5))
    parts = np.split(order, edges)
    return [events.take(np.concatenate([parts[max(i - 1, 0)][:7], part])) for i, part in enumerate(parts)]


@pytest.mark.parametrize("features", [FIXED, EVERYTHING], ids=["compiled alone", "beside Python's"])
@pytest.mark.parametrize("origin", [1_300_000_000_000_000, -3_000_000_000_000_000, 0])
@pytest.mark.parametrize("born", [None, 0])
def test_the_same_rows_as_by_the_laws_in_python(features, origin, born, monkeypatch):
    view = make_view(*features)
    for seed in range(6):
        cuts = cuts_of(random.Random(f"{origin} {seed}"), origin)
        _, ours, our_rows, our_digests = folded(view, cuts, born)
        with monkeypatch.context() as without:
            without.setattr(table_module, "library", lambda: None)
            _, theirs, their_rows, their_digests = folded(view, cuts, born)
        assert ours == theirs
        assert our_rows == their_rows
        assert our_digests == their_digests


def test_rows_that_were_read_again_take_events_as_those_that_stayed():
    view, rng = make_view(*FIXED), random.Random(3)
    cuts = cuts_of(rng, 1_300_000_000_000_000)
    stayed, _, rows, _ = folded(view, cuts, None)
    half, _, _, _ = folded(view, cuts[:3], None)
    again = RowTable(layout_of(view), 4)
    numbers, _ = again.numbers(half.keys)
    again.load(numbers, [bytes(row) for row in half.encode(numbers)[0]])
    for events in cuts[3:]:
        selected = select(view, events)
        again.fold(again.numbers(key_items(selected.keys))[0], selected)
    found = {key: bytes(row) for key, row in zip(again.keys, again.encode(np.arange(len(again)))[0], strict=True)}
    assert found == dict(zip(stayed.keys, rows, strict=True))


def test_these_views_are_folded_by_the_library():
    groups = layout_of(make_view(*FIXED)).groups
    assert [compiled(group) for group in groups] == [tuple(range(len(group.components))) for group in groups]
    assert any(len(compiled(group)) < len(group.components) for group in layout_of(make_view(*EVERYTHING)).groups)
