"""How commands lie on the wire: each argument is its length, its bytes and a line's end.

Apart from hiredis' own packing because requests of a thousand rows are put together of frames made before: the
names of rows are framed once.
"""

from __future__ import annotations

from collections.abc import Iterable


def frame(arg: bytes) -> bytes:
    """One argument."""
    return b"$%d\r\n%b\r\n" % (len(arg), arg)


def command(count: int, frames: Iterable[bytes]) -> bytes:
    """A command of `count` frames, made by `frame` and perhaps joined."""
    return b"".join([b"*%d\r\n" % count, *frames])
