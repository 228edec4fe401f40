"""Rows of a table -> their bytes by the compiled encoder: the same bytes as codec.py's, without its many passes.

The tails, whose values are Python's, are put together by codec.py here as there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p, c_int64, c_void_p
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.plans.plan import CODEC_VERSION
from headwater.rows.codec import WINDOWED, Tails, Tiles, tails_of
from headwater.rows.frames import Frames
from headwater.rows.layout import Group, RowLayout

Ints = NDArray[np.int64]
MOST_GROUPS = 64
"""Groups that the compiled encoder keeps account of (rows.c); layouts of more hops are encoded in Python."""


class Ring(Protocol):
    """What a table holds of a group (table.py)."""

    group: Group
    tiles: Ints
    records: Ints
    objects: list[NDArray[Any] | None]


class _Group(ctypes.Structure):
    """hw_group of rows.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("tiles", "records", "first", "held", "places", "pointers")),
        *((name, c_int64) for name in ("slots", "width", "n_pointers", "n_held")),
    ]


class _Frames(ctypes.Structure):
    """hw_frames of rows.c."""

    _fields_ = [("before", c_char_p), ("behind", c_char_p), ("edges", c_void_p), ("n_behind", c_int64)]


class _Rows(ctypes.Structure):
    """hw_rows of rows.c."""

    _fields_ = [
        *((name, c_int64) for name in ("n", "n_groups", "count_words", "partitions")),
        *((name, c_void_p) for name in ("rows", "newest", "born", "applied", "groups")),
        ("kind", c_int64), ("state_hash", c_int64),
    ]  # fmt: skip


def encode_table(
    native: ctypes.CDLL, layout: RowLayout, rings: Sequence[Ring], rows: Ints, firsts: Sequence[Ints],
    newest: Ints, born: Ints, applied: Ints, frames: Frames | None = None,
) -> tuple[NDArray[np.uint8], Ints, NDArray[np.uint64]]:  # fmt: skip
    """The bytes of rows behind each other, where each ends, and their digests.

    Args:
        firsts: for each group the first tile that each row may have.
        frames: what stands around each row, if anything.
    """
    n = len(rows)
    keep: list[NDArray[Any]] = [np.ascontiguousarray(rows), newest, born, applied, *firsts]
    groups = (_Group * len(rings))()
    held: list[Ints | None] = []
    for c, ring, first in zip(groups, rings, firsts, strict=True):
        variable = any(o is not None for o in ring.objects)
        held.append(np.empty(n * ring.group.slots, np.int64) if variable else None)
        c.tiles, c.records, c.first = (_at(a) for a in (ring.tiles, ring.records, first))
        c.held = None if held[-1] is None else _at(held[-1])
        c.slots, c.width = ring.group.slots, ring.group.width
    table = _Rows(
        n, len(rings), layout.count_words, applied.shape[1], *(_at(a) for a in keep[:2]), _at(born), _at(applied),
        ctypes.addressof(groups), CODEC_VERSION | WINDOWED << 8, int(np.uint64(layout.state_hash).astype(np.int64)),
    )  # fmt: skip
    counts, sizes = np.empty((n, 4 * layout.count_words), np.uint16), np.empty(n, np.int64)
    native.hw_measure(ctypes.byref(table), c_void_p(_at(counts)), c_void_p(_at(sizes)))
    tails = None
    if layout.variable:
        tails = tails_of(
            layout, n, [_objects(r, h, counts[:, g]) for g, (r, h) in enumerate(zip(rings, held, strict=True))]
        )
        for c, of in zip(groups, tails.pointers, strict=True):
            if of:
                places, pointers = np.array([p for p, _ in of], np.int64), np.concatenate([p for _, p in of])
                keep += [places, pointers]
                c.places, c.pointers, c.n_pointers = _at(places), _at(pointers), len(of)
    most = int(sizes.sum()) + (0 if tails is None else len(tails.joined)) + (0 if frames is None else frames.space(n))
    scratch = np.empty(max((ring.group.slots * ring.group.width for ring in rings), default=0), np.int64)
    out, ends, digests = np.empty(most, np.uint8), np.empty(n, np.int64), np.empty(n, np.uint64)
    around = None if frames is None else ctypes.byref(_framed(frames))
    native.hw_write(
        ctypes.byref(table), c_void_p(_at(counts)), *_tail_places(tails), around,
        *(c_void_p(_at(a)) for a in (scratch, out, ends, digests)),
    )  # fmt: skip
    return out[: int(ends[-1])] if n else out, ends, digests


def _framed(frames: Frames) -> _Frames:
    return _Frames(frames.before, frames.behind, _at(frames.edges), len(frames.behind))


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data


def _tail_places(tails: Tails | None) -> tuple[c_void_p, c_void_p]:
    return (c_void_p(), c_void_p()) if tails is None else (c_void_p(_at(tails.lengths)), c_void_p(_at(tails.joined)))


def _objects(ring: Ring, held: Ints | None, counts: NDArray[np.uint16]) -> Tiles:
    """A group's rows and values of any length; nothing else of it."""
    row = np.repeat(np.arange(len(counts)), counts)
    objects = [None if o is None or held is None else o.take(held[: len(row)]) for o in ring.objects]
    return Tiles(row, np.empty((0, ring.group.width), np.int64), objects)
