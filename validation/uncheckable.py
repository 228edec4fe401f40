"""The result of a view of which nothing can be compared: its source or topic was changed, or the lake is broken.

Apart from the check because no row is looked at: all of them differ for one reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from headwater.online.keys import entity_text
from headwater.plans.plan import View
from headwater.receipts.results import Example, ViewCheck
from validation.causes import shown
from validation.losses import Difference

EXAMPLES = 20


def uncheckable(view: View, rows: Mapping[bytes, bytes], difference: Difference, now: int) -> ViewCheck:
    """All rows of the view differ by `difference`; a view without rows has it once. `now`: microseconds."""
    names = [k.name for k in view.keys]
    examples = [
        Example(
            shown(key), difference.cause, difference.detail, entity_text(key, names),
            difference.row, difference.log, "", difference.action,
        )
        for key in sorted(rows)[:EXAMPLES]
    ] or [difference.example("all rows")]  # fmt: skip
    counts = {difference.cause: max(len(rows), 1)}
    return ViewCheck(view.name, now, 0, 0, len(rows), 0, counts, tuple(examples))
