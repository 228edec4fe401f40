"""How many records a micro-batch may have.

Large batches are what a backlog needs: where many events fall on a row, the row is written once. Small ones are what
everybody who waits for a batch needs: a stop, another plan, a group that shares its partitions anew. So a batch may
have what is done in a second or two, by how long full ones took. A worker that has caught up never fills one.
"""

from __future__ import annotations

FIRST = 50_000
SHORT, LONG = 1.2, 3.0
"""Seconds: a full batch that takes less may have twice as many records, one that takes more half."""


class BatchSize:
    """The most records of the next batch, up to `most`. `now` begins at FIRST, doubles and halves."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = min(FIRST, most)

    def took(self, records: int, seconds: float) -> None:
        """Learn how long a batch took, from its poll to the next one; one that was not full says nothing."""
        if records < self.now:
            return
        if seconds < SHORT:
            self.now = min(2 * self.now, self.most)
        elif seconds > LONG:
            self.now = max(self.now // 2, min(FIRST // 50, self.most))
