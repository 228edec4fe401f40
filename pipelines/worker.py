"""The worker: events from Kafka become rows in Redis. The steps, as the numbers in the code:

1. Poll a micro-batch from the assigned partitions.
2. Decode; what does not fit goes to the dead-letter topic, acknowledged before any position moves.
3. Admit: the source's expectations, event by event; the sink keeps what they withhold.
4. Evaluate `where` and `derive`, reduce to partial tiles         (feeds.py)
5. Take the rows concerned, skip what is applied, merge the rest  (feeds.py)
6. Write rows and positions behind the fence                      (feeds.py)
7. Commit offsets to Kafka, for the monitors.

The position in Redis is the position of record. Whatever goes wrong (a refusal, a lost
connection, a rebalance), the answer is the same: forget what is cached, read the positions,
and go on from there. A crash anywhere repeats work and changes no value.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from headwater.errors import KafkaUnreachable, RegistryUnreachable, TopicChanged, Unreachable
from headwater.events.admission import DEAD_LETTER, Admission
from headwater.events.schemas import Schemas
from headwater.events.select import source_columns
from headwater.online.connection import Connection, readiness_warnings
from headwater.online.first_fills import Start
from headwater.online.freshness import FreshnessWriter
from headwater.online.keys import plan_id_key, probe_key
from headwater.online.plan_store import has_positions, load_fill, load_published, refill, source_of, switch
from headwater.online.published import Fill, PublishedPlan, stream_fills
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Source, StreamView
from pipelines.consumers import Place, TopicBatch
from pipelines.dead_letters import DeadLetters
from pipelines.feeds import PositionsLost, Refused, ViewFeed
from pipelines.first_fills import FirstFills
from pipelines.lag_alarms import LagAlarms
from pipelines.micro_batches import Batches, BeforeLogStart, MicroBatches
from pipelines.outages import SCHEMA_REGISTRY, Outages
from pipelines.stream_metrics import StreamMetrics
from pipelines.topic_checks import misfit_of, waits_anew
from pipelines.topic_watch import TopicWatch

_log = logging.getLogger("headwater.stream")


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker runs. `batch`: most records of a micro-batch; times are seconds; `start`: where first rows begin."""

    batch: int = 100_000
    wait: float = 0.05
    plan_every: float = 1.0
    commit_every: float = 1.0
    retry_every: float = 0.5
    start: Start | None = None


@dataclass
class SourceFeeds:
    """What the worker holds of one source: its admission and the feeds of its views."""

    topic: str
    admission: Admission
    feeds: list[ViewFeed] = field(default_factory=list)


