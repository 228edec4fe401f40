"""What is wrong beside rows: positions that Redis lost or somebody moved, and what the lake should have and lacks.

Apart from causes.py, which names what is wrong with one row: here a whole partition, file or view is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from headwater.events.timestamps import format_timestamp
from headwater.plans.plan import StreamView
from headwater.receipts.results import Example
from validation.keyed_events import KeyedEvents
from validation.lake_side import Kept
from validation.online_side import Served

Range = tuple[int, int, int]
"""Offsets of a partition: (partition, first, end)."""


@dataclass(frozen=True)
class Difference:
    """One difference: its cause, what most likely happened, what row and lake say, and what to do.

    `repairable`: whether the row can be computed again from the lake.
    """

    cause: str
    detail: str
    row: str = ""
    log: str = ""
    action: str = ""
    repairable: bool = False

    def example(self, text: str) -> Example:
        """The example of what is no row; `text` names it."""
        return Example(text, self.cause, self.detail, "", self.row, self.log, "", self.action)


class Losses:
    """What one view's positions and the lake lack. `newest`: partition -> newest offset that a row has applied."""

    def __init__(
        self, view: StreamView, served: Served, kept: Kept, events: KeyedEvents, newest: Mapping[int, int]
    ) -> None:
        self.view, self.served, self.kept, self.events, self.newest = view, served, kept, events, newest
        self.ranges = lost_ranges(kept)
        self.accepted: list[Range] = [(g.partition, g.start, g.end) for g in kept.gaps if g.accepted]

    def all(self, named: set[str]) -> list[tuple[str, Difference]]:
        """Everything, with words for what it concerns. `named`: causes that rows of the view have already."""
        found = [*self._positions(), *self._gaps()]
        return found if "missing in lake" in named else [*found, *self._of_no_row()]

    def too_far(self) -> dict[int, int]:
        """Partition -> where its position belongs, where it lies past events that no row has, or past the end.

        Reading on from there loses nothing: what rows have applied they skip.
        """
        return {
            p: self.newest.get(p, -1) + 1
            for p, position in self.served.positions.items()
            if self._past_end(p, position) or self.skipped(p)
        }

    def skipped(self, p: int) -> bool:
        """Whether events of a partition lie below its position, and behind all that any row has of it."""
        offset = self.events.selected.offset[(self.events.selected.partition == p) & ~self.events.strange]
        return bool(((offset > self.newest.get(p, -1)) & (offset < self.served.positions.get(p, 0))).any())

    def went_back(self, p: int, row: str) -> Difference:
        """The lake's position is before what the sink has said to be kept."""
        known = self.kept.positions.get(p, 0)
        return Difference(
            "missing in lake", "the table lost its newest commits: files of its log were removed, or it was restored",
            row, f"{has_text(p, known)}; the sink had kept it up to offset {self.kept.committed[p] - 1}",
            "run 'headwater sink --until-caught-up': it reads again what the table lost, as far as Kafka has it",
        )  # fmt: skip

    def mend(self) -> str:
        """What to do about files that are gone."""
        return (
            f"put the files back from a backup; or, as far as Kafka still has the events, move {self.kept.uri} away "
            "and run 'headwater sink'"
        )

    def _past_end(self, p: int, position: int) -> bool:
        return self.kept.ends is not None and position > self.kept.ends.get(p, 0)

    def _positions(self) -> Iterator[tuple[str, Difference]]:
        for p in range(self.served.partitions):
            if p not in self.served.positions:
                yield f"position of partition {p}", Difference(
                    "missing online", "Redis lost the position, and may have lost rows with it",
                    "there is none", "", f"headwater backfill {self.view.name}",
                )  # fmt: skip
        for p, position in sorted(self.served.positions.items()):
            if self._past_end(p, position):
                yield f"position of partition {p}", Difference(
                    "defect", "the position was moved forward, or the broker lost its last records; workers stop there",
                    f"it is {position}", f"the topic ends at {(self.kept.ends or {}).get(p, 0)}",
                    f"make sure of the topic; then headwater repair {self.view.name} --from-check",
                )  # fmt: skip

    def _gaps(self) -> Iterator[tuple[str, Difference]]:
        for gap in self.kept.gaps:
            if not gap.accepted:
                yield f"partition {gap.partition}", Difference(
                    "missing in lake", "retention took events from the topic before the sink kept them",
                    log=f"offsets {gap.start} to {gap.end - 1} are gone, found {format_timestamp(gap.found_at)}",
                    action="run the sink more often than the topic's retention; 'headwater check --accept-gaps' once "
                    "you know of the loss",
                )  # fmt: skip

    def _of_no_row(self) -> Iterator[tuple[str, Difference]]:
        """Damage of the lake that happens to concern no row of this view."""
        for file in self.kept.missing_files:
            yield f"file {file}", Difference(
                "missing in lake", "a data file of the lake is gone or broken; it concerns no row of this view",
                log=f"it lacks {ranges_text(self.ranges)}", action=self.mend(),
            )  # fmt: skip
        for p, committed in sorted(self.kept.committed.items()):
            if committed > self.kept.positions.get(p, 0):
                yield f"partition {p}", self.went_back(p, "")


def lost_ranges(kept: Kept) -> list[Range]:
    """Offsets that the lake says it has covered and has no record of.

    The ends of transactions have offsets and no records, so not every range is a loss.
    """
    partition, offset = kept.places
    out = []
    for p, end in sorted(kept.positions.items()):
        mine = np.unique(offset[(partition == p) & (offset < end)])
        edges = np.concatenate([[-1], mine, [end]])
        for i in np.flatnonzero(np.diff(edges) > 1).tolist():
            out.append((p, int(edges[i]) + 1, int(edges[i + 1])))
    return out


def ranges_text(lost: list[Range]) -> str:
    """Ranges in words, at most three."""
    named = [f"partition {p} offsets {a} to {b - 1}" for p, a, b in lost[:3]]
    return ", ".join(named) + (f" and {len(lost) - 3} more ranges" if len(lost) > 3 else "")


def has_text(p: int, position: int) -> str:
    """How far the lake has come in a partition."""
    return f"it has partition {p} up to offset {position - 1}" if position else f"it has nothing of partition {p}"
