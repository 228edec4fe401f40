"""The published plan and its fills in Redis: what `apply` publishes and workers, servers and backfill load.

A publication is compare-and-set on the plan's id, so two of them never mix. A view whose state
hash is new gets a fill of its own beside the active one; readers go on with the old until the
switch, which is one step (stream.md, 6).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from headwater.errors import HeadwaterError, TopicChanged, Unreachable
from headwater.online import scripts
from headwater.online.connection import Connection
from headwater.online.keys import counter_key, fill_key, plan_id_key, plan_key, position_key, row_prefix
from headwater.online.published import (
    Active,
    Fill,
    Filling,
    KnownFrom,
    PublishedPlan,
    decode_any_published,
    decode_fill,
    decode_published,
)
from headwater.online.topic_facts import TopicFacts, topic_facts
from headwater.plans.plan import CODEC_VERSION, Plan, Source, StreamView, View, stream_state_hash

_ATTEMPTS = 5


@dataclass
class PublishResult:
    """What a publication did, by view name.

    Attributes:
        active: views that readers can read now under this plan's definition.
        filling: views that `headwater backfill` (or, for BatchViews, `materialize`) has to fill first.
        unchanged: views whose rows stay as they are.
        removed: views that were retired.
    """

    plan: PublishedPlan
    active: list[str] = field(default_factory=list)
    filling: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def load_published(connection: Connection, project: str) -> PublishedPlan | None:
    """The published plan, None before the first `apply` (or after Redis lost it).

    Raises:
        HeadwaterError: what lies there is not a plan of this version.
    """
    return _loaded(connection, project, decode_published)


def _loaded(connection: Connection, project: str, decode: Callable[[bytes], PublishedPlan]) -> PublishedPlan | None:
    data = connection.command("GET", plan_key(project))
    if data is None:
        return None
    try:
        return decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise HeadwaterError(
            f"The plan of project {project!r} in Redis cannot be read: {error}. "
            f"Publish it again with 'headwater apply'."
        ) from error


def load_fill(connection: Connection, project: str, view: str, fill: str) -> Fill | None:
    """A fill's record, None where it is gone."""
    data = connection.command("GET", fill_key(project, view, fill))
    return None if data is None else decode_fill(data)


def read_positions(connection: Connection, project: str, fill: Fill, partitions: int) -> dict[int, int]:
    """The next offset of each partition that has a position (a batch in progress counts as not begun)."""
    if not partitions:
        return {}
    keys = [position_key(project, fill.view, fill.id, p) for p in range(partitions)]
    replies = connection.command("MGET", *keys)
    return {p: int(r.split(b"/")[0]) for p, r in enumerate(replies) if r is not None}


def has_positions(connection: Connection, project: str, fill: Fill) -> bool:
    """Whether workers may feed the fill: a backfill has placed its positions."""
    return bool(read_positions(connection, project, fill, fill.partitions))


def all_positions(connection: Connection, project: str, fill: Fill) -> dict[int, int]:
    """The next offset of every partition, those that the topic got after the fill began included."""
    count = known = max(fill.partitions, 1)
    while len(found := read_positions(connection, project, fill, count)) and count - 1 in found:
        count += known
    return found


def source_of(published: PublishedPlan, view: StreamView) -> Source | None:
    """The source that feeds this definition of a view.

    None for an earlier definition whose source was removed or changed since: admission by another schema,
    tolerance or expectations would mix two meanings in one fill, so its rows stand still until the switch.
    """
    source = next((s for s in published.plan.sources if s.name == view.source), None)
    if source is None or any(v.name == view.name and v.state_hash == view.state_hash for v in published.plan.views):
        return source
    return source if stream_state_hash(view, source) == view.state_hash else None


def publish(connection: Connection, kafka: Mapping[str, str] | None, plan: Plan) -> PublishResult:
    """Publish a plan: keep the fills of unchanged views, begin new fills for new and changed ones.

    A new view over a topic that is still empty is active at once; over one with events it is
    filling, until `headwater backfill` has filled it.

    Raises:
        Unreachable: Redis or Kafka does not answer.
        TopicChanged: a source's topic does not exist.
    """
    topics = {plan.source(v.source).topic for v in plan.stream_views()}
    facts = topic_facts(kafka or {}, topics) if topics else {}
    for _ in range(_ATTEMPTS):
        # One of another codec version, too: its fills are retired.
        before = _loaded(connection, plan.project, decode_any_published)
        change = Publication(connection, plan, before, facts)
        change.place_all()
        if change.commit():
            change.retire_removed()
            return change.result
    raise Unreachable(f"The plan of project {plan.project!r} keeps changing under this publication; try again.")


