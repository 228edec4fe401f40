"""Backfill: rows of a fill computed from the lake up to known offsets, then its positions (stream.md, 6).

Rows and positions come from one snapshot of the lake; no worker touches a fill without positions,
so rows go first and positions last, and the worker goes on from exactly there. No event falls
between, none counts twice. Killed anywhere, it can be run again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import islice

import msgspec
import pyarrow as pa

from headwater.errors import HeadwaterError, TopicChanged, UsageError, nearest
from headwater.events.batch import Events
from headwater.events.select import select, source_columns
from headwater.lake.lake import Lake
from headwater.lake.records import Gap
from headwater.online import scripts
from headwater.online.connection import Connection
from headwater.online.expiry import expiry_of
from headwater.online.keys import counter_key, entity_key, fill_key, lock_key, position_key, row_prefix
from headwater.online.plan_store import load_fill, load_published, refill, switch
from headwater.online.published import Fill
from headwater.online.topic_facts import TopicFacts, topic_facts
from headwater.plans.plan import Plan, StreamView
from headwater.rows.counters import Counters
from headwater.rows.fold import FoldedRow, fold
from headwater.rows.layout import layout_of

ROWS_A_PIPELINE = 1000
LEASE_MS = 30_000
"""How long a backfill that was killed keeps others from filling the same fill."""


@dataclass(frozen=True)
class Filled:
    """What one backfill did. `active`: whether readers have the new rows already."""

    view: str
    events: int
    rows: int
    active: bool


def backfill(
    lake: Lake,
    connection: Connection,
    kafka: Mapping[str, str],
    project: str,
    views: Sequence[str],
    *,
    accept_gaps: bool = False,
    progress: Callable[[str, int], None] = lambda view, rows: None,
) -> list[Filled]:
    """Fill each view anew from the lake. `progress(view, rows)` is told of every thousand rows.

    Raises:
        UsageError: a name that is not a stream view of the published plan.
        TopicChanged: the lake holds another topic's events.
        HeadwaterError: no plan; events that neither the lake nor Kafka has (unless accepted).
    """
    published = load_published(connection, project)
    if published is None:
        raise HeadwaterError(f"Project {project!r} has no plan in Redis. Publish one with 'headwater apply'.")
    known = [v.name for v in published.plan.stream_views()]
    for name in views:
        if name not in known:
            raise UsageError(f"No stream view {name!r} to backfill. {nearest(name, known)}")
    return [
        _Backfill(lake, connection, kafka, published.plan, name, accept_gaps).run(progress)
        for name in dict.fromkeys(views)
    ]


class _Backfill:
    """One view's backfill."""

    def __init__(
        self, lake: Lake, connection: Connection, kafka: Mapping[str, str], plan: Plan, view: str, accept_gaps: bool
    ) -> None:
        definition = plan.view(view)
        assert isinstance(definition, StreamView)
        self.lake, self.connection, self.kafka, self.project = lake, connection, kafka, plan.project
        self.view, self.source = definition, plan.source(definition.source)
        self.accept_gaps = accept_gaps
        self._token, self._lock = os.urandom(8).hex().encode(), b""

    def run(self, progress: Callable[[str, int], None]) -> Filled:
        facts = topic_facts(self.kafka, [self.source.topic]).get(self.source.topic)
        if facts is None:
            raise TopicChanged(f"Topic {self.source.topic!r} does not exist. 'headwater apply' creates it.")
        fill = self._fill()
        if fill.topic_id != facts.id:
            raise TopicChanged(
                f"Topic {self.source.topic!r} was made anew since this fill of view {self.view.name!r} began. "
                f"Run 'headwater apply' to begin another."
            )
        self._lock = lock_key(self.project, self.view.name, fill.id)
        self._take_lock()
        try:
            return self._filled(fill, facts, progress)
        finally:
            self._let_go()

    def _filled(self, fill: Fill, facts: TopicFacts, progress: Callable[[str, int], None]) -> Filled:
        table, positions = self._snapshot(fill, facts)
        # Reading may take longer than the lease.
        self._take_lock()
        selected = select(self.view, Events.from_arrow(self.source, table, sorted(source_columns(self.view))))
        rows = 0
        for batch in _batched(fold(layout_of(self.view), selected, born=0), ROWS_A_PIPELINE):
            self._write(fill, batch)
            rows += len(batch)
            progress(self.view.name, rows)
        self._place(fill, positions, Counters.of(layout_of(self.view), selected))
        return Filled(self.view.name, len(selected), rows, switch(self.connection, self.project, self.view.name))

    def _fill(self) -> Fill:
        """The fill that waits for its rows, else a new one beside the active."""
        published = load_published(self.connection, self.project)
        waiting = published.filling.get(self.view.name) if published else None
        if waiting is not None:
            fill = load_fill(self.connection, self.project, self.view.name, waiting.fill)
            if fill is not None and not self._has_positions(fill):
                return fill
        begun = refill(self.connection, self.kafka, self.project, self.view.name)
        if begun is None:
            raise HeadwaterError(f"View {self.view.name!r} was removed or changed meanwhile. Try again.")
        return begun

    def _has_positions(self, fill: Fill) -> bool:
        keys = [position_key(self.project, fill.view, fill.id, p) for p in range(max(1, fill.partitions))]
        return any(x is not None for x in self.connection.command("MGET", *keys))

    def _snapshot(self, fill: Fill, facts: TopicFacts) -> tuple[pa.Table, dict[int, int]]:
        """Events and positions that belong together; events at or past the positions are left out."""
        snapshot = self.lake.events(self.source.topic)
        if snapshot is not None and snapshot.topic_id not in (None, fill.topic_id):
            raise TopicChanged(
                f"The lake's events of topic {self.source.topic!r} come from another topic of that name "
                f"(id {snapshot.topic_id}, now {fill.topic_id}). Move the table {snapshot.table} away first."
            )
        held = snapshot.positions() if snapshot is not None else {}
        positions = {p: held.get(p, 0) for p in range(facts.partitions)}
        for p, offset in positions.items():
            if offset < facts.starts[p]:
                self._gap(p, offset, facts.starts[p])
                positions[p] = facts.starts[p]
        columns = sorted({*source_columns(self.view), self.source.event_time})
        if snapshot is None:
            return self.lake.read_events(self.source, columns=columns), positions
        return snapshot.read(self.source, up_to=positions, columns=columns), positions

    def _gap(self, partition: int, first: int, end: int) -> None:
        if not self.accept_gaps:
            raise HeadwaterError(
                f"Events {first} to {end - 1} of topic {self.source.topic!r}, partition {partition}, are neither in "
                f"the lake nor in Kafka any more. Run 'headwater sink' more often than the topic's retention; to go on "
                f"without them, use --accept-gaps: they are written to the lake's gaps."
            )
        self.lake.append_gap(self.source.topic, Gap(partition, first, end, time.time_ns() // 1000, accepted=True))

    def _take_lock(self) -> None:
        """One backfill a fill: one that stood still for longer than its lease must not write over another's rows."""
        if self.connection.command("SET", self._lock, self._token, "NX", "PX", LEASE_MS):
            return
        if self.connection.command("GET", self._lock) == self._token:
            self.connection.command("PEXPIRE", self._lock, LEASE_MS)
            return
        raise HeadwaterError(
            f"View {self.view.name!r} is being filled by another backfill (or one was killed less than "
            f"{LEASE_MS // 1000} s ago). Try again in a moment."
        )

    def _let_go(self) -> None:
        """Whatever went wrong, the next attempt need not wait for the lease."""
        if self.connection.connected:
            scripts.release.run(self.connection, [self._lock], [self._token])

    def _write(self, fill: Fill, rows: Sequence[FoldedRow]) -> None:
        prefix = row_prefix(self.project, self.view.name, self.view.state_hash, fill.id)
        expiry = expiry_of(self.view, fill)
        keys = [self._lock, *(prefix + entity_key(r.key) for r in rows)]
        args = [self._token, LEASE_MS, "" if expiry is None else expiry, *(r.data for r in rows)]
        self._behind_lock(scripts.fill_rows.run(self.connection, keys, args))

    def _place(self, fill: Fill, positions: Mapping[int, int], counters: Counters) -> None:
        record = msgspec.structs.replace(fill, partitions=len(positions), fed_from=dict(positions))
        places = [position_key(self.project, fill.view, fill.id, p) for p in positions]
        counted = counter_key(self.project, fill.view, fill.id)
        keys = [self._lock, fill_key(self.project, fill.view, fill.id), counted, *places]
        args: list[bytes | int] = [
            self._token, msgspec.json.encode(record), *astuple(counters), *positions.values(),
        ]  # fmt: skip
        self._behind_lock(scripts.place.run(self.connection, keys, args))

    def _behind_lock(self, reply: object) -> None:
        if reply != b"OK":
            raise HeadwaterError(
                f"View {self.view.name!r}: another backfill or 'headwater apply' took this fill over. "
                f"Nothing of it is served; run 'headwater backfill {self.view.name}' again if 'headwater status' "
                f"still shows it filling."
            )


def _batched(rows: Iterator[FoldedRow], n: int) -> Iterator[list[FoldedRow]]:
    while batch := list(islice(rows, n)):
        yield batch
