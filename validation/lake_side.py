"""The lake's side of the check: a topic's events and positions, and what Kafka says of the topic.

Read after the rows, in this order: the topic's end; the lake's positions until they cover what rows have
applied (a sink that runs is a second behind the worker; one that stands still is not waited for); the
offsets that the sink's group has committed, which follow the lake and so can never be ahead of it; one
snapshot of the lake; the topic's end again, so that every event of the snapshot lies below it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headwater.errors import LakeDamaged, TopicChanged, Unreachable
from headwater.events.select import source_columns
from headwater.lake.event_log import EventSnapshot
from headwater.lake.event_rows import event_schema
from headwater.lake.lake import Lake
from headwater.lake.records import Gap
from headwater.lake.tables import unreadable_files
from headwater.online.keys import sink_group
from headwater.online.topic_facts import TopicFacts, committed_offsets, topic_facts
from headwater.plans.plan import Source, StreamView
from headwater.repository import Repository

SINK_PATIENCE = 3.0
"""Seconds that a sink may stand still before the check goes on without it; it commits every second."""
LONGEST_WAIT = 30.0

Places = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Kept:
    """What the lake has of the view's topic, read after the rows.

    Attributes:
        table: admitted events with `_partition`, `_offset`, `_arrived_at`.
        positions: partition -> next offset that the lake says it has covered.
        places: (partition, offset) of every record, admitted or not, as int64 arrays.
        missing_files: files of the table that are gone or cannot be read.
        ends: partition -> next offset of the topic; None where Kafka was not asked.
        starts: partition -> first offset that the topic still has; empty where Kafka was not asked.
        committed: partition -> the next offset that the sink's group has said to be kept.
        gaps: offsets that retention took before they were kept.
        uri: where the table lies.
    """

    table: pa.Table
    positions: dict[int, int]
    places: Places
    missing_files: list[str]
    ends: dict[int, int] | None
    starts: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    uri: str = ""


class LakeSide:
    """Reads the lake for one run of the check; remembers which servers are away, and which sinks stand still."""

    def __init__(self, repository: Repository, lake: Lake) -> None:
        self._repository, self._lake = repository, lake
        self._still: set[str] = set()
        self.kafka_away: str | None = None if repository.kafka.get("bootstrap.servers") else "no address is known"

    def read(
        self, view: StreamView, source: Source, topic_id: str | None, newest: Mapping[int, int],
        where_keys: Mapping[str, Sequence[Any]] | None = None, known_from: Mapping[int, int] | None = None,
    ) -> Kept:  # fmt: skip
        """Everything of the view's topic.

        `newest`: partition -> the newest offset that a row has applied. `where_keys`: join key -> the values of
        the events wanted (all by default). `known_from`: partition -> the first offset that the rows count.

        Raises:
            LakeDamaged: the table's log cannot be read.
            TopicChanged: the lake's events are of another topic than the fill (`topic_id`).
        """
        topic = source.topic
        facts = self._facts(topic, topic_id)
        self._wait_for_sink(topic, _wanted(newest, facts))
        committed = self._committed(facts)
        snapshot = self._lake.events(topic)
        if snapshot is not None and snapshot.topic_id not in (None, topic_id):
            raise TopicChanged(
                f"The lake's table {snapshot.table.name!r} holds events of another topic of that name (id "
                f"{snapshot.topic_id}) than the rows (id {topic_id}): it was deleted and made anew."
            )
        columns = sorted({*source_columns(view), source.event_time})
        table, places, missing = self._events(source, columns, snapshot, where_keys)
        facts = self._facts(topic, topic_id)
        return Kept(
            known_events(table, known_from or {}), snapshot.positions() if snapshot else {}, places, missing,
            facts.ends if facts else None, facts.starts if facts else {}, committed,
            self._lake.gaps(topic), self._lake.events_table(topic).uri,
        )  # fmt: skip

    def _events(
        self,
        source: Source,
        columns: list[str],
        snapshot: EventSnapshot | None,
        where_keys: Mapping[str, Sequence[Any]] | None,
    ) -> tuple[pa.Table, Places, list[str]]:
        """Events and the places of all records, of the files that can be read."""
        if snapshot is None:
            nothing = np.empty(0, np.int64)
            return self._lake.read_events(source, columns=columns), (nothing, nothing), []
        missing = snapshot.missing()
        for _ in range(2):
            files = [f for f in snapshot.files if f not in set(missing)]
            try:
                table = snapshot.read(source, columns=columns, files=files, where_keys=where_keys)
                places = snapshot.read_places(files)
                break
            except LakeDamaged:
                schema = event_schema(source)
                missing += unreadable_files(snapshot.table, files, schema, [*columns, "_partition", "_offset"])
        else:
            raise LakeDamaged(f"The files of table {snapshot.table.name!r} of the lake ({snapshot.table.uri}) go away.")
        arrays = [places[n].combine_chunks().cast(pa.int64()) for n in ("_partition", "_offset")]
        partition, offset = (a.to_numpy(zero_copy_only=False) for a in arrays)
        return table, (partition, offset), missing

    def _wait_for_sink(self, topic: str, wanted: Mapping[int, int]) -> None:
        """Until the lake covers `wanted`, or its positions stand still."""
        began = moved = time.monotonic()
        known: dict[int, int] | None = None
        while topic not in self._still:
            now, positions = time.monotonic(), self._lake.positions(topic)
            if all(positions.get(p, 0) >= end for p, end in wanted.items()):
                return
            if positions != known:
                known, moved = positions, now
            if now - moved > SINK_PATIENCE or now - began > LONGEST_WAIT:
                self._still.add(topic)
                return
            time.sleep(0.2)

    def _facts(self, topic: str, topic_id: str | None) -> TopicFacts | None:
        """The topic the rows were made from; None where Kafka is away, or has it no more."""
        if self.kafka_away is not None:
            return None
        try:
            facts = topic_facts(self._repository.kafka, [topic]).get(topic)
        except Unreachable as error:
            self.kafka_away = str(error)
            return None
        return facts if facts is not None and facts.id == topic_id else None

    def _committed(self, facts: TopicFacts | None) -> dict[int, int]:
        if facts is None:
            return {}
        group = sink_group(self._repository.project)
        try:
            return committed_offsets(self._repository.kafka, group, facts.name, facts.partitions)
        except Unreachable as error:
            self.kafka_away = str(error)
            return {}


def known_events(table: pa.Table, known_from: Mapping[int, int]) -> pa.Table:
    """The events at or past `known_from`; partitions that it does not name count from 0."""
    late = [(pc.field("_partition") != p) | (pc.field("_offset") >= start) for p, start in known_from.items() if start]
    return table.filter(reduce(and_, late)) if late else table


def _wanted(newest: Mapping[int, int], facts: TopicFacts | None) -> dict[int, int]:
    """The positions that the lake should reach; what the topic has not given to anybody is not waited for."""
    return {p: o + 1 if facts is None else min(o + 1, facts.ends.get(p, 0)) for p, o in newest.items()}
