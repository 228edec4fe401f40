"""How commands lie on the wire: each argument is its length, its bytes and a line's end.

Apart from hiredis' own packing because requests of a thousand rows are put together of frames made before: the
names of rows are framed once, and the rows' bytes are never copied one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def frame(arg: bytes) -> bytes:
    """One argument."""
    return b"$%d\r\n%b\r\n" % (len(arg), arg)


def command(count: int, frames: Iterable[bytes], values: Sequence[bytes | memoryview] = ()) -> bytes:
    """A command of `count` frames, made by `frame` and perhaps joined, and the values as its last arguments."""
    pieces: list[bytes | memoryview] = [b"*%d\r\n" % (count + len(values)), *frames]
    for value in values:
        pieces += (_HEADS[len(value)], value, b"\r\n")
    return b"".join(pieces)


class _Heads(dict[int, bytes]):
    """What stands before an argument of each length; made as lengths are met."""

    def __missing__(self, length: int) -> bytes:
        if len(self) > 100_000:
            self.clear()
        self[length] = head = b"$%d\r\n" % length
        return head


_HEADS = _Heads()
