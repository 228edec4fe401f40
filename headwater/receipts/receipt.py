"""What proves a served value: where it was read, at which time, and out of which bytes.

Apart from the check that replays it, because servers and clients hand receipts out without knowing the lake.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Receipt(msgspec.Struct, frozen=True):
    """The receipt of one row of one view.

    Attributes:
        entity: the join keys' values (timestamps as int microseconds).
        key: the entity key as in Redis, as text; None where a join key was null.
        effective_time: the time that was read at, microseconds since the epoch.
        state_hash: hash of the definition that the row was filled by.
        fill: id of the fill that was read.
        offsets: of a windowed row: source partition -> (born, applied) offset; empty for plain and missing rows.
        digest: the 16 hex digits of the packed row's digest; None where there is no row.
    """

    view: str
    entity: dict[str, Any]
    key: str | None
    effective_time: int
    state_hash: str
    fill: str
    offsets: dict[int, tuple[int, int]]
    digest: str | None
