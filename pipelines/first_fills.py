"""`headwater stream --from`: the worker begins views that have never had rows, and says which it leaves alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from headwater.online.connection import Connection
from headwater.online.first_fills import Start, begin_first_fill, first_to_fill
from headwater.online.plan_store import load_published
from headwater.online.published import PublishedPlan

_log = logging.getLogger("headwater.stream")


class FirstFills:
    """Begins first fills where the worker was told from where; without that it does nothing."""

    def __init__(self, start: Start | None, kafka: Mapping[str, str], project: str) -> None:
        self._start, self._kafka, self._project = start, kafka, project
        self._said = False

    def begun(self, connection: Connection, published: PublishedPlan | None) -> PublishedPlan | None:
        """The plan, with the fills that were begun by this worker or, meanwhile, by another.

        Raises:
            Unreachable: Redis or Kafka does not answer.
        """
        if self._start is None or published is None:
            return published
        self._say_whom_it_leaves(published)
        begun = False
        for view in first_to_fill(connection, published):
            fill = begin_first_fill(connection, self._kafka, self._project, view, self._start)
            if fill is not None and fill.known_from is not None:
                known, begun = fill.known_from, True
                _log.info(
                    "View %r: its rows begin at %s (partition: offset %s). Readers get them when they have come to "
                    "where the topic ended just now.", view, known.text(), known.offsets, extra={"view": view},
                )  # fmt: skip
        return load_published(connection, self._project) if begun else published

    def _say_whom_it_leaves(self, published: PublishedPlan) -> None:
        assert self._start is not None
        names = sorted(v.name for v in published.plan.stream_views() if v.name in published.active)
        if names and not self._said:
            self._said = True
            _log.info(
                "--from %s is for views that have never had rows. These go on from their positions: %s.",
                self._start.asked, ", ".join(names),
            )  # fmt: skip
