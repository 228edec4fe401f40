"""The sink: every record of every source's topic is kept in the lake, once.

Its consumer group is its own, and several sinks may share it. The positions of record are those in Delta,
committed together with the rows (stream.md, 7):

1. Read a partition from the position that the topic's table holds; a new one from the log's start.
2. Gather records until there are enough, or the oldest waits long enough.
3. Admit them, by the same function as the worker; what is not admitted is kept with its reason and bytes.
4. Make sure that the topic is still the one that the table was filled from.
5. Commit rows and new positions through the handle that the positions were read from.
6. Where the commit is refused: drop the handle, open, filter what is there already, try again; where the
   batch has nothing to do with the table's positions, seek.
7. Commit offsets to Kafka, for the monitors only.

A crash anywhere repeats reading and writes nothing twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from headwater.errors import (
    LakeDamaged,
    RegistryUnreachable,
    TopicChanged,
    Unreachable,
)  # fmt: skip
from headwater.events.schemas import Schemas
from headwater.lake import Lake
from headwater.lake.event_log import CommitRefused, EventWriter
from headwater.lake.records import Gap
from headwater.online.connection import Connection
from headwater.online.keys import plan_id_key, sink_group
from headwater.online.plan_store import load_published
from headwater.online.topic_facts import TopicFacts, topic_facts
from headwater.plans.plan import Plan, Source
from pipelines.consumers import Place, TopicBatch
from pipelines.lag_alarms import LagAlarms
from pipelines.micro_batches import BeforeLogStart, MicroBatches
from pipelines.outages import LAKE, SCHEMA_REGISTRY, Outages
from pipelines.sink_buffer import SinkBuffer
from pipelines.sink_metrics import SinkMetrics

_log = logging.getLogger("headwater.sink")
_ATTEMPTS = 20


@dataclass(frozen=True)
class SinkSettings:
    """How a sink runs. `batch`: records a commit; `every`: seconds that the oldest record waits at most."""

    batch: int = 50_000
    every: float = 1.0
    wait: float = 0.1
    plan_every: float = 5.0
    retry_every: float = 0.5
    compact_every: int = 100
    most_files: int = 200


class Sink:
    """One sink of a project's group. `run` returns when `stop` was called, or when `until` says so."""

    def __init__(
        self,
        redis_url: str,
        kafka: Mapping[str, str],
        lake: Lake,
        project: str,
        settings: SinkSettings | None = None,
        schema_registry: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings or SinkSettings()
        self.project, self.kafka, self.lake, self._redis_url = project, dict(kafka), lake, redis_url
        self.records = self.rejected = 0
        self._schemas = Schemas(schema_registry)
        self._connection: Connection | None = Connection(redis_url)
        self._plan_id: bytes | None = None
        self._buffers: dict[str, SinkBuffer] = {}
        self._writers: dict[str, EventWriter] = {}
        self._batches: MicroBatches | None = None
        self._failure: TopicChanged | LakeDamaged | None = None
        self._unsure = self._stopping = False
        self._looked = float("-inf")
        self._commits = 0
        self._outages = Outages(_log)
        self.metrics = SinkMetrics(self.kafka, self._outages)
        self._alarms, self._retention = LagAlarms(_log, "the sink"), dict[str, int | None]()

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`; may be called from a signal handler."""
        self._stopping = True

    def run(self, *, until: Callable[[], bool] | None = None) -> None:
        """Work until stopped, or until `until` says so (asked whenever nothing is in hand).

        Raises:
            TopicChanged: a topic was recreated, or the lake is past a topic's end.
            LakeDamaged: a topic's table cannot be opened.
        """
        try:
            while not self._stopping:
                try:
                    self._turn(eager=until is not None)
                    if until is not None and not self._gathered() and until():
                        break
                except Unreachable as error:
                    self._outages.met(error)
                    time.sleep(self.settings.retry_every)
            self._finish()
        except Unreachable as error:
            _log.warning("%s What was gathered will be read again.", error)
        finally:
            self.close()

    def close(self) -> None:
        """Leave the group and the servers; what is gathered and not written will be read again."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _turn(self, *, eager: bool) -> None:
        self.metrics.turns.turned()
        if time.monotonic() - self._looked >= self.settings.plan_every:
            self._look_at_plan()
        if self._batches is None:
            time.sleep(self.settings.wait)
            return
        polled = self._poll(self._batches)
        for topic, batch in polled.items():
            now, oldest = time.time_ns() // 1000, int(batch.broker_time.min())
            self._alarms.look(topic, oldest, now, self._retention.get(topic))
            self._buffers[topic].add(batch, time.monotonic())
        if not polled:
            self._advance_idle(self._batches)
        self._write_what_is_due(at_once=eager and not polled)
        self.metrics.stands({(t, p): at for t, b in self._buffers.items() for p, at in b.starts.items()})

    def _poll(self, batches: MicroBatches) -> dict[str, TopicBatch]:
        """1, 2. Records that follow those gathered; none where the partitions have just changed."""
        if (batches.held or self._unsure) and not self._restart():
            time.sleep(self.settings.retry_every)
            return {}
        room = max(self.settings.batch - self._gathered(), 1)
        try:
            polled = batches.poll(room, self.settings.wait)
        except BeforeLogStart:
            self._restart()
            return {}
        except Unreachable:
            # Records that came beside the error are lost to us: read them again.
            self._unsure = True
            raise
        if self._unsure and (polled or self._failure is not None):
            # The group gave other partitions in the middle of the poll: which of its records belong to
            # the old and which to the new ones cannot be told, so all are read again.
            self._restart()
            return {}
        self._unsure = False
        return polled

    def _advance_idle(self, batches: MicroBatches) -> None:
        """Past the end of aborted transactions there is no record, but the position moves all the same."""
        for (topic, partition), offset in batches.ends_reached().items():
            if topic in self._buffers:
                self._buffers[topic].advance(partition, offset, time.monotonic())

    def _gathered(self) -> int:
        return sum(len(b) + b.moved for b in self._buffers.values())

    def _finish(self) -> None:
        for topic, buffer in self._buffers.items():
            if buffer.moved and self._failure is None:
                self._write(topic, buffer)

    # ---- writing

    def _write_what_is_due(self, *, at_once: bool) -> None:
        due = []
        for topic, buffer in self._buffers.items():
            age = time.monotonic() - buffer.since if buffer.since is not None else 0.0
            if buffer.moved and (at_once or len(buffer) >= self.settings.batch or age >= self.settings.every):
                due.append(topic)
        waiting = self._try_to_write(due)
        self._outages.back(SCHEMA_REGISTRY, self._schemas.answered)
        if waiting is not None:
            # What waits for a schema is read again later, so that it takes no memory; the others go on.
            self._try_to_write([t for t, b in self._buffers.items() if b.moved and t not in due])
            self._unsure = True
            raise waiting

    def _try_to_write(self, topics: Iterable[str]) -> RegistryUnreachable | None:
        waiting = None
        for topic in topics:
            try:
                self._write(topic, self._buffers[topic])
            except RegistryUnreachable as error:
                waiting = error
        return waiting

    def _write(self, topic: str, buffer: SinkBuffer) -> None:
        """3 to 7 for one topic."""
        began = time.time()
        rows = buffer.rows(int(began * 1e6))
        starts, ends = dict(buffer.starts), dict(buffer.ends)
        self._verify_topic(topic)
        for _ in range(_ATTEMPTS):
            try:
                moved = {p: end for p, end in ends.items() if end > starts[p]}
                if moved:
                    self._writers[topic].append(rows, {p: starts[p] for p in moved}, moved)
                break
            except CommitRefused as refused:
                _log.info("%s Opening the table again.", refused)
                self.metrics.refused(topic)
                writer = self._writers[topic] = self.lake.writer(buffer.source, self._writers[topic].topic_id)
                known = writer.positions()
                if not all(starts[p] <= known.get(p, starts[p]) <= end for p, end in ends.items()):
                    self._restart()
                    return
                starts = {p: known.get(p, start) for p, start in starts.items()}
                rows = buffer.rows_from(rows, starts)
        else:
            raise Unreachable(f"Table {self.lake.events_table(topic).uri} refused {_ATTEMPTS} commits in a row.")
        self._outages.back(LAKE)
        self.records += rows.num_rows
        self.rejected += rows["_kind"].drop_null().length()
        self.metrics.committed(topic, rows, began, time.time())
        buffer.clear()
        self._outages.said.begin_anew()
        if self._batches is not None:
            self._batches.commit({(topic, p): end for p, end in ends.items()})
        self._compact_sometimes(topic, buffer)

    def _verify_topic(self, topic: str) -> None:
        """4. Asked after reading: records that were read before the topic was recreated are the old one's."""
        facts = self._facts([topic], offsets=False).get(topic)
        recorded = self._writers[topic].topic_id
        if facts is None or facts.id != recorded:
            raise TopicChanged(
                f"Topic {topic!r} is not the one that the lake was filled from (recorded id {recorded}, now "
                f"{facts.id if facts else 'none'}): it was deleted"
                f"{' and created again' if facts else ''}. Nothing of it was written. Move the table "
                f"{self.lake.events_table(topic).uri} away to begin a new one."
            )

    def _compact_sometimes(self, topic: str, buffer: SinkBuffer) -> None:
        self._commits += 1
        if self._commits % self.settings.compact_every == 0:
            try:
                self._writers[topic].compact(self.settings.most_files)
            except CommitRefused:
                self._writers[topic] = self.lake.writer(buffer.source, self._writers[topic].topic_id)

    # ---- the plan

    def _look_at_plan(self) -> None:
        self._looked = time.monotonic()
        try:
            if self._connection is None:
                self._connection = Connection(self._redis_url)
            found = self._connection.command("GET", plan_id_key(self.project))
            if found is None:
                self._outages.said.say(f"No plan for project {self.project!r} in Redis; waiting for 'headwater apply'.")
            elif found != self._plan_id:
                published = load_published(self._connection, self.project)
                if published is not None:
                    self._take(published.plan)
                    self._plan_id = published.id.encode()
        except Unreachable as error:
            # The lake needs no Redis: only news of the plan have to wait.
            self._connection = None
            self._outages.said.say(f"{error} Going on with the plan as it was.")

    def _take(self, plan: Plan) -> None:
        """Keep the topics of another plan; a schema that changed holds from the next batch on."""
        sources: dict[str, Source] = {}
        for source in plan.sources:
            sources.setdefault(source.topic, source)
        if {t: b.source for t, b in self._buffers.items()} == sources:
            return
        if self._batches is not None:
            self._finish()
            self._batches.close()
            self._batches = None
        self._buffers = {topic: SinkBuffer(source, self._schemas) for topic, source in sources.items()}
        self.metrics.looked(True, sources)
        if sources:
            group = sink_group(self.project)
            self._batches = MicroBatches(self.kafka, group, sorted(sources), self._starts, outages=self._outages)

    # ---- positions

    def _restart(self) -> bool:
        """6. Forget what is gathered and read on from the lake's positions; False while they are unknown."""
        assert self._batches is not None
        done = self._batches.restart()
        self._unsure = False
        if self._failure is not None:
            raise self._failure
        return done

    def _starts(self, places: Iterable[Place]) -> dict[Place, int] | None:
        """1. Where to read each place from; None while Kafka or the lake is away. Called within polls."""
        self._unsure = True
        wanted = set(places)
        self.metrics.starts(wanted)
        for buffer in self._buffers.values():
            buffer.forget()
        try:
            facts = self._facts({topic for topic, _ in wanted})
            found = {place: self._start(facts.get(place[0]), *place) for place in self._opened(wanted, facts)}
            self.metrics.positioned = True
            return found
        except Unreachable as error:
            self._outages.met(error)
        except (TopicChanged, LakeDamaged) as failure:
            self._failure = failure
        return None

    def _facts(self, topics: Iterable[str], *, offsets: bool = True) -> dict[str, TopicFacts]:
        asked, facts = time.monotonic(), topic_facts(self.kafka, topics, offsets=offsets)
        self._outages.back("Kafka", asked)
        self._retention |= {topic: each.retention_ms for topic, each in facts.items()}
        return facts

    def _opened(self, places: set[Place], facts: Mapping[str, TopicFacts]) -> list[Place]:
        for topic in {topic for topic, _ in places}:
            if topic not in facts:
                raise TopicChanged(f"Topic {topic!r} does not exist any more.")
            self._writers[topic] = self.lake.writer(self._buffers[topic].source, facts[topic].id)
        return sorted(places)

    def _start(self, facts: TopicFacts | None, topic: str, partition: int) -> int:
        assert facts is not None
        first, end = facts.starts[partition], facts.ends[partition]
        position = self._writers[topic].positions().get(partition)
        if position is not None and position > end:
            # The ends were asked for before the table was opened: another sink may have written since.
            now = self._facts([topic]).get(topic)
            end = now.ends.get(partition, 0) if now is not None and now.id == facts.id else end
        if position is not None and position > end:
            raise TopicChanged(
                f"The lake holds topic {topic!r}, partition {partition} up to offset {position}, but the topic ends at "
                f"{end}: the broker lost records, or this is another topic. Make sure of the topic; then move the "
                f"table {self.lake.events_table(topic).uri} away to begin a new one."
            )
        if position is not None and position < first:
            self._skip_gap(topic, Gap(partition, position, first, time.time_ns() // 1000))
        start = first if position is None else max(position, first)
        self._buffers[topic].begin(partition, start)
        return start

    def _skip_gap(self, topic: str, gap: Gap) -> None:
        """Write down what retention took before it was kept, then go on behind it."""
        _log.warning(
            "Topic %r, partition %d: offsets %d to %d are gone from the topic and were never kept. "
            "The gap is written down in the lake; 'headwater check' names it.",
            topic, gap.partition, gap.start, gap.end - 1,
        )  # fmt: skip
        self.lake.append_gap(topic, gap)
        writer = self._writers[topic]
        nothing = self._buffers[topic].no_rows()
        try:
            writer.append(nothing, {gap.partition: gap.start}, {gap.partition: gap.end})
        except CommitRefused as refused:
            raise Unreachable(f"{refused} It is tried again.") from refused
