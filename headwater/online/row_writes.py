"""Rows on their way into Redis: set beside the rows, and moved there by the script that checks, in one transaction.

Apart from scripts.py because of the copies. A script's argument is copied twice, and Lua hashes all of its bytes; a
value that was set is moved by its pointer. The keys beside are the same for every writer: nobody sees them, since the
transaction that sets them also moves or deletes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.online import scripts
from headwater.online.connection import CommandError
from headwater.online.framing import command, frame
from headwater.online.keys import beside_key
from headwater.online.posts import Piece
from headwater.rows.frames import Frames

_BEGIN, _END = command(1, [frame(b"MULTI")]), command(1, [frame(b"EXEC")])
MOST_ROWS = 2_000
"""Rows that are framed together."""
_BESIDE = [frame(beside_key(i)) for i in range(MOST_ROWS)]
FRAMES = Frames.of(_BESIDE, b"\r\n")
"""What makes the bytes of up to `MOST_ROWS` rows arguments that set them beside."""


def write_rows(
    keys: Sequence[bytes], names: Sequence[bytes], beside: int, values: Piece, arguments: Sequence[bytes]
) -> tuple[list[Piece], int]:
    """The commands that write rows by `scripts.WRITE_ROWS`, in pieces, and how many they are.

    Args:
        keys: positions and counters, as the script takes them.
        names: the rows' keys, framed.
        beside: which of the `FRAMES` the first row has.
        values: the rows' new bytes, framed.
        arguments: the script's.
    """
    n = len(names)
    # The text and not its digest: of a script that the server does not know the values beside would be left over.
    first = [b"EVAL", scripts.WRITE_ROWS, b"%d" % (len(keys) + 2 * n), *keys]
    script = [*map(frame, first), *names, *_BESIDE[beside : beside + n], *map(frame, arguments)]
    run = command(len(script), script) + _END
    # One command sets them all: a command a row takes Redis half as long again.
    return ([_BEGIN + b"*%d\r\n$4\r\nMSET\r\n" % (1 + 2 * n), values, run], 4) if n else ([_BEGIN, run], 3)


def outcome(replies: Sequence[Any]) -> Any:
    """What the script replied, or the CommandError that kept it from being run."""
    if isinstance(replies[-1], list):
        return replies[-1][-1]
    return next(r for r in replies if isinstance(r, CommandError))
