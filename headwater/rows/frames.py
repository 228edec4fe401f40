"""What stands around each row's bytes where rows are written into commands, so that they are written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

_LENGTH = 24
"""Bytes that a row's length takes at most, with the sign before it and the line's end."""


@dataclass(frozen=True)
class Frames:
    """Row i stands behind `before[edges[i]:edges[i + 1]]` and its length ("$123", a line's end), and before `behind`."""

    before: bytes
    edges: NDArray[np.int64]
    behind: bytes

    @classmethod
    def of(cls, before: Sequence[bytes], behind: bytes) -> Frames:
        """Frames for as many rows as `before` has items."""
        return cls(b"".join(before), np.array([0, *accumulate(map(len, before))], np.int64), behind)

    def space(self, rows: int) -> int:
        """Bytes that the first `rows` frames take at most, without the rows."""
        return int(self.edges[rows]) + rows * (len(self.behind) + _LENGTH)

    def around(self, rows: Sequence[bytes | memoryview]) -> tuple[bytes, list[int]]:
        """Rows, framed, behind each other; and where each one ends."""
        framed = [
            b"".join((self.before[a:b], b"$%d\r\n" % len(row), row, self.behind))
            for (a, b), row in zip(pairwise(self.edges[: len(rows) + 1].tolist()), rows, strict=True)
        ]
        return b"".join(framed), list(accumulate(map(len, framed)))
