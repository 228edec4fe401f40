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
from dataclasses import dataclass

from headwater.errors import RegistryUnreachable, TopicChanged, Unreachable
from headwater.events.admission import DEAD_LETTER
from headwater.events.schemas import Schemas
from headwater.online.connection import Connection, readiness_warnings
from headwater.online.first_fills import Start
from headwater.online.freshness import FreshnessWriter
from headwater.online.keys import probe_key
from headwater.online.published import Fill
from headwater.plans.plan import StreamView
from pipelines.batch_size import BatchSize
from pipelines.consumers import Place, TopicBatch
from pipelines.dead_letters import DeadLetters
from pipelines.feeds import Refused, ViewFeed
from pipelines.first_fills import FirstFills
from pipelines.lag_alarms import LagAlarms
from pipelines.micro_batches import Batches, BeforeLogStart, MicroBatches
from pipelines.outages import SCHEMA_REGISTRY, Outages
from pipelines.plan_feeds import PlanFeeds, SourceFeeds
from pipelines.stream_metrics import StreamMetrics
from pipelines.topic_watch import TopicWatch

_log = logging.getLogger("headwater.stream")


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker runs. `batch`: most records of a micro-batch; times are seconds; `start`: where first rows begin."""

    batch: int = 400_000
    wait: float = 0.05
    plan_every: float = 1.0
    commit_every: float = 1.0
    retry_every: float = 0.5
    start: Start | None = None


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
        self._size = BatchSize(self.settings.batch)
        self._batches: Batches | None = None
        self._dead_letters: DeadLetters | None = None
        self._schemas = Schemas(schema_registry)
        self._freshness = FreshnessWriter(project)
        self._watch = TopicWatch(self.kafka)
        self._outages = Outages(_log)
        first_fills = FirstFills(self.settings.start, self.kafka, project)
        self._fed = PlanFeeds(
            self.connection, self.kafka, project, self._schemas, first_fills, self._outages, self._feed_of
        )
        self.metrics = StreamMetrics(self.kafka, self._outages, self._freshness.histograms)
        self._alarms = LagAlarms(_log, "the worker")
        self._committed = 0.0
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
        if self._fed.due(self.settings.plan_every):
            self._land()
            self._look_at_plan()
        if self._batches is None:
            time.sleep(self.settings.wait)
            return
        if self._watch.changed(self._fed.topic_ids()):
            self._fed.verify_topics()
        self._outages.back("Kafka", self._watch.answered)
        if self._batches.held and not self._batches.restart():
            time.sleep(self.settings.retry_every)
            return
        # 1. Poll a micro-batch.
        try:
            polled = self._batches.poll(self._size.now, 0 if self._flying else self.settings.wait)
            began = time.monotonic()
            waiting = self._apply_all(polled)
        except BeforeLogStart:
            # What else was polled is lost to us, and a position that fits no log is looked into: read all again.
            self._fed.forget()
            self._hold()
            return
        except TopicChanged as changed:
            self._fed.verify_topics()
            raise Unreachable(f"Kafka does not know a topic that exists: {changed}") from changed
        if not polled:
            self._land()
            self._advance_idle()
        self._commit()
        self._size.took(sum(len(b.values) for b in polled.values()), time.monotonic() - began)
        if waiting is not None:
            raise waiting

    def _apply_all(self, polled: Mapping[str, TopicBatch]) -> RegistryUnreachable | None:
        """Apply each topic's batch; one that waits for a schema does not keep the others."""
        waiting = None
        for topic, batch in polled.items():
            try:
                self._apply(self._fed.sources[topic], batch)
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
            for feed in self._fed.sources[topic].feeds:
                at = feed.positions.get(partition)
                if at is not None and offset > at:
                    feed.advance({partition: offset})

    def _commit(self) -> None:
        # 7. For the monitors only.
        now = time.monotonic()
        if self._batches is None or now - self._committed < self.settings.commit_every:
            return
        self._committed, least = now, self._fed.least_positions()
        self._batches.commit(least)
        self.metrics.stand({t: s.feeds for t, s in self._fed.sources.items()}, least)
        self._fed.switch_what_is_due()

    def _switch_what_is_due(self) -> None:
        """At the end: what has just caught up need not wait for another worker."""
        try:
            self._fed.switch_what_is_due()
        except Unreachable as error:
            _log.warning("%s", error)

    def _warn_of_lag(self, source: SourceFeeds, batch: TopicBatch) -> None:
        kept = [f.fill.retention_ms for f in source.feeds if f.fill.retention_ms > 0]
        now = time.time_ns() // 1000
        self._alarms.look(source.topic, int(batch.broker_time.min()), now, min(kept, default=None))

    # ---- the plan

    def _look_at_plan(self) -> None:
        """Where another plan was taken: a consumer of its topics, which begins at the positions of its fills."""
        topics_before = set(self._fed.sources)
        if not self._fed.look():
            return
        topics = self._fed.sources
        self.metrics.looked(self._fed.plan is not None, topics)
        if set(topics) == topics_before and self._batches is not None:
            self._restart()
            return
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        if topics:
            self._dead_letters = self._dead_letters or DeadLetters(self.kafka)
            self._batches = self._open_batches(sorted(topics))

    def _open_batches(self, topics: list[str]) -> Batches:
        """Where the events of these topics come from."""
        return MicroBatches(self.kafka, stream_group(self.project), topics, self._starts, outages=self._outages)

    def _feed_of(self, view: StreamView, fill: Fill) -> ViewFeed:
        return ViewFeed(self.connection, self.project, view, fill)

    # ---- positions

    def _starts(self, places: Iterable[Place]) -> dict[Place, int] | None:
        """Where to read each place from: the least position of its fills; None while Redis is away."""
        places = set(places)
        self.metrics.starts(places)
        try:
            # What was sent of the old positions is written or refused before they are read again.
            self._land_what_flies()
            self._fed.begin(places)
        except Unreachable as error:
            self._say_away(error)
            return None
        self.metrics.positioned = True
        return {place: o for place, o in self._fed.least_positions().items() if place in places}

    def _restart(self) -> None:
        if self._batches is not None:
            self._batches.restart()

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
        self._outages.said.begin_anew()
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
        else:
            self._outages.met(error)

    def _hold(self) -> None:
        """Trust nothing that was read before: the next turn reads the plan and all positions again."""
        self._fed.look_again()
        if self._batches is None:
            self._fed.forget()
        else:
            self._batches.held = True


def stream_group(project: str) -> str:
    """The consumer group of a project's workers; its offsets in Kafka are for monitors."""
    return f"headwater-stream-{project}"
