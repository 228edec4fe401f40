"""Which row cannot be read: a thousand are taken apart at once, and the error of all has to name one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.errors import ReadError
from headwater.online.entities import repair_command
from headwater.online.keys import entity_key, entity_text
from headwater.plans.plan import StreamView
from headwater.rows.codec import decode
from headwater.rows.layout import RowLayout


def naming_the_row(
    view: StreamView, layout: RowLayout, keys: Sequence[Any], rows: Sequence[bytes | None], error: ReadError
) -> ReadError:
    """`error` with the view and the entity of the first row that cannot be read, and what to do.

    `keys`: the join key values of `rows` (tuples, where there are several).
    """
    for key, row in zip(keys, rows, strict=True):
        try:
            decode(layout, [] if row is None else [row])
        except ReadError as reason:
            name = entity_key((key,) if len(view.keys) == 1 else key)
            return ReadError(
                f"View {view.name!r}: the row of {entity_text(name, [k.name for k in view.keys])} cannot be read: "
                f"{reason} Nothing of it was written. Run '{repair_command(view, name)}' (or, where another version of "
                f"Headwater wrote it, that version), then start the worker again."
            )
    return error
