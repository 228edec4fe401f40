"""Finds join key values that exist, so that a snippet that somebody copies answers with values.

Rows are looked for in Redis by a scan that ends after a fixed number of steps: a catalog page must not walk
a store of a billion keys.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.online.keys import row_prefix
from headwater.online.published import Active
from headwater.plans.plan import Field
from marketplace.facts import ExampleRow

if TYPE_CHECKING:
    from headwater.online.connection import Connection

STEPS, STEP = 40, 1000
"""At most so many SCAN commands, each over about so many keys (under 1 ms each in Redis)."""

_NEWEST = slice(24, 32)
"""Where a row says its newest event time: the fourth 8-byte word (rows/codec.py)."""


def find_examples(url: str, project: str, active: Active, count: int) -> tuple[ExampleRow, ...]:
    """At most `count` rows of a fill, by a bounded scan.

    Raises:
        Unreachable: Redis does not answer.
    """
    from headwater.online.connection import Connection

    view = active.definition
    prefix = row_prefix(project, view.name, view.state_hash, active.fill)
    connection = Connection(url)
    try:
        keys = _scan(connection, prefix, count)
        rows = connection.command(b"MGET", *keys) if keys else []
    finally:
        connection.close()
    return tuple(
        ExampleRow(parse_entity_key(key[len(prefix) :], view.keys), int(struct.unpack("<q", row[_NEWEST])[0]))
        for key, row in zip(keys, rows, strict=True)
        if row is not None and len(row) >= 32
    )


def parse_entity_key(data: bytes, fields: Sequence[Field]) -> dict[str, object]:
    """The join key values of an entity key, the inverse of `headwater.online.keys.entity_key`."""
    texts = [data] if len(fields) == 1 else _split(data)
    return {f.name: _value(text, f.dtype) for f, text in zip(fields, texts, strict=True)}


def _split(data: bytes) -> list[bytes]:
    parts = re.findall(rb"((?:[^\\|]|\\.)*)(?:\||$)", data, re.DOTALL)
    # The pattern also matches the empty text at the end, behind the last part.
    return [re.sub(rb"\\(.)", rb"\1", part, flags=re.DOTALL) for part in parts[: _separators(data) + 1]]


def _separators(data: bytes) -> int:
    return len(re.findall(rb"\|", re.sub(rb"\\.", b"", data, flags=re.DOTALL)))


def _value(text: bytes, dtype: str) -> object:
    if dtype in ("int64", "timestamp"):
        return int(text)
    if dtype == "bool":
        return text == b"true"
    return text if dtype == "bytes" else text.decode(errors="replace")


def _scan(connection: Connection, prefix: bytes, count: int) -> list[bytes]:
    pattern = re.sub(rb"([*?\[\]\\^])", rb"\\\1", prefix) + b"*"
    cursor: bytes | str = b"0"
    found: dict[bytes, None] = {}
    for _ in range(STEPS):
        cursor, keys = connection.command(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", str(STEP).encode())
        found.update(dict.fromkeys(keys))
        if len(found) >= count or cursor in (b"0", "0"):
            break
    return sorted(found)[:count]
