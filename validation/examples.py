"""Differences as a person reads them: which key, what differs, what to do.

Apart from the causes because only a few differences of a run are ever shown, and reading values costs.
"""

from __future__ import annotations

from headwater.errors import ReadError
from headwater.events.timestamps import format_timestamp
from headwater.online.keys import entity_text
from headwater.plans.plan import StreamView
from headwater.receipts.results import Example
from headwater.rows.codec import read_header
from headwater.rows.reader import ViewReader
from validation.causes import shown
from validation.losses import Difference

SHOWN = 4
"""Features that an example names."""


def example_of(
    view: StreamView, key: bytes, difference: Difference, row: bytes | None, expected: bytes | None
) -> Example:
    """The example of one row's difference. `expected`: the row as the lake gives it."""
    return Example(
        shown(key), difference.cause, difference.detail, entity_text(key, [k.name for k in view.keys]),
        difference.row, difference.log, differing_values(view, row, expected), difference.action,
    )  # fmt: skip


def differing_values(view: StreamView, row: bytes | None, expected: bytes | None) -> str:
    """The features that differ, as "name: online, from the lake"; empty where either side cannot be read."""
    try:
        at = max(read_header(data).newest for data in (row, expected) if data is not None) + 1
        read = ViewReader(view).read([row, expected], at)
    except (ReadError, ValueError, OverflowError):
        # Bytes that are not a row, or none at all: what is wrong was said already.
        return ""
    differ = [(name, *values) for name, values in read.values.items() if values[0] != values[1]]
    if not differ:
        return ""
    named = [f"{name} {online!r} online, {lake!r} from the lake" for name, online, lake in differ[:SHOWN]]
    more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
    return f"{'; '.join(named)}{more} (read at {format_timestamp(at)})"
