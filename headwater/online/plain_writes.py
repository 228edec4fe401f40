"""Writing rows of views without windows to Redis: the newer event time wins, in the server, by a script.

Apart from the windowed path, which a position fences: a snapshot has no offsets, so its event time alone
decides, and writing one twice or out of order changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import hiredis
import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.durations import DAY
from headwater.errors import UsageError
from headwater.online.connection import CommandError, Connection
from headwater.online.entities import key_texts
from headwater.online.keys import row_prefix
from headwater.online.scripts import Script
from headwater.plans.plan import BatchView
from headwater.rows.plain import encode_plain

EXPIRY_MARGIN = 7 * DAY
"""How long past its ttl a row is kept, from its write on: until then a read says OUTSIDE_MAX_AGE, then NOT_FOUND."""

_ROWS = 1_000
_AHEAD = 8
_MAX_MS = 2**53

# A row's event time is its fourth word (rows/plain.py). Lua's numbers are doubles, so it is compared in halves.
_WRITE = Script(b"""
local written = 0
for i = 1, #KEYS do
  local now = redis.call('GETRANGE', KEYS[i], '24', '31')
  local newer = true
  if #now == 8 then
    local low, high = struct.unpack('<I4i4', now)
    local new_low, new_high = struct.unpack('<I4i4', ARGV[i + 1], 25)
    newer = new_high > high or (new_high == high and new_low >= low)
  end
  if newer then
    if ARGV[1] == '0' then redis.call('SET', KEYS[i], ARGV[i + 1])
    else redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[1]) end
    written = written + 1
  end
end
return written
""")


def write_plain_rows(
    connection: Connection,
    project: str,
    view: BatchView,
    fill: str,
    keys: Sequence[Column],
    columns: Mapping[str, Column],
    event_time: int | NDArray[np.int64],
) -> int:
    """Write n rows of a fill. Rows with a null join key are left out; of several with one key the newest stays.

    Args:
        keys: the join keys, in the order of the view's keys, n values each.
        columns: the features by name, n values each.
        event_time: the snapshot's time in microseconds, or one a row. An older one than the stored row's
            leaves that row as it is; an equal one replaces it.

    Returns:
        How many rows were written.

    Raises:
        UsageError: columns that are missing, of another type or length.
        Unreachable: Redis does not answer.
    """
    rows = encode_plain(view, columns, event_time)
    texts = key_texts([_key_column(view, i, key) for i, key in enumerate(keys)])
    if len(texts) != len(rows):
        raise UsageError(f"Feature view '{view.name}': {len(texts)} keys for {len(rows)} rows.")
    prefix = row_prefix(project, view.name, view.state_hash, fill)
    pairs = [(prefix + text, row) for text, row in zip(texts, rows, strict=True) if text is not None]
    chunks = [pairs[i : i + _ROWS] for i in range(0, len(pairs), _ROWS)]
    _WRITE.load(connection)
    return sum(_write(connection, chunks[i : i + _AHEAD], _expiry(view)) for i in range(0, len(chunks), _AHEAD))


def _expiry(view: BatchView) -> int:
    """Milliseconds from the write on; 0 for never."""
    return 0 if view.ttl is None else min((view.ttl + EXPIRY_MARGIN) // 1_000, _MAX_MS)


def _write(connection: Connection, chunks: list[list[tuple[bytes, bytes]]], expiry: int) -> int:
    commands = [
        hiredis.pack_command(
            ("EVALSHA", _WRITE.sha, len(chunk), *[key for key, _ in chunk], str(expiry), *[row for _, row in chunk])
        )
        for chunk in chunks
    ]
    replies = connection.ask(b"".join(commands), len(commands))
    for reply in replies:
        if isinstance(reply, CommandError):
            raise reply
    return sum(replies)


def _key_column(view: BatchView, i: int, key: Column) -> list[object]:
    if i >= len(view.keys) or key.dtype != view.keys[i].dtype:
        wanted = ", ".join(f"{k.name} ({k.dtype})" for k in view.keys)
        raise UsageError(f"Feature view '{view.name}' is keyed by {wanted}; join key {i + 1} is of type {key.dtype}.")
    return key.to_list()
