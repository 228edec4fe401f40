"""Rows on their way into Redis: set beside the rows, and moved there by the script that checks, in one transaction.

Apart from scripts.py because of the copies. A script's argument is copied twice, and Lua hashes all of its bytes; a
value that was set is moved by its pointer. The keys beside are the same for every writer: nobody sees them, since the
transaction that sets them also moves or deletes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from headwater.online import scripts
from headwater.online.connection import CommandError
from headwater.online.framing import command, frame, head

_BEGIN, _END = command(1, [frame(b"MULTI")]), command(1, [frame(b"EXEC")])


def write_rows(
    keys: Sequence[bytes], names: Sequence[bytes], values: Sequence[bytes | memoryview], expiry: bytes,
    arguments: Sequence[bytes],
) -> tuple[bytes, int]:  # fmt: skip
    """The commands that write rows by `scripts.write_rows`, encoded, and how many they are.

    Args:
        keys: positions and counters, as the script takes them.
        names: the rows' keys, framed.
        values: the rows' new bytes.
        expiry: milliseconds, or empty for none.
        arguments: the script's.
    """
    n = len(names)
    beside = [_beside(i) for i in range(n)]
    options = [b"PX", expiry] if expiry else []
    begin, end = b"*%d\r\n$3\r\nSET\r\n" % (3 + len(options)), b"\r\n" + b"".join(map(frame, options))
    pieces: list[bytes | memoryview] = [_BEGIN]
    for name, value in zip(beside, values, strict=True):
        pieces += (begin, name, head(len(value)), value, end)
    first = [b"EVALSHA", scripts.write_rows.sha, b"%d" % (len(keys) + 2 * n), *keys]
    script = [*map(frame, first), *names, *beside, *map(frame, arguments)]
    pieces += (command(len(script), script), _END)
    return b"".join(pieces), n + 3


def outcome(replies: Sequence[Any]) -> Any:
    """What the script replied, or the CommandError that kept it from being run."""
    error = next((r for r in replies if isinstance(r, CommandError)), None)
    return replies[-1][-1] if error is None else error


@cache
def _beside(i: int) -> bytes:
    return frame(b"hw:beside:%d" % i)
