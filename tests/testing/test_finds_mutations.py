"""`headwater test` finds bugs that are put in on purpose, each in the product's own code, and shrinks them.

The table in docs/testing.md is what these print.
"""

import numpy as np
import pytest

import headwater.testing.fuzzing
from headwater.aggregations import components, latest
from headwater.columns import Column
from headwater.events import decode
from headwater.expressions import evaluate
from headwater.history import aggregates, local
from headwater.rows import layout, one_row, table
from tests.testing.fuzzed_shop import DEFINITIONS, found_in, run_test


@pytest.fixture(scope="module")
def shop(make_repository):
    return make_repository(definitions=DEFINITIONS, servers=False)


@pytest.fixture(autouse=True)
def _folded_in_python(monkeypatch):
    """The bugs are put into Python's ways, beside which a row's values are the compiled library's."""
    monkeypatch.setattr(table, "library", lambda: None)


def hop_off_by_one(patch):
    starts = local.window_starts
    patch(local, "window_starts", lambda at, window, hop: starts(at, window, hop) + hop)


def one_tile_too_few_in_a_row(patch):
    first = layout.Group.first_tile
    patch(layout.Group, "first_tile", lambda self, at: first(self, at) + (self.hop is not None))


def tie_by_order_of_arrival(patch):
    patch(latest, "_before", lambda a, b: a[:, 0] <= b[:, 0])


def sum_of_floats(patch):
    def floats(feature, kept, lo, hi):
        values = kept.values / 10**feature.scale
        sums = [float(values[a:b].sum()) if b > a else None for a, b in zip(lo.tolist(), hi.tolist(), strict=True)]
        return Column.of("float64", sums)

    patch(aggregates, "FUNCTIONS", {**aggregates.FUNCTIONS, "sum": floats})


def duplicate_lost(patch):
    fold = table.RowTable.fold

    def without_equals(self, rows, events, **born):
        told = zip(rows.tolist(), events.time.tolist(), *(c.to_list() for c in events.columns.values()), strict=True)
        first = {}
        for i, event in enumerate(told):
            first.setdefault(event, i)
        keep = np.array(list(first.values()), np.int64)
        return fold(self, rows[keep], events.take(keep), **born)

    patch(table.RowTable, "fold", without_equals)


def redelivered_event_counted_twice(patch):
    fold = table.RowTable.fold

    def forgetful(self, rows, events, **born):
        self.applied[rows] = -1
        return fold(self, rows, events, **born)

    patch(table.RowTable, "fold", forgetful)


def window_closed_at_its_end(patch):
    window = local._Log.window

    def closed(self, feature):
        lo, _ = window(self, feature)
        return lo, np.searchsorted(self.places, self.timeline.place(self.codes, self.at), "right")

    patch(local._Log, "window", closed)


def null_counted(patch):
    mask = components.Runs.mask
    patch(components.Runs, "mask", lambda self, where, column: mask(self, where, None))


def late_event_lost(patch):
    merge = table._Ring.merge

    def only_new(self, rows, tiles, states, *more):
        newest = self.tiles.reshape(-1, self.group.slots)[rows].max(axis=1)
        keep = tiles >= newest
        return merge(self, rows[keep], tiles[keep], {i: s.take(keep) for i, s in states.items()}, *more)

    patch(table._Ring, "merge", only_new)


def greater_or_equal_for_greater(patch):
    patch(evaluate, "_OPERATORS", {**evaluate._OPERATORS, "gt": evaluate._OPERATORS["ge"]})


def event_lost_behind_a_broken_one(patch):
    one_by_one = decode.Decoder._one_by_one

    def stops(self, values):
        broken = next((i for i, v in enumerate(values) if v is None), len(values))
        return one_by_one(self, [*values[: broken + 1], *[None] * len(values[broken + 1 :])])

    patch(decode.Decoder, "_one_by_one", stops)


def one_row_read_sees_a_tile_too_many(patch):
    seen = one_row._seen
    patch(one_row, "_seen", lambda window, row, start, count, at: seen(window, row, start, count, at - 300_000_000))


# The bug, the most events that may be left of it, and the paths that it is in.
MUTATIONS = [
    (hop_off_by_one, 2, {"history"}),
    (one_tile_too_few_in_a_row, 2, {"stream", "backfill"}),
    (tie_by_order_of_arrival, 2, {"stream"}),
    (sum_of_floats, 3, {"history"}),
    (duplicate_lost, 2, {"stream", "backfill"}),
    (redelivered_event_counted_twice, 1, {"stream"}),
    (window_closed_at_its_end, 1, {"history"}),
    (null_counted, 2, {"stream", "backfill"}),
    (late_event_lost, 2, {"stream"}),
    (greater_or_equal_for_greater, 1, {"stream", "backfill", "history"}),
    (event_lost_behind_a_broken_one, 2, {"stream", "backfill", "history"}),
    (one_row_read_sees_a_tile_too_many, 2, {"stream"}),
]


@pytest.mark.parametrize(("mutate", "events", "paths"), MUTATIONS, ids=lambda value: getattr(value, "__name__", None))
def test_a_bug_is_found_and_shrunk_to_few_events(shop, monkeypatch, mutate, events, paths):
    monkeypatch.setattr(headwater.testing.fuzzing, "SHRINK_SECONDS", 2.0)
    monkeypatch.setattr(headwater.testing.fuzzing, "CUT_SECONDS", 30.0)
    mutate(monkeypatch.setattr)
    failure = found_in(shop, "--seconds", 60)
    assert len(failure["events"]) <= events
    wrong = {p for d in failure["differences"] for p, v in d["values"].items() if v != d["values"]["naive loop"]}
    assert wrong
    assert wrong <= paths
    # The bug gives another value: the product, broken so, does not break off.
    assert "failed with" not in str(failure["differences"])


def test_nothing_is_found_where_there_is_no_bug(shop):
    failed, printed = run_test(shop, "--seconds", 1)
    assert not failed, printed
    assert "✓ spend: " in printed
