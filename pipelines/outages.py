"""Says once that a server went away, and once that it is back.

Apart from the worker because several places notice the same outage (a command that fails, the consumer's
own events, a rebalance in between), and a log that repeats itself hides what else it has to say.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter

SCHEMA_REGISTRY = "The schema registry"
LAKE = "The lake"


class Outages:
    """The servers that do not answer at this moment, by name ("Redis", "Kafka"). `counts`: how often each went away."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def away(self, server: str, reason: str) -> None:
        """A server does not answer; said where it is news."""
        if server not in self._since:
            self._since[server] = time.monotonic()
            self.counts[server] += 1
            self._log.warning(
                "%s does not answer (%s); waiting for it.", server, reason.rstrip("."), extra={"server": server}
            )

    def back(self, server: str, asked: float = math.inf) -> None:
        """A server answered what it was asked at `asked` (the monotonic clock; just now by default).

        An answer to a question from before the outage says nothing of its end.
        """
        since = self._since.get(server)
        if since is not None and asked > since:
            del self._since[server]
            self._log.warning("%s is back.", server, extra={"server": server})

    def names(self) -> list[str]:
        """Who is away now."""
        return list(self._since)

    def __contains__(self, server: str) -> bool:
        return server in self._since
