"""The online side of the check: positions and rows of a fill, read so that a running worker raises no alarm.

Positions are read before rows: an event below a position must be in its row, and one past it may be. Read
again after the rows, positions must have passed all that rows have applied, since rows and position change
in one step. Two states are innocent all the same: a batch of several scripts that is not done yet (its
position is `offset/mark/i`), and a worker that begins such a batch again. Both pass in a moment where a
worker runs, so positions that rows are ahead of are looked at for a while before they count as moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headwater.errors import ReadError
from headwater.online.connection import Connection
from headwater.online.expiry import expiry_of
from headwater.online.keys import position_key, row_prefix
from headwater.online.plan_store import all_positions, began_at, scan_rows
from headwater.online.published import Fill
from headwater.plans.plan import StreamView
from headwater.rows.codec import read_header

PATIENCE = 3.0
"""Seconds that a position must stand still, behind what rows have applied, to count as moved."""
_BATCH = 1000


@dataclass(frozen=True)
class Served:
    """What was read online of one view, in this order: positions, then rows.

    Attributes:
        positions: partition -> next offset of the active fill.
        rows: entity key -> the row's bytes.
        expiry_ms: how long a row lives after a write, None for ever.
        partitions: how many the fill's record counts; each must have a position.
        began: when the fill began, microseconds; every row of it was written after that.
        behind: partition -> a position that stands still behind what rows have applied.
    """

    positions: dict[int, int]
    rows: dict[bytes, bytes]
    expiry_ms: int | None
    partitions: int = 0
    began: int = 0
    behind: dict[int, int] = field(default_factory=dict)


def read_served(
    connection: Connection, project: str, view: StreamView, fill: Fill, keys: Sequence[bytes] | None = None
) -> Served:
    """Positions and rows of a windowed view's fill; of these entity keys only, where they are given."""
    positions = all_positions(connection, project, fill)
    prefix = row_prefix(project, view.name, view.state_hash, fill.id)
    if keys is not None:
        rows = rows_of(connection, prefix, keys)
        return Served(positions, rows, expiry_of(view, fill), fill.partitions, began_at(fill.id))
    rows = read_rows(connection, prefix)

    def again() -> dict[int, bytes]:
        keys = [position_key(project, fill.view, fill.id, p) for p in positions]
        replies = connection.command("MGET", *keys) if keys else []
        return {p: reply for p, reply in zip(positions, replies, strict=True) if reply is not None}

    behind = standing_behind(again, newest_applied(rows))
    return Served(positions, rows, expiry_of(view, fill), fill.partitions, began_at(fill.id), behind)


def read_rows(connection: Connection, prefix: bytes) -> dict[bytes, bytes]:
    """All rows of a fill, by entity key."""
    found: dict[bytes, bytes] = {}
    for keys in scan_rows(connection, prefix):
        found |= rows_of(connection, prefix, [key[len(prefix) :] for key in keys])
    return found


def rows_of(connection: Connection, prefix: bytes, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """The rows of these entity keys; keys without one are left out."""
    found: dict[bytes, bytes] = {}
    for i in range(0, len(keys), _BATCH):
        some = keys[i : i + _BATCH]
        rows = connection.command("MGET", *(prefix + key for key in some))
        found |= {key: row for key, row in zip(some, rows, strict=True) if row is not None}
    return found


def newest_applied(rows: Mapping[bytes, bytes]) -> dict[int, int]:
    """Partition -> the newest offset that any row says it has applied."""
    newest: dict[int, int] = {}
    for row in rows.values():
        try:
            header = read_header(row)
        except ReadError:
            continue
        for p, _, applied in header.partitions:
            newest[p] = max(newest.get(p, applied), applied)
    return newest


def standing_behind(read: Callable[[], Mapping[int, bytes]], newest: Mapping[int, int]) -> dict[int, int]:
    """Positions that rows are ahead of, where they stand still for PATIENCE seconds and no batch is in progress."""
    until = time.monotonic() + PATIENCE
    first = now = read()
    while True:
        offsets = {p: int(position.split(b"/")[0]) for p, position in now.items()}
        behind = {p: offsets[p] for p, applied in newest.items() if p in offsets and offsets[p] <= applied}
        if not behind:
            return {}
        if time.monotonic() > until:
            break
        time.sleep(0.1)
        now = read()
    if any(b"/" in position for position in now.values()):
        return {}
    return {p: offset for p, offset in behind.items() if now[p] == first.get(p)}
