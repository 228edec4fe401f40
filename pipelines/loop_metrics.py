"""What the worker and the sink count alike: turns, positions, lag, restarts and outages.

Written by the loop, once a batch or once a second; read by the endpoint's thread. Each number is changed by the
loop alone, and what is read as a whole is replaced, so neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headwater.monitoring.endpoint import Turns
from headwater.monitoring.families import counters, gauges
from pipelines.consumers import Place
from pipelines.lag_watch import LagWatch
from pipelines.outages import Outages


class LoopMetrics:
    """`plan`: whether one is loaded; `positioned`: whether its partitions have been given, and where to read from.

    The lag is watched once `watch_lag` was called, which the endpoint does: nobody else needs it.
    """

    def __init__(self, prefix: str, kafka: Mapping[str, str], outages: Outages) -> None:
        self.turns = Turns()
        self.plan = self.positioned = False
        self.restarts = self.rebalances = 0
        self._prefix, self._kafka, self._outages = prefix, kafka, outages
        self._places: set[Place] = set()
        self._nexts: dict[Place, int] = {}
        self._lag: LagWatch | None = None

    def watch_lag(self) -> None:
        """Begin to ask where the topics end."""
        self._lag = LagWatch(self._kafka)

    def looked(self, plan: bool, topics: Iterable[str]) -> None:
        """A plan was taken; without topics there is nothing to position."""
        self.plan, self.positioned = plan, not list(topics)

    def starts(self, places: Iterable[Place]) -> None:
        """The positions of these places are about to be read anew."""
        found = set(places)
        self.restarts += 1
        self.rebalances += found != self._places
        self._places, self.positioned = found, False

    def stands(self, nexts: Mapping[Place, int]) -> None:
        """The next offset of each place whose rows or records are written; to be called about once a second."""
        self._nexts = dict(nexts)
        if self._lag is not None:
            self._lag.look(self._nexts)

    def not_ready(self) -> list[str]:
        """What is missing until events are taken, in words."""
        missing = [f"{server} does not answer" for server in self._outages.names()]
        if not self.plan:
            return [*missing, "no plan is loaded"]
        return missing if self.positioned else [*missing, "partitions have no positions yet"]

    def collect(self) -> Iterable[Any]:
        """prometheus_client's metric families."""
        name, nexts, ends = self._prefix, self._nexts, self._lag.ends if self._lag else {}
        lags: dict[tuple[str, ...], float] = {
            (t, str(p)): max(0, ends[t, p] - at) for (t, p), at in nexts.items() if (t, p) in ends
        }
        yield gauges(f"{name}_lag_events", "Events that the topic has and this process has not written.",
                     ("topic", "partition"), lags)  # fmt: skip
        yield counters(f"{name}_restarts", "How often positions were read anew, whatever the cause.",
                       (), {(): self.restarts})  # fmt: skip
        yield counters(f"{name}_rebalances", "How often the group gave this process other partitions.",
                       (), {(): self.rebalances})  # fmt: skip
        yield counters("headwater_outages", "How often a server did not answer.", ("server",),
                       {(s,): n for s, n in self._outages.counts.copy().items()})  # fmt: skip
        away = self._outages.names()
        yield gauges("headwater_server_away", "1 while a server does not answer.", ("server",),
                     {(s,): int(s in away) for s in ("Redis", "Kafka", *away)})  # fmt: skip
