"""Packed columns: every word comes back, in the fewest bytes, compiled and in Python; and bytes that are none are found out."""

import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.native import library
from headwater.rows import packing
from headwater.rows.packing import Packing, RowUnpacking, unpack

WORDS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 300),
    st.sampled_from([0, -1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1, -(2**63)]),
)
WIDTHS = (1, 3)
ROW = st.tuples(*(st.lists(st.tuples(*[WORDS] * width), max_size=5) for width in WIDTHS))


@pytest.fixture(params=["compiled", "Python"], scope="module", autouse=True)
def _path(request):
    if request.param == "compiled":
        if library() is None:
            pytest.skip("test_native_json.py says whether the library must be there")
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "library", lambda: None)
        yield


def packed(rows):
    """Each row's groups as bytes, and the counts of their tiles."""
    counts = np.array([[len(group) for group in row] for row in rows], np.int64).reshape(len(rows), len(WIDTHS))
    groups = [
        (
            np.repeat(np.arange(len(rows)), counts[:, g]),
            np.array([tile for row in rows for tile in row[g]], np.int64).reshape(-1, width),
        )
        for g, width in enumerate(WIDTHS)
    ]
    packing = Packing(len(rows), groups)
    out = np.zeros(int(packing.sizes.sum()), np.uint8)
    ends = np.cumsum(packing.sizes)
    packing.write(out, ends - packing.sizes)
    return [out.tobytes()[a:b] for a, b in zip(ends - packing.sizes, ends, strict=True)], counts


def unpacked(rows, counts):
    """The words of the rows all at once, which must be those of each alone; and where each row's groups end."""
    ends = np.cumsum([len(r) for r in rows], dtype=np.int64)
    first = ends - [len(r) for r in rows]
    widths = np.array(WIDTHS, np.int64)
    words, tails = unpack(b"".join(rows) + b"more", first, ends, counts, widths)
    alone, to = RowUnpacking(widths), 0
    for row, count, start, tail in zip(rows, counts, first, tails, strict=True):
        size = int(count @ widths)
        mine, behind = alone.unpack(struct.pack("<2H", *count) + row, 0, tuple(count.tolist()), 4, size)
        assert behind - 4 == tail - start if tail >= 0 else behind < 0
        if behind >= 0:
            assert mine.tolist() == words[to : to + size].tolist()
        to += size
    return words.tolist(), (tails - first).tolist(), tails.tolist()


@given(st.lists(ROW, min_size=1, max_size=4))
@example([([(2**63 - 1,), (-(2**63),)], []), ([], [(-1, 0, 2**63 - 1)] * 2)])
def test_every_word_comes_back(rows):
    data, counts = packed(rows)
    words, sizes, _ = unpacked(data, counts)
    assert words == [word for row in rows for group in row for tile in group for word in tile]
    assert sizes == [len(d) for d in data]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([0, 0, 0], b"\x00"),
        ([7], b"\x10\x07"),
        ([1, 255], b"\x01\x01\xff"),
        ([1, 256], b"\x11\x01\x00\xff"),
        ([1, 257], b"\x02\x01\x00\x01\x01"),
        ([490_000, 490_001], b"\x41\x10\x7a\x07\x00\x00\x01"),
        ([-1, -1], b"\x80" + b"\xff" * 8),
        ([-2, 1], b"\x81" + b"\xfe" + b"\xff" * 7 + b"\x00\x03"),
        ([2**40, 2**40 + 9], b"\x81" + (2**40).to_bytes(8, "little") + b"\x00\x09"),
        ([0, 2**32], b"\x08" + bytes(8) + (2**32).to_bytes(8, "little")),
        ([-(2**63), 2**63 - 1], b"\x08" + b"\0" * 7 + b"\x80" + b"\xff" * 7 + b"\x7f"),
    ],
)
def test_a_column_is_laid_out_as_documented(column, expected):
    (data,), _ = packed([([(word,) for word in column], [])])
    assert data == expected


@given(st.binary(max_size=60), st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_any_bytes_are_taken_or_refused_and_never_read_past_their_end(data, counts):
    # A row behind, so that what is read past the end would be there; before it a good one.
    good, count = packed([([(1,), (900,)], [(1, -1, 2**40)])])
    rows, counts = [good[0], data, good[0]], np.array([count[0], counts, count[0]], np.int64)
    _, sizes, tails = unpacked(rows, counts)
    assert sizes[0] == sizes[2] == len(good[0])
    assert tails[1] == -1 or 0 <= sizes[1] <= len(data)


@given(ROW, st.data())
def test_groups_cut_short_are_refused(row, data):
    (whole,), counts = packed([row])
    if whole:
        cut = data.draw(st.integers(0, len(whole) - 1))
        assert unpacked([whole[:cut]], counts)[2] == [-1]
