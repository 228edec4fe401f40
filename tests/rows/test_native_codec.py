"""The compiled encoder against the one in Python: the same bytes and digests, for rows with and without values of any length."""

import ctypes
import random

import numpy as np
import pytest
import xxhash

from headwater.durations import DAY
from headwater.events.select import select
from headwater.native import library
from headwater.rows import table as table_module
from headwater.rows.fold import key_items
from headwater.rows.frames import Frames
from headwater.rows.layout import layout_of
from headwater.rows.table import RowTable
from tests.history.log_factory import HOUR, make_events, make_feature, make_view
from tests.history.test_windows_at_any_time import EVERYTHING

pytestmark = pytest.mark.skipif(library() is None, reason="test_native_json.py says whether the library must be there")


def filled(view, times, seed):
    """A table of many rows, some of which have no tile left, some a partition or two."""
    rng = random.Random(seed)
    rows = [
        {
            "customer": rng.randrange(40), "ts": at, "price": rng.choice([None, 1.5, -2.25, 1e9]),
            "quantity": rng.choice([None, 0, 7, -3]), "product": rng.choice([None, "", "a", "\u00e9\u00e9", "x" * 300]),
        }
        for at in sorted(rng.choice(times) + rng.randrange(HOUR) for _ in range(600))
    ]  # fmt: skip
    events, _ = make_events(rows)
    table = RowTable(layout_of(view))
    selected = select(view, events)
    numbers, _ = table.numbers(key_items(selected.keys))
    table.fold(numbers, selected)
    return table


@pytest.mark.parametrize("features", [EVERYTHING, EVERYTHING[:1], [make_feature("sum", "price", window=None)]])
@pytest.mark.parametrize("origin", [1_300_000_000_000_000, -3_000_000_000_000_000, 0])
def test_the_same_bytes_as_in_python(features, origin, monkeypatch):
    times = [origin + d * DAY for d in (-200, -31, -30, -2, -1, 0)]
    table = filled(make_view(*features), times, len(features))
    for chosen in (np.arange(len(table)), np.array([7, 3, 3]), np.arange(1), np.arange(0)):
        ours, digests = table.encode(chosen)
        with monkeypatch.context() as without:
            without.setattr(table_module, "library", lambda: None)
            theirs, their_digests = table.encode(chosen)
        assert [bytes(d) for d in ours] == [bytes(d) for d in theirs]
        assert digests.tolist() == their_digests.tolist()


def test_framed_rows_are_the_same_bytes_as_in_python(monkeypatch):
    times = [1_300_000_000_000_000 + d * DAY for d in (-200, -31, -30, -2, -1, 0)]
    table = filled(make_view(*EVERYTHING), times, 5)
    frames = Frames.of([b"<%d>" % i * (i % 7) for i in range(len(table))], b"\r\nbehind")
    for chosen in (np.arange(len(table)), np.array([7, 3, 3]), np.arange(0)):
        ours, ends, digests = table.framed(chosen, frames)
        with monkeypatch.context() as without:
            without.setattr(table_module, "library", lambda: None)
            theirs, their_ends, their_digests = table.framed(chosen, frames)
        assert bytes(ours) == bytes(theirs)
        assert ends.tolist() == their_ends.tolist()
        assert digests.tolist() == their_digests.tolist()
    first = bytes(table.framed(np.array([7]), frames)[0])
    row = bytes(table.encode(np.array([7]))[0][0])
    assert first == b"$%d\r\n" % len(row) + row + b"\r\nbehind"


def test_the_digest_is_xxh3_of_any_length():
    rng = random.Random(1)
    for n in [*range(17, 1200), 2047, 2048, 2049, 100_001]:
        data = rng.randbytes(n)
        assert library().hw_xxh3(data, ctypes.c_int64(n)) == xxhash.xxh3_64_intdigest(data), n
