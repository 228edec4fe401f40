"""Says once that a server went away, and once that it is back; and any other text once.

Apart from the worker because several places notice the same outage (a command that fails, the consumer's
own events, a rebalance in between), and a log that repeats itself hides what else it has to say.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter

from headwater.errors import KafkaUnreachable, LakeUnreachable, RegistryUnreachable, Unreachable

SCHEMA_REGISTRY = "The schema registry"
LAKE = "The lake"


class Outages:
    """The servers that do not answer at this moment, by name ("Redis", "Kafka"). `counts`: how often each went away.

    `said`: what else a loop has to say, once.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self.said = SaidOnce(log)

    def away(self, server: str, reason: str) -> None:
        """A server does not answer; said where it is news."""
        if server not in self._since:
            self._since[server] = time.monotonic()
            self.counts[server] += 1
            self._log.warning(
                "%s does not answer (%s); waiting for it.", server, reason.rstrip("."), extra={"server": server}
            )

    def met(self, error: Unreachable) -> None:
        """Some server does not answer: the one that the error names, else any that its text is about."""
        if isinstance(error, KafkaUnreachable):
            self.away("Kafka", str(error))
        elif isinstance(error, RegistryUnreachable):
            self.away(SCHEMA_REGISTRY, str(error))
        elif isinstance(error, LakeUnreachable):
            self.away(LAKE, str(error))
        elif "Kafka" not in self:
            self.said.say(f"{error} Waiting for it.")

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


class SaidOnce:
    """Warnings that a loop would repeat each turn: each is said once, until it begins anew."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[str] = set()

    def say(self, text: str, *, about: str | None = None) -> None:
        """Say a text, or any about one thing, unless it was said."""
        if (about or text) not in self._said:
            self._said.add(about or text)
            self._log.warning("%s", text)

    def begin_anew(self) -> None:
        """What was said is news again."""
        self._said.clear()
