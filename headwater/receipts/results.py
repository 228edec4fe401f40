"""What a run of the consistency check found, a view each: printed, kept in the lake's `checks` table, shown
in the catalog."""

from __future__ import annotations

import msgspec

CAUSES = ("late data", "definition changed", "expired", "missing in lake", "missing online", "defect")
"""Names of differences. All but the last three have an innocent explanation."""

DEFECTS = ("missing in lake", "missing online", "defect")


class Example(msgspec.Struct, frozen=True):
    """One difference, as a person wants to read it.

    Attributes:
        key: the entity key as in Redis; of what is no row, words such as "position of partition 0".
        cause: one of CAUSES.
        detail: what most likely happened, in a sentence.
        entity: the key as `--entity` takes it, such as "customer_id=17850"; empty for what is no row.
        row: what the row says of itself.
        log: what the lake and the topic say.
        values: the features that differ, online and from the lake.
        action: what to do.
    """

    key: str
    cause: str
    detail: str
    entity: str = ""
    row: str = ""
    log: str = ""
    values: str = ""
    action: str = ""


class ViewCheck(msgspec.Struct, frozen=True):
    """The result for one view.

    Attributes:
        checked_at: microseconds since the epoch.
        drawn, drawn_equal: receipts that were replayed, and those that gave equal bytes.
        compared, compared_equal: keys whose rows were recomputed, and those without a difference.
        differences: how many of each cause; lost positions, gaps and the like count one each.
        waiting: rows that could not be compared, because the lake does not have their last events (yet).
        notes: what else a reader of the result should know.
        kept, kept_equal: receipts that servers kept, and those that gave equal bytes; 0 where they were not replayed.
    """

    view: str
    checked_at: int
    drawn: int
    drawn_equal: int
    compared: int
    compared_equal: int
    differences: dict[str, int]
    examples: tuple[Example, ...]
    waiting: int = 0
    notes: tuple[str, ...] = ()
    kept: int = 0
    kept_equal: int = 0

    @property
    def defects(self) -> int:
        """How many differences nothing innocent explains."""
        return sum(n for cause, n in self.differences.items() if cause in DEFECTS)