class Publication:
    """One attempt: decides what becomes of each view, then writes everything in one step."""

    def __init__(
        self, connection: Connection, plan: Plan, before: PublishedPlan | None, facts: dict[str, TopicFacts]
    ) -> None:
        self.connection, self.plan, self.before, self.facts = connection, plan, before, facts
        # Whose fills may go on.
        self._kin = before if before is not None and before.codec == CODEC_VERSION else None
        self.active: dict[str, Active] = {}
        self.filling: dict[str, Filling] = {}
        self.sets: dict[bytes, bytes] = {}
        self.retired: list[tuple[str, str, View]] = []
        published = PublishedPlan(new_id(), plan, self.active, self.filling, CODEC_VERSION)
        self.result = PublishResult(published)

    def place_all(self) -> None:
        """Decide what becomes of every view of the plan, and of those it no longer has."""
        for view in self.plan.views:
            self._place(view)
        kept = {v.name for v in self.plan.views}
        for name, was in (self.before.active if self.before else {}).items():
            if name not in kept:
                self.result.removed.append(name)
            if name not in kept or self._kin is None:
                self.retired.append((name, was.fill, was.definition))
        for name, begun in (self.before.filling if self.before else {}).items():
            if name not in kept or self._kin is None:
                self.retired.append((name, begun.fill, begun.definition))

    def _place(self, view: View) -> None:
        was = self._kin.active.get(view.name) if self._kin else None
        filling = self._kin.filling.get(view.name) if self._kin else None
        # A filling of this definition goes on: a new one, or a repair of the active fill that the worker began.
        goes_on = filling is not None and self._same(view, filling)
        if filling is not None and goes_on:
            self.filling[view.name] = Filling(filling.fill, view)
        elif filling is not None:
            self.retired.append((view.name, filling.fill, filling.definition))
        if was is not None and self._same(view, was):
            self.active[view.name] = Active(was.fill, view)
            self.result.unchanged.append(view.name)
            return
        if was is not None:
            self.active[view.name] = was
        if goes_on:
            self.result.filling.append(view.name)
        else:
            self._begin(view, was)

    def _same(self, view: View, fill: Active | Filling) -> bool:
        return fill.definition.state_hash == view.state_hash and self._alive(view, fill.fill)

    def _begin(self, view: View, was: Active | None) -> None:
        fill = self._new_fill(view)
        empty = isinstance(view, StreamView) and self._topic(view).empty
        if empty:
            for p in range(fill.partitions):
                self.sets[position_key(self.plan.project, view.name, fill.id, p)] = b"0"
        if empty or (not isinstance(view, StreamView) and was is None):
            fill = msgspec.structs.replace(fill, state="active")
            self.active[view.name] = Active(fill.id, view)
            self.result.active.append(view.name)
            if was is not None:
                self.retired.append((view.name, was.fill, was.definition))
        else:
            self.filling[view.name] = Filling(fill.id, view)
            self.result.filling.append(view.name)
        self.sets[fill_key(self.plan.project, view.name, fill.id)] = msgspec.json.encode(fill)

    def begin_again(self, view: StreamView, known_from: KnownFrom | None = None) -> Fill:
        """Keep everything but this view's filling, which begins anew: at once for workers, where they know from where."""
        assert self.before is not None
        fill = self._new_fill(view)
        if known_from is not None:
            fill = msgspec.structs.replace(fill, known_from=known_from, fed_from=known_from.offsets)
            for p, offset in known_from.offsets.items():
                self.sets[position_key(self.plan.project, view.name, fill.id, p)] = b"%d" % offset
        given_up = self.before.filling.get(view.name)
        if given_up is not None:
            self.retired.append((view.name, given_up.fill, given_up.definition))
        self.active.update(self.before.active)
        self.filling.update({**self.before.filling, view.name: Filling(fill.id, view)})
        self.sets[fill_key(self.plan.project, view.name, fill.id)] = msgspec.json.encode(fill)
        return fill

    def _new_fill(self, view: View) -> Fill:
        if not isinstance(view, StreamView):
            return Fill(new_id(), view.name, view.state_hash, None, None, 0, "filling")
        topic = self._topic(view)
        return Fill(
            new_id(), view.name, view.state_hash, topic.name, topic.id, topic.partitions, "filling",
            -1 if topic.retention_ms is None else topic.retention_ms,
        )  # fmt: skip

    def _topic(self, view: StreamView) -> TopicFacts:
        name = self.plan.source(view.source).topic
        if name not in self.facts:
            raise TopicChanged(
                f"Topic {name!r} of source {view.source!r} does not exist. 'headwater apply' creates it."
            )
        return self.facts[name]

    def _alive(self, view: View, fill: str) -> bool:
        """Whether a fill's record, topic and positions are all still there; else it has to be filled again."""
        record = load_fill(self.connection, self.plan.project, view.name, fill)
        if record is None:
            return False
        if not isinstance(view, StreamView):
            return True
        if record.topic_id != self._topic(view).id:
            return False
        positions = read_positions(self.connection, self.plan.project, record, record.partitions)
        return record.state == "filling" or len(positions) == record.partitions

    def commit(self) -> bool:
        project, plan = self.plan.project, self.result.plan
        keys = [plan_id_key(project), plan_key(project), *self.sets]
        args: list[bytes | str | int] = [
            self.before.id if self.before else "", plan.id, msgspec.json.encode(plan), len(self.sets),
            *self.sets.values(),
        ]  # fmt: skip
        return scripts.publish.run(self.connection, keys, args) == b"OK"

    def retire_removed(self) -> None:
        for name, fill, definition in self.retired:
            retire(self.connection, self.plan.project, name, fill, definition)


