"""Rows of a table -> their bytes by the compiled encoder: the same bytes as codec.py's, without its many passes.

The tails, whose values are Python's, are put together by codec.py here as there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.native import address_of
from headwater.plans.plan import CODEC_VERSION
from headwater.rows.codec import WINDOWED, Tails, Tiles, tails_of
from headwater.rows.frames import Frames
from headwater.rows.layout import Group, RowLayout

Ints = NDArray[np.int64]
MOST_GROUPS = 64
"""Groups that the compiled encoder keeps account of (rows.c); layouts of more hops are encoded in Python."""
_NONE: Ints = np.empty(0, np.int64)


class Ring(Protocol):
    """What a table holds of a group (table.py)."""

    group: Group
    tiles: Ints
    records: Ints
    objects: list[NDArray[Any] | None]


class _Group(ctypes.Structure):
    """hw_group of rows.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("tiles", "records", "held", "places", "pointers")),
        *((name, c_int64) for name in ("slots", "width", "hop", "window", "n_pointers", "n_held")),
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


@dataclass(frozen=True, slots=True)
class Marks:
    """What a table knows of its rows: when their newest event was (int64[rows]), and of which partitions they have
    which events (int64[rows, partitions])."""

    newest: Ints
    born: Ints
    applied: Ints


class TableEncoder:
    """Encodes rows of one table. `rings`: those of the table, whose arrays may be others by the next call."""

    def __init__(self, native: ctypes.CDLL, layout: RowLayout, rings: Sequence[Ring]) -> None:
        self._native, self._layout, self._rings = native, layout, rings
        self._groups = (_Group * len(rings))()
        for c, ring in zip(self._groups, rings, strict=True):
            group = ring.group
            c.slots, c.width, c.hop, c.window = group.slots, group.width, group.hop or 0, group.window or 0
        self._table = _Rows(
            n_groups=len(rings), count_words=layout.count_words, groups=ctypes.addressof(self._groups),
            kind=CODEC_VERSION | WINDOWED << 8, state_hash=int(np.uint64(layout.state_hash).astype(np.int64)),
        )  # fmt: skip
        self._variable = [any(o is not None for o in ring.objects) for ring in rings]
        self._scratch = np.empty(max((r.group.slots * r.group.width for r in rings), default=0), np.int64)

    def encode(
        self, rows: Ints, marks: Marks, frames: Frames | None = None
    ) -> tuple[NDArray[np.uint8], Ints, NDArray[np.uint64]]:
        """The bytes of rows behind each other, where each ends, and their digests.

        `frames`: what stands around each row, if anything.
        """
        n, layout, table = len(rows), self._layout, self._table
        rows = np.ascontiguousarray(rows)
        held = [
            np.empty(n * r.group.slots, np.int64) if v else None
            for r, v in zip(self._rings, self._variable, strict=True)
        ]
        for c, ring, slots in zip(self._groups, self._rings, held, strict=True):
            c.tiles, c.records = address_of(ring.tiles), address_of(ring.records)
            c.held = None if slots is None else address_of(slots)
            c.n_pointers = 0
        table.n, table.partitions, table.rows = n, marks.applied.shape[1], address_of(rows)
        table.newest, table.born, table.applied = map(address_of, (marks.newest, marks.born, marks.applied))
        counts, sizes = np.empty((n, 4 * layout.count_words), np.uint16), np.empty(n, np.int64)
        at = ctypes.addressof(table)
        self._native.hw_measure(at, address_of(counts), address_of(sizes))
        tails, kept = self._tails(n, held, counts)
        most = (
            int(sizes.sum()) + (0 if tails is None else len(tails.joined)) + (0 if frames is None else frames.space(n))
        )
        out, ends, digests = np.empty(most, np.uint8), np.empty(n, np.int64), np.empty(n, np.uint64)
        around = None if frames is None else _framed(frames)
        tail = (None, None) if tails is None else (address_of(tails.lengths), address_of(tails.joined))
        self._native.hw_write(
            at, address_of(counts), *tail, None if around is None else ctypes.addressof(around),
            address_of(self._scratch), address_of(out), address_of(ends), address_of(digests),
        )  # fmt: skip
        del kept
        return out[: int(ends[-1])] if n else out, ends, digests

    def _tails(
        self, n: int, held: Sequence[Ints | None], counts: NDArray[np.uint16]
    ) -> tuple[Tails | None, list[Ints]]:
        """The rows' tails, and what must stay until they are written; the groups are told where they lie."""
        if not self._layout.variable:
            return None, []
        kept: list[Ints] = []
        tiles = [_objects(r, h, counts[:, g]) for g, (r, h) in enumerate(zip(self._rings, held, strict=True))]
        tails = tails_of(self._layout, n, tiles)
        for c, of in zip(self._groups, tails.pointers, strict=True):
            if of:
                places, pointers = np.array([p for p, _ in of], np.int64), np.concatenate([p for _, p in of])
                kept += [places, pointers]
                c.places, c.pointers, c.n_pointers = address_of(places), address_of(pointers), len(of)
        return tails, kept


def _framed(frames: Frames) -> _Frames:
    return _Frames(frames.before, frames.behind, address_of(frames.edges), len(frames.behind))


def _objects(ring: Ring, held: Ints | None, counts: NDArray[np.uint16]) -> Tiles:
    """A group's rows and values of any length; nothing else of it."""
    if held is None:
        return Tiles(_NONE, _NONE[:, None], [None] * len(ring.objects))
    row = np.repeat(np.arange(len(counts)), counts)
    objects = [None if o is None else o.take(held[: len(row)]) for o in ring.objects]
    return Tiles(row, np.empty((0, ring.group.width), np.int64), objects)
