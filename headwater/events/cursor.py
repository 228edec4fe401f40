"""Reads many byte strings in step: one position each, moved by numpy for all of them at once.

This is what makes binary formats as fast as JSON. A batch is joined into one buffer; reading a number means
reading it for every event, with a few operations on whole arrays. An event that cannot be read dies: its
reason is kept, its position goes to a place behind all data where there is nothing but zeros, and it reads
empty values from then on, so that no other operation has to ask who is still alive. What becomes of an event
depends on its own bytes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.events.payloads import Payloads

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64] | slice
"""Which events an operation is for: their places in the batch, or all of them."""

MAX_DEPTH = 100
"""Nesting past this is refused, as in JSON."""
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
TOO_EARLY = "the value ends too early"
BAD_LENGTH = "a length reaches past the end of the value"
_PADDING = 32
_CONTINUES = np.uint64(0x8080808080808080)
_PAYLOAD = np.uint64(0x7F7F7F7F7F7F7F7F)
_FOLDS = [
    (np.uint64(1), np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00)),
    (np.uint64(2), np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000)),
    (np.uint64(4), np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000)),
]
_ONE = np.uint64(1)


class Cursor:
    """Positions in n byte strings.

    Attributes:
        at, end: int64[n], where each event is read next, and where it ends.
        reasons: event -> why it died. `ignored`: event -> why it is none, where that is why.
        place: what is being read, with a colon behind it: what reasons begin with.
        depth: how many levels of nesting the place lies below the top.
    """

    def __init__(self, values: Payloads) -> None:
        self.data = values.data.tobytes() + bytes(_PADDING)
        self.at, self.end = values.ends[:-1].copy(), values.ends[1:].copy()
        self.reasons: dict[int, str] = {}
        self.ignored: dict[int, str] = {}
        self.place = ""
        self.depth = 0
        self._zeros = len(self.data) - _PADDING
        self._bytes: Any = np.frombuffer(self.data, np.uint8)
        # A word begins at every byte.
        self._words: Any = np.ndarray((len(self.data) - 7,), "<u8", self.data, 0, (1,))
        self._texts: str | None = None
        self._alive = np.ones(len(values), np.bool_)

    def __len__(self) -> int:
        return len(self.end)

    def within(self, at: Ints, end: Ints) -> Cursor:
        """A cursor over parts of the same bytes, one level deeper."""
        inner = copy(self)
        inner.at, inner.end, inner.reasons = at.copy(), end.copy(), {}
        inner.place, inner.depth = "", self.depth + 1
        inner._alive = np.ones(len(at), np.bool_)
        return inner

    def alive(self, rows: Rows) -> Mask:
        """Which of the rows can still be read."""
        return self._alive[rows]

    def fail(self, rows: Rows, reason: str | Callable[[int], str]) -> None:
        """The rows die; `reason` may be a function of a row's place in `rows`. The first reason counts."""
        places = self.places(rows)
        for i in np.flatnonzero(self._alive[places]).tolist():
            self.reasons[int(places[i])] = self.place + (reason if isinstance(reason, str) else reason(i))
        self._alive[places] = False
        self.at[places] = self.end[places] = self._zeros

    def ignore(self, rows: Rows, reason: str) -> None:
        """The rows die without being wrong."""
        places = self.places(rows)
        for i in np.flatnonzero(self._alive[places]).tolist():
            self.ignored[int(places[i])] = reason
        self._alive[places] = False
        self.at[places] = self.end[places] = self._zeros

    def places(self, rows: Rows) -> Ints:
        """The rows as places in the batch."""
        return np.arange(len(self.end))[rows] if isinstance(rows, slice) else rows

    def advance(self, rows: Rows, size: int | Ints) -> None:
        """Move on by some bytes, none of them negative."""
        over = size > self.end[rows] - self.at[rows]
        if over.any():
            size = np.where(over, 0, size)
            self.fail(pick(rows, over), TOO_EARLY)
        self.at[rows] += size

    def byte(self, rows: Rows) -> NDArray[np.uint8]:
        """The next byte."""
        found: NDArray[np.uint8] = self._bytes[self.at[rows]]
        self.advance(rows, 1)
        return found

    def word(self, rows: Rows, size: int) -> NDArray[np.uint64]:
        """The next `size` bytes, at most 8, the least significant first."""
        found: NDArray[np.uint64] = self._words[self.at[rows]]
        self.advance(rows, size)
        return found if size == 8 else found & np.uint64((1 << 8 * size) - 1)

    def varint(self, rows: Rows) -> NDArray[np.uint64]:
        """The next number of 7 bits a byte, the least significant first."""
        at = self.at[rows]
        first: NDArray[np.uint64] = self._bytes[at].astype(np.uint64)
        if not (first >> np.uint64(7)).any():
            self.advance(rows, 1)
            return first
        word: NDArray[np.uint64] = self._words[at]
        stop = ~word & _CONTINUES
        stop &= -stop
        used = stop ^ (stop - _ONE)
        size = np.bitwise_count(used).astype(np.int64) >> 3
        number: NDArray[np.uint64] = word & used & _PAYLOAD
        for shift, keep, move in _FOLDS:
            number = (number & keep) | ((number & move) >> shift)
        if not stop.all():
            number, size = self._long(rows, at, stop == 0, number, size)
        self.advance(rows, size)
        return number

    def signed(self, rows: Rows) -> Ints:
        """The next number in zigzag form."""
        number = self.varint(rows)
        return ((number >> _ONE) ^ -(number & _ONE)).view(np.int64)

    def length(self, rows: Rows) -> Ints:
        """A number in zigzag form that counts bytes, checked to lie within the value."""
        size = self.signed(rows)
        bad = (size < 0) | (size > self.end[rows] - self.at[rows])
        if bad.any():
            size = np.where(bad, 0, size)
            self.fail(pick(rows, bad), BAD_LENGTH)
        return size

    def strings(self, rows: Rows, size: int | Ints) -> list[bytes]:
        """The next `size` bytes."""
        data, slices = self.data, self._taken(rows, size)
        return [data[a:b] for a, b in slices]

    def texts(self, rows: Rows, size: Ints) -> list[str]:
        """The next `size` bytes as UTF-8."""
        slices = self._taken(rows, size)
        if self._texts is None:
            # Cut from one text of a byte a character, which most texts are; it is twice as fast.
            self._texts = self.data.decode("latin-1")
        all_of_it = self._texts
        found = [all_of_it[a:b] for a, b in slices]
        return found if "".join(found).isascii() else self._beyond_ascii(rows, found)

    def _taken(self, rows: Rows, size: int | Ints) -> Iterator[tuple[int, int]]:
        """Move on by `size` bytes, and say from where to where."""
        start, stop = self.at[rows].tolist(), (self.at[rows] + size).tolist()
        self.advance(rows, size)
        return zip(start, stop, strict=True)

    def _beyond_ascii(self, rows: Rows, texts: list[str]) -> list[str]:
        wrong = []
        for i, text in enumerate(texts):
            if not text.isascii():
                try:
                    texts[i] = text.encode("latin-1").decode("utf-8")
                except UnicodeDecodeError:
                    texts[i] = ""
                    wrong.append(i)
        if wrong:
            self.fail(self.places(rows)[wrong], "a text is not UTF-8")
        return texts

    def _long(
        self, rows: Rows, at: Ints, long: Mask, number: NDArray[np.uint64], size: Ints
    ) -> tuple[NDArray[np.uint64], Ints]:
        """Numbers of 9 and 10 bytes."""
        places, start = np.flatnonzero(long), at[long]
        ninth, tenth = self._bytes[start + 8].astype(np.uint64), self._bytes[start + 9].astype(np.uint64)
        more = ninth >= 0x80
        number[places] |= (ninth & np.uint64(0x7F)) << np.uint64(56)
        number[places] |= np.where(more, (tenth & _ONE) << np.uint64(63), np.uint64(0))
        size[places] = np.where(more, 10, 9)
        # Where the value ends before its tenth byte, that byte is another event's.
        too_long = more & (tenth > 1) & (self.end[rows][long] - start >= 10)
        if too_long.any():
            size[places[too_long]] = 0
            self.fail(self.places(rows)[places[too_long]], "a number of more than 64 bits")
        return number, size


def pick(rows: Rows, mask: Any) -> Ints:
    """Those of the rows where the mask is True."""
    return np.flatnonzero(mask) if isinstance(rows, slice) else rows[mask]
