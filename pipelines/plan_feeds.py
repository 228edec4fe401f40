"""The plan that a worker runs, and the feeds of its fills: which there are, which are lost, which are switched to.

Apart from the worker because nothing here touches an event: it is looked at once a second, and says which feeds the
worker's steps run on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from headwater.events.admission import Admission
from headwater.events.schemas import Schemas
from headwater.events.select import source_columns
from headwater.online.connection import Connection
from headwater.online.keys import plan_id_key
from headwater.online.plan_store import has_positions, load_fill, load_published, refill, source_of, switch
from headwater.online.published import Fill, PublishedPlan, stream_fills
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Source, StreamView
from pipelines.consumers import Place
from pipelines.feeds import PositionsLost, ViewFeed
from pipelines.first_fills import FirstFills
from pipelines.outages import Outages
from pipelines.topic_checks import misfit_of, waits_anew

_log = logging.getLogger("headwater.stream")


@dataclass
class SourceFeeds:
    """What the worker holds of one source: its admission and the feeds of its views."""

    topic: str
    admission: Admission
    feeds: list[ViewFeed] = field(default_factory=list)


class PlanFeeds:
    """The plan as it was taken last, and `sources`: by topic, the feeds of its fills that have positions."""

    def __init__(
        self,
        connection: Connection,
        kafka: Mapping[str, str],
        project: str,
        schemas: Schemas,
        first_fills: FirstFills,
        outages: Outages,
        feed_of: Callable[[StreamView, Fill], ViewFeed],
    ) -> None:
        self.plan: PublishedPlan | None = None
        self.sources: dict[str, SourceFeeds] = {}
        self._connection, self._kafka, self._project, self._schemas = connection, kafka, project, schemas
        self._first_fills, self._outages, self._feed_of = first_fills, outages, feed_of
        self._looked = 0.0
        self._unfilled: list[tuple[str, str]] = []

    def feeds(self) -> list[ViewFeed]:
        """The feeds of all sources."""
        return [f for s in self.sources.values() for f in s.feeds]

    def topic_ids(self) -> dict[str, list[str | None]]:
        """By topic, the ids that its fills know it by."""
        return {topic: [f.fill.topic_id for f in s.feeds] for topic, s in self.sources.items() if s.feeds}

    def least_positions(self) -> dict[Place, int]:
        """Where each place is read from: the least position of its fills."""
        least: dict[Place, int] = {}
        for topic, source in self.sources.items():
            for feed in source.feeds:
                for p, offset in feed.positions.items():
                    least[topic, p] = min(offset, least.get((topic, p), offset))
        return least

    # ---- the plan

    def due(self, every: float) -> bool:
        """Whether the last look is so many seconds ago."""
        return time.monotonic() - self._looked >= every

    def look_again(self) -> None:
        """The next look is due now."""
        self._looked = 0.0

    def forget(self) -> None:
        """Whatever plan the next look finds is taken as new."""
        self.plan = None

    def look(self) -> bool:
        """Look at the plan in Redis; True where one was taken, so that `sources` are new.

        Raises:
            Unreachable: Redis or Kafka does not answer; plan and sources stay.
            TopicChanged: a topic is not the one that a fill was filled from.
        """
        self._looked = time.monotonic()
        found = self._connection.command("GET", plan_id_key(self._project))
        if found is None:
            self._outages.said.say(f"No plan for project {self._project!r} in Redis; waiting for 'headwater apply'.")
            return self._take(None)
        if self.plan is None or found.decode() != self.plan.id or self._filled_meanwhile():
            return self._take(
                self._first_fills.begun(self._connection, load_published(self._connection, self._project))
            )
        return False

    def _filled_meanwhile(self) -> bool:
        """Whether a backfill has placed positions since the plan was taken; the plan's id stays as it was."""
        fills = [load_fill(self._connection, self._project, *waiting) for waiting in self._unfilled]
        return any(f is not None and has_positions(self._connection, self._project, f) for f in fills)

    def _take(self, plan: PublishedPlan | None) -> bool:
        if plan is None and self.plan is None and not self.sources:
            return False
        self.plan, self.sources = plan, self._sources_of(plan) if plan else {}
        return True

    def _sources_of(self, plan: PublishedPlan) -> dict[str, SourceFeeds]:
        taken: dict[str, tuple[Source, list[ViewFeed]]] = {}
        self._unfilled = []
        for view, fill_id in stream_fills(plan):
            fill = load_fill(self._connection, self._project, view.name, fill_id)
            source = source_of(plan, view)
            # No worker touches a fill without positions (stream.md, 6).
            if fill is None or not has_positions(self._connection, self._project, fill):
                self._unfilled.append((view.name, fill_id))
                if (active := plan.active.get(view.name)) is not None and active.fill == fill_id:
                    self._lost(view.name, fill_id, "its positions are gone from Redis, so its rows cannot be trusted")
            elif source is None:
                self._outages.said.say(
                    f"View {view.name!r}: the source of its rows was changed. They stay as they are until "
                    f"'headwater backfill {view.name}' has filled the new ones."
                )
            else:
                taken.setdefault(source.topic, (source, []))[1].append(self._feed_of(view, fill))
        found = {}
        for topic, (source, feeds) in taken.items():
            needed = set().union(*(source_columns(feed.view) for feed in feeds))
            found[topic] = SourceFeeds(topic, Admission(source, self._schemas, needed), feeds)
        self._verify(plan, found)
        return found

    # ---- topics

    def verify_topics(self) -> None:
        """Stop where a topic is another one, or ends before a position; give up feeds that the log has left behind.

        Raises:
            Unreachable: Redis or Kafka does not answer.
            TopicChanged: as said.
        """
        self._verify(self.plan, self.sources)

    def _verify(self, plan: PublishedPlan | None, sources: dict[str, SourceFeeds]) -> None:
        asked, facts = time.monotonic(), topic_facts(self._kafka, sources)
        if facts:
            self._outages.back("Kafka", asked)
        for topic, source in sources.items():
            for feed in list(source.feeds):
                waits = plan is not None and waits_anew(plan, feed.view.name, feed.fill)
                misfit = misfit_of(
                    self._connection, self._project, feed.view.name, feed.fill, facts.get(topic),
                    lambda topic=topic: topic_facts(self._kafka, [topic]).get(topic), waits=waits,  # type: ignore[misc]
                )  # fmt: skip
                if misfit is None:
                    continue
                source.feeds.remove(feed)
                if misfit.lost:
                    self._lost(feed.view.name, feed.fill.id, misfit.reason)
                else:
                    self._outages.said.say(misfit.reason)

    # ---- fills

    def begin(self, places: Iterable[Place]) -> None:
        """Read the positions of these places anew; a feed whose positions are gone is given up.

        Raises:
            Unreachable: Redis does not answer.
        """
        wanted: dict[str, list[int]] = {}
        for topic, partition in places:
            wanted.setdefault(topic, []).append(partition)
        for topic, source in self.sources.items():
            for feed in list(source.feeds):
                self._begin(source, feed, wanted.get(topic, []))

    def _begin(self, source: SourceFeeds, feed: ViewFeed, partitions: list[int]) -> None:
        try:
            feed.begin(partitions)
        except PositionsLost as lost:
            found = self._connection.command("GET", plan_id_key(self._project))
            if self.plan is not None and found is not None and found.decode() == self.plan.id:
                self._lost(lost.view, feed.fill.id, "positions of it are gone from Redis, so its rows may be, too")
            # Else the fill was retired: the next turn reads the plan that did it.
            self.look_again()
            source.feeds.remove(feed)

    def _lost(self, view: str, fill_id: str, reason: str) -> None:
        """A fill cannot go on: the view goes back to filling from the lake (stream.md, 5 and 6)."""
        refill(self._connection, self._kafka, self._project, view, instead_of=fill_id)
        text = f"View {view!r}: {reason}. Fill it from the lake with 'headwater backfill {view}'."
        self._outages.said.say(text, about=fill_id)

    def switch_what_is_due(self) -> None:
        """Switch to the fills that are not behind the old ones any more.

        Raises:
            Unreachable: Redis does not answer.
        """
        for feed in self.feeds():
            self._try_switch(feed)

    def _try_switch(self, feed: ViewFeed) -> None:
        filling = self.plan.filling.get(feed.view.name) if self.plan else None
        if (
            filling is not None
            and filling.fill == feed.fill.id
            and switch(self._connection, self._project, feed.view.name)
        ):
            self._outages.said.say(
                f"View {feed.view.name}: its new definition is filled and active.", about=f"{feed.fill.id} active"
            )
            self.look_again()