def switch(connection: Connection, project: str, view: str) -> bool:
    """Make a view's filling fill the active one, in one step; False where it is still behind the old.

    For a StreamView every position of the new fill must exist and be at least the old fill's, or, where a worker
    was told where to begin, where the topic ended then.
    The fill that was active is retired.
    """
    for _ in range(_ATTEMPTS):
        before = load_published(connection, project)
        if before is None or view not in before.filling:
            return before is not None and view in before.active
        new, old = before.filling[view], before.active.get(view)
        record = load_fill(connection, project, view, new.fill)
        if record is None or _behind_goal(connection, project, record):
            return False
        reply = _switch_once(connection, project, before, new, old, record)
        if reply == b"OK":
            if old is not None:
                retire(connection, project, view, old.fill, old.definition)
            return True
        if reply == b"BEHIND":
            return False
    return False


def activate(connection: Connection, project: str, view: str) -> bool:
    """`switch` for a BatchView: its new rows are all written, so readers may have them."""
    return switch(connection, project, view)


def refill(
    connection: Connection, kafka: Mapping[str, str], project: str, view: str, *, instead_of: str | None = None
) -> Fill | None:
    """Begin a new fill of a view whose active one cannot go on; readers keep the old until the switch.

    `instead_of`: the active fill that was found lost. Where it is not the active one any more, or a new
    one waits already (another worker was faster, or a backfill runs), nothing is begun and the answer is None.
    """
    for _ in range(_ATTEMPTS):
        before = load_published(connection, project)
        if before is None or not any(v.name == view for v in before.plan.stream_views()):
            return None
        active = before.active.get(view)
        if instead_of is not None and (view in before.filling or active is None or active.fill != instead_of):
            return None
        definition = before.plan.view(view)
        assert isinstance(definition, StreamView)
        facts = topic_facts(kafka, [before.plan.source(definition.source).topic])
        change = Publication(connection, before.plan, before, facts)
        fill = change.begin_again(definition)
        if change.commit():
            change.retire_removed()
            return fill
    return None


def retire(connection: Connection, project: str, view: str, fill: str, definition: View) -> None:
    """Take a fill away: its record and positions before its rows, so that nobody feeds half of it."""
    record = load_fill(connection, project, view, fill)
    partitions = max([record.partitions, *(p + 1 for p in all_positions(connection, project, record))]) if record else 0
    keys = [position_key(project, view, fill, p) for p in range(partitions)]
    connection.command("DEL", fill_key(project, view, fill), counter_key(project, view, fill), *keys)
    delete_rows(connection, row_prefix(project, view, definition.state_hash, fill))


def delete_rows(connection: Connection, prefix: bytes) -> int:
    """Unlink all rows that begin with a prefix, in steps; how many there were."""
    found = 0
    for keys in scan_rows(connection, prefix):
        found += connection.command("UNLINK", *keys)
    return found


def scan_rows(connection: Connection, prefix: bytes) -> list[list[bytes]]:
    """All keys that begin with a prefix, in lists of about a thousand."""
    pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]^\\" else bytes([c]) for c in prefix) + b"*"
    cursor, found = b"0", []
    while True:
        cursor, keys = connection.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        if keys:
            found.append(keys)
        if cursor == b"0":
            return found


def new_id() -> str:
    """An id that sorts by time and never comes twice."""
    return f"{time.time_ns() // 1_000_000:011x}{os.urandom(3).hex()}"


def began_at(fill: str) -> int:
    """When a fill began, microseconds, by its id; 0 for an id of another form."""
    return int(fill[:11], 16) * 1000 if re.fullmatch("[0-9a-f]{17}", fill) else 0


def _behind_goal(connection: Connection, project: str, fill: Fill) -> bool:
    """Positions never go back but with all of Redis, so this may be asked before the switch."""
    if fill.known_from is None:
        return False
    positions = read_positions(connection, project, fill, fill.partitions)
    return any(positions.get(p, 0) < end for p, end in fill.known_from.goal.items())


def _switch_once(
    connection: Connection, project: str, before: PublishedPlan, new: Filling, old: Active | None, record: Fill
) -> object:
    active = {**before.active, record.view: Active(new.fill, new.definition)}
    filling = {k: v for k, v in before.filling.items() if k != record.view}
    after = PublishedPlan(new_id(), before.plan, active, filling, before.codec)
    done = msgspec.json.encode(msgspec.structs.replace(record, state="active"))
    pairs: list[bytes] = []
    was = load_fill(connection, project, record.view, old.fill) if old else None
    # Offsets of another topic say nothing about this one's.
    behind = all_positions(connection, project, was) if was and was.topic_id == record.topic_id else {}
    for p in range(max([record.partitions, *(p + 1 for p in behind)])):
        pairs.append(position_key(project, record.view, new.fill, p))
        pairs.append(position_key(project, record.view, old.fill if old and behind else "-", p))
    keys = [plan_id_key(project), plan_key(project), fill_key(project, record.view, new.fill), *pairs]
    return scripts.publish.run(connection, keys, [before.id, after.id, msgspec.json.encode(after), 1, done])