class Worker:
    """One worker of a project's group. `run` returns when `stop` was called, or when it has caught up."""

    def __init__(
        self,
        redis_url: str,
        kafka: Mapping[str, str],
        project: str,
        settings: WorkerSettings | None = None,
        schema_registry: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings or WorkerSettings()
        self.project, self.kafka, self._redis_url = project, dict(kafka), redis_url
        self.connection = Connection(redis_url)
        self.events = 0
        self._stopping = False
        self._plan: PublishedPlan | None = None
        self._sources: dict[str, SourceFeeds] = {}
        self._batches: Batches | None = None
        self._dead_letters: DeadLetters | None = None
        self._schemas = Schemas(schema_registry)
        self._freshness = FreshnessWriter(project)
        self._watch = TopicWatch(self.kafka)
        self._first_fills = FirstFills(self.settings.start, self.kafka, project)
        self._outages = Outages(_log)
        self.metrics = StreamMetrics(self.kafka, self._outages, self._freshness.histograms)
        self._alarms = LagAlarms(_log, "the worker")
        self._looked = self._committed = 0.0
        self._said: set[str] = set()
        self._unfilled: list[tuple[str, str]] = []
        self._flying: list[tuple[SourceFeeds, TopicBatch]] = []

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`; may be called from a signal handler."""
        self._stopping = True

    def run(self, *, until: Callable[[], bool] | None = None) -> None:
        """Work until stopped, or until `until` says so (asked between batches)."""
        for warning in readiness_warnings(self.connection):
            _log.warning("%s", warning)
        try:
            while not self._stopping:
                try:
                    self._turn()
                    # After a turn: what is wrong with a topic is said before anything counts as caught up.
                    if until is not None and until():
                        break
                except Unreachable as error:
                    self._wait_for(error)
                except Refused as refused:
                    self.metrics.refused(str(refused))
                    _log.info("View %s: Redis holds another position; reading it again.", refused)
                    if self._batches is not None:
                        self._batches.turn()
                    self._restart()
            self._land_what_flies()
            self._switch_what_is_due()
        finally:
            self.close()

    def close(self) -> None:
        """Leave the group and the servers."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        if self._dead_letters is not None:
            self._dead_letters.close()
            self._dead_letters = None
        self.connection.close()

    def _turn(self) -> None:
        self.metrics.turns.turned()
        if time.monotonic() - self._looked >= self.settings.plan_every:
            self._land()
            self._look_at_plan()
        if self._batches is None:
            time.sleep(self.settings.wait)
            return
        if self._watch.changed({t: [f.fill.topic_id for f in s.feeds] for t, s in self._sources.items() if s.feeds}):
            self._verify_topics(self._plan, self._sources)
        self._outages.back("Kafka", self._watch.answered)
        if self._batches.held and not self._batches.restart():
            time.sleep(self.settings.retry_every)
            return
        # 1. Poll a micro-batch.
        try:
            polled = self._batches.poll(self.settings.batch, 0 if self._flying else self.settings.wait)
            waiting = self._apply_all(polled)
        except BeforeLogStart:
            # What else was polled is lost to us, and a position that fits no log is looked into: read all again.
            self._plan = None
            self._hold()
            return
        except TopicChanged as changed:
            self._verify_topics(self._plan, self._sources)
            raise Unreachable(f"Kafka does not know a topic that exists: {changed}") from changed
        if not polled:
            self._land()
            self._advance_idle()
        self._commit()
        if waiting is not None:
            raise waiting

    def _apply_all(self, polled: Mapping[str, TopicBatch]) -> RegistryUnreachable | None:
        """Apply each topic's batch; one that waits for a schema does not keep the others."""
        waiting = None
        for topic, batch in polled.items():
            try:
                self._apply(self._sources[topic], batch)
            except RegistryUnreachable as error:
                waiting = error
        self._outages.back(SCHEMA_REGISTRY, self._schemas.answered)
        return waiting

    def _apply(self, source: SourceFeeds, batch: TopicBatch) -> None:
        self._warn_of_lag(source, batch)
        # 2, 3. Decode and admit; dead letters are acknowledged before the position moves.
        admitted = source.admission.admit(batch.values, batch.partition, batch.offset, batch.broker_time)
        dead = [r for r in admitted.rejected if r.kind == DEAD_LETTER]
        if dead:
            assert self._dead_letters is not None
            self._dead_letters.send(source.topic, dead)
        self._land(source)
        self.metrics.admitted(source.topic, admitted.rejected)
        for feed in source.feeds:
            # 4 to 6; Redis has what this sends while the next batch is polled and decoded.
            feed.start(admitted.events, batch.nexts)
        self._flying.append((source, batch))

    def _land(self, only: SourceFeeds | None = None) -> None:
        """Wait until what was sent (of one source) is written; only then do events count."""
        flying = [f for f in self._flying if only is None or f[0] is only]
        self._flying = [f for f in self._flying if only is not None and f[0] is not only]
        for source, batch in flying:
            last = None
            for feed in source.feeds:
                written = feed.settle()
                if written is not None:
                    last = max(written, last or written)
                    self._freshness.record(feed.view.name, batch.broker_time, written)
            self.events += len(batch.values)
            self.metrics.landed(source.topic, len(batch.values), source.feeds, last)
        self._freshness.flush_when_due(self.connection)

    def _land_what_flies(self) -> None:
        """At the end; what Redis refuses or does not hear is done again by whoever comes next."""
        try:
            self._land()
        except (Unreachable, Refused) as error:
            _log.info("The last batch was not written: %s", error)

    def _advance_idle(self) -> None:
        """Past the end of aborted transactions there is no record, but the position moves all the same."""
        assert self._batches is not None
        for (topic, partition), offset in self._batches.ends_reached().items():
            for feed in self._sources[topic].feeds:
                at = feed.positions.get(partition)
                if at is not None and offset > at:
                    feed.advance({partition: offset})

    def _commit(self) -> None:
        # 7. For the monitors only.
        now = time.monotonic()
        if self._batches is None or now - self._committed < self.settings.commit_every:
            return
        self._committed, least = now, self._least_positions()
        self._batches.commit(least)
        self.metrics.stand({t: s.feeds for t, s in self._sources.items()}, least)
        for feed in self._feeds():
            self._try_switch(feed)

    def _switch_what_is_due(self) -> None:
        """At the end: what has just caught up need not wait for another worker."""
        try:
            for feed in self._feeds():
                self._try_switch(feed)
        except Unreachable as error:
            _log.warning("%s", error)

    def _warn_of_lag(self, source: SourceFeeds, batch: TopicBatch) -> None:
        kept = [f.fill.retention_ms for f in source.feeds if f.fill.retention_ms > 0]
        now = time.time_ns() // 1000
        self._alarms.look(source.topic, int(batch.broker_time.min()), now, min(kept, default=None))

    def _least_positions(self) -> dict[Place, int]:
        least: dict[Place, int] = {}
        for topic, source in self._sources.items():
            for feed in source.feeds:
                for p, offset in feed.positions.items():
                    least[topic, p] = min(offset, least.get((topic, p), offset))
        return least

    def _feeds(self) -> list[ViewFeed]:
        return [f for s in self._sources.values() for f in s.feeds]

    # ---- the plan

    def _look_at_plan(self) -> None:
        self._looked = time.monotonic()
        found = self.connection.command("GET", plan_id_key(self.project))
        if found is None:
            self._say_once(f"No plan for project {self.project!r} in Redis; waiting for 'headwater apply'.")
            self._take(None)
        elif self._plan is None or found.decode() != self._plan.id or self._filled_meanwhile():
            self._take(self._first_fills.begun(self.connection, load_published(self.connection, self.project)))

    def _filled_meanwhile(self) -> bool:
        """Whether a backfill has placed positions since the plan was taken; the plan's id stays as it was."""
        fills = [load_fill(self.connection, self.project, *waiting) for waiting in self._unfilled]
        return any(f is not None and has_positions(self.connection, self.project, f) for f in fills)

    def _take(self, plan: PublishedPlan | None) -> None:
        """Run another plan: the feeds of its fills, and a consumer of their topics."""
        if plan is None and self._plan is None and not self._sources:
            return
        topics_before = set(self._sources)
        self._plan, self._sources = plan, self._sources_of(plan) if plan else {}
        self.metrics.looked(plan is not None, self._sources)
        if set(self._sources) == topics_before and self._batches is not None:
            self._restart()
            return
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        if self._sources:
            self._dead_letters = self._dead_letters or DeadLetters(self.kafka)
            self._batches = self._open_batches(sorted(self._sources))

    def _open_batches(self, topics: list[str]) -> Batches:
        """Where the events of these topics come from."""
        return MicroBatches(self.kafka, stream_group(self.project), topics, self._starts, outages=self._outages)

    def _feed_of(self, view: StreamView, fill: Fill) -> ViewFeed:
        return ViewFeed(self.connection, self.project, view, fill)

    def _sources_of(self, plan: PublishedPlan) -> dict[str, SourceFeeds]:
        taken: dict[str, tuple[Source, list[ViewFeed]]] = {}
        self._unfilled = []
        for view, fill_id in stream_fills(plan):
            fill = load_fill(self.connection, self.project, view.name, fill_id)
            source = source_of(plan, view)
            # No worker touches a fill without positions (stream.md, 6).
            if fill is None or not has_positions(self.connection, self.project, fill):
                self._unfilled.append((view.name, fill_id))
                if (active := plan.active.get(view.name)) is not None and active.fill == fill_id:
                    self._lost(view.name, fill_id, "its positions are gone from Redis, so its rows cannot be trusted")
            elif source is None:
                self._say_once(
                    f"View {view.name!r}: the source of its rows was changed. They stay as they are until "
                    f"'headwater backfill {view.name}' has filled the new ones."
                )
            else:
                taken.setdefault(source.topic, (source, []))[1].append(self._feed_of(view, fill))
        found = {}
        for topic, (source, feeds) in taken.items():
            needed = set().union(*(source_columns(feed.view) for feed in feeds))
            found[topic] = SourceFeeds(topic, Admission(source, self._schemas, needed), feeds)
        self._verify_topics(plan, found)
        return found

    def _verify_topics(self, plan: PublishedPlan | None, sources: dict[str, SourceFeeds]) -> None:
        """Stop where a topic is another one, or ends before a position; give up feeds that the log has left behind."""
        asked, facts = time.monotonic(), topic_facts(self.kafka, sources)
        if facts:
            self._outages.back("Kafka", asked)
        for topic, source in sources.items():
            for feed in list(source.feeds):
                waits = plan is not None and waits_anew(plan, feed.view.name, feed.fill)
                misfit = misfit_of(
                    self.connection, self.project, feed.view.name, feed.fill, facts.get(topic),
                    lambda topic=topic: topic_facts(self.kafka, [topic]).get(topic), waits=waits,  # type: ignore[misc]
                )  # fmt: skip
                if misfit is None:
                    continue
                source.feeds.remove(feed)
                if misfit.lost:
                    self._lost(feed.view.name, feed.fill.id, misfit.reason)
                else:
                    self._say_once(misfit.reason)

    # ---- positions

    def _starts(self, places: Iterable[Place]) -> dict[Place, int] | None:
        """Where to read each place from: the least position of its fills; None while Redis is away."""
        wanted: dict[str, list[int]] = {}
        places = set(places)
        self.metrics.starts(places)
        for topic, partition in places:
            wanted.setdefault(topic, []).append(partition)
        try:
            # What was sent of the old positions is written or refused before they are read again.
            self._land_what_flies()
            for topic, source in self._sources.items():
                for feed in list(source.feeds):
                    self._begin(source, feed, wanted.get(topic, []))
        except Unreachable as error:
            self._say_away(error)
            return None
        self.metrics.positioned = True
        return {place: o for place, o in self._least_positions().items() if place in places}

    def _begin(self, source: SourceFeeds, feed: ViewFeed, partitions: list[int]) -> None:
        try:
            feed.begin(partitions)
        except PositionsLost as lost:
            found = self.connection.command("GET", plan_id_key(self.project))
            if self._plan is not None and found is not None and found.decode() == self._plan.id:
                self._lost(lost.view, feed.fill.id, "positions of it are gone from Redis, so its rows may be, too")
            # Else the fill was retired: the next turn reads the plan that did it.
            self._looked = 0.0
            source.feeds.remove(feed)

    def _restart(self) -> None:
        if self._batches is not None:
            self._batches.restart()

    def _lost(self, view: str, fill_id: str, reason: str) -> None:
        """A fill cannot go on: the view goes back to filling from the lake (stream.md, 5 and 6)."""
        refill(self.connection, self.kafka, self.project, view, instead_of=fill_id)
        text = f"View {view!r}: {reason}. Fill it from the lake with 'headwater backfill {view}'."
        self._say_once(text, about=fill_id)

    def _try_switch(self, feed: ViewFeed) -> None:
        filling = self._plan.filling.get(feed.view.name) if self._plan else None
        if (
            filling is not None
            and filling.fill == feed.fill.id
            and switch(self.connection, self.project, feed.view.name)
        ):
            self._say_once(
                f"View {feed.view.name}: its new definition is filled and active.", about=f"{feed.fill.id} active"
            )
            self._looked = 0.0

    # ---- servers that are away

    def _wait_for(self, error: Unreachable) -> None:
        self._say_away(error)
        if self.connection.connected:
            # Redis is there, so it was Kafka; its client reconnects by itself.
            time.sleep(self.settings.retry_every)
            self._hold()
            return
        while not self._redis_serves():
            self.metrics.turns.turned()
            time.sleep(self.settings.retry_every)
            if self._stopping:
                return
        self._said.clear()
        self._outages.back("Redis")
        # A reconnect must not hide a rollback: all positions are read again, the plan too.
        self._hold()

    def _redis_serves(self) -> bool:
        """Connect anew; True where Redis also takes a write, which a full one and a replica do not."""
        try:
            self.connection.reconnect()
            self.connection.command("SET", probe_key(self.project), "", "PX", 1_000)
            return True
        except Unreachable:
            return False

    def _say_away(self, error: Unreachable) -> None:
        if not self.connection.connected:
            self._outages.away("Redis", str(error))
        elif isinstance(error, KafkaUnreachable):
            self._outages.away("Kafka", str(error))
        elif isinstance(error, RegistryUnreachable):
            self._outages.away(SCHEMA_REGISTRY, str(error))
        elif "Kafka" not in self._outages:
            self._say_once(f"{error} Waiting for it.")

    def _hold(self) -> None:
        """Trust nothing that was read before: the next turn reads the plan and all positions again."""
        self._looked = 0.0
        if self._batches is None:
            self._plan = None
        else:
            self._batches.held = True

    def _say_once(self, text: str, *, about: str | None = None) -> None:
        """Say a text, or any about one thing, once until Redis was away."""
        if (about or text) not in self._said:
            self._said.add(about or text)
            _log.warning("%s", text)


def stream_group(project: str) -> str:
    """The consumer group of a project's workers; its offsets in Kafka are for monitors."""
    return f"headwater-stream-{project}"
