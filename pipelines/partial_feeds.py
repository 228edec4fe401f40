"""A feed that takes partial rows: steps 5 and 6 of the stream path where others did the steps before.

The fence, the scripts, the cache and the conflicts with other writers are those of `ViewFeed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from headwater.rows.counters import Counters
from pipelines.feeds import Ints, Refused, ViewFeed
from pipelines.partial_rows import PartialRows


class PartialFeed(ViewFeed):
    """Feeds one fill with partial rows, each list of them sorted by partition and offset."""

    def overlaps(self, partials: Sequence[PartialRows]) -> dict[tuple[Any, int], int]:
        """(key, partition) -> applied offset of the rows that have some of a partial row's events and lack others.

        A writer left them so that broke off in the middle of a batch of another cut.
        """
        if len(self.table) > self._rows_cached:
            self.forget()
        found = {}
        for some in partials:
            applied = self._applied(self._placed(some), some.partition)
            for i in np.flatnonzero((applied >= some.first) & (applied < some.last)).tolist():
                found[some.keys[i], some.partition] = int(applied[i])
        return found

    def merge(self, partials: Sequence[PartialRows], nexts: Mapping[int, int]) -> None:
        """Bring the fill to the positions `nexts`, given what all events before them made of its rows.

        Raises:
            Refused: another worker, or a Redis that was rolled back, holds another position.
            Unreachable: Redis went away; whether the last script was done is unknown.
        """
        moving = {p: n for p, n in nexts.items() if n > self.positions.get(p, n)}
        if not moving:
            return
        # 5. Take the rows concerned, skip what they have, merge the rest.
        rows = [self._placed(some) for some in partials]
        touched = self._merged(partials, rows)

        def merge_again(again: Ints) -> None:
            self._merged(partials, rows, again)

        counts = np.array([astuple(some.counters) for some in partials], np.int64).reshape(-1, len(astuple(Counters())))
        # 6. Write whole rows and the new positions behind the fence.
        self._write(touched, moving, Counters(*counts.sum(axis=0).tolist()), merge_again)

    def _placed(self, some: PartialRows) -> Ints:
        """The number of each row, those that are new loaded from Redis."""
        rows, new = self.table.numbers(some.keys)
        self._load(new)
        return rows

    def _merged(self, partials: Sequence[PartialRows], rows: Sequence[Ints], only: Ints | None = None) -> Ints:
        touched = [np.empty(0, np.int64)]
        for some, mine in zip(partials, rows, strict=True):
            applied = self._applied(mine, some.partition)
            new = applied < some.first
            if not (new | (applied >= some.last)).all():
                # Somebody else wrote events of this partition since `overlaps` looked.
                raise Refused(self.view.name)
            if only is not None:
                new &= np.isin(mine, only)
            chosen = np.flatnonzero(new)
            if len(chosen):
                self.table.absorb(mine[chosen], [some.rows[i] for i in chosen.tolist()])
                touched.append(mine[chosen])
        return np.unique(np.concatenate(touched))

    def _applied(self, rows: Ints, partition: int) -> Ints:
        known = self.table.applied
        return known[rows, partition] if partition < known.shape[1] else np.full(len(rows), -1, np.int64)
