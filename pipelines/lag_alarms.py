"""Says when a reader lags so far behind that retention may take events unread (stream.md, 5).

Half of what the topic keeps is time enough to do something. Apart from worker and sink because both lag alike.
"""

from __future__ import annotations

import logging


class LagAlarms:
    """Watches topics; each is warned of once, and again only after it had caught up."""

    def __init__(self, log: logging.Logger, who: str) -> None:
        self._log, self._who = log, who
        self._late: set[str] = set()

    def look(self, topic: str, broker_time: int, now: int, retention_ms: int | None) -> None:
        """Events of `broker_time` are read at `now` (both microseconds); `retention_ms` None or below 0: kept for ever."""
        late = retention_ms is not None and 0 < retention_ms < 2 * ((now - broker_time) // 1000)
        if late and topic not in self._late:
            self._log.warning(
                "Topic %r: the events that %s reads now are %d s old, and the topic keeps %d s. "
                "Start more of them, or lengthen retention.ms before events are lost.",
                topic, self._who, (now - broker_time) // 1_000_000, (retention_ms or 0) // 1000,
            )  # fmt: skip
        (self._late.add if late else self._late.discard)(topic)
