"""What a run of the consistency check found, a view each: printed, kept in the lake's `checks` table, shown
in the catalog."""

from __future__ import annotations

import msgspec

CAUSES = (
    "late data", "definition changed", "expired", "not yet applied", "missing in lake", "missing online", "defect",
)  # fmt: skip
"""Names of differences. All but the last three have an innocent explanation."""

DEFECTS = ("missing in lake", "missing online", "defect")


class Example(msgspec.Struct, frozen=True):
    """One difference: the entity key (as in Redis), its cause and what was seen."""

    key: str
    cause: str
    detail: str


class ViewCheck(msgspec.Struct, frozen=True):
    """The result for one view. `checked_at`: microseconds since the epoch."""

    view: str
    checked_at: int
    drawn: int
    drawn_equal: int
    compared: int
    compared_equal: int
    differences: dict[str, int]
    examples: tuple[Example, ...]

    @property
    def defects(self) -> int:
        """How many differences nothing innocent explains."""
        return sum(n for cause, n in self.differences.items() if cause in DEFECTS)
