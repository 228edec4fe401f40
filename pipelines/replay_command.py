"""What `headwater dead-letters replay` does: which letters fit by now, which of them count already, and the sending.

A letter is replayed where the present plan admits it at its original broker's time, and where no view counts it yet.
A view counts it that read it after the fix: a worker that reads a place for a fill admits it by the definition of that
fill, whatever the sink had said before (a fill begun with `stream --from`, or a sink that had not seen the plan yet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headwater.errors import HeadwaterError, TopicChanged
from headwater.events.admission import QUARANTINE, Admission
from headwater.events.schemas import Schemas
from headwater.online.connection import Connection
from headwater.online.plan_store import began_at, load_fill, load_published, read_positions, source_of
from headwater.online.published import Fill, PublishedPlan, stream_fills
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Source
from headwater.plans.topics import TopicSettings
from headwater.repository import Repository
from pipelines.letters import Letter, Wanted, read_letters
from pipelines.record_keys import RecordKeys
from pipelines.replays import Original, Places, Replayer, make_ledger

_KEYS_WITHIN = 60.0
"""Seconds."""


@dataclass(frozen=True)
class Outcome:
    """What becomes of a letter. `left`: why it is not sent (again), None where it is, or would be in a dry run.

    `sent`: whether this run sent it.
    """

    letter: Letter
    left: str | None = None
    sent: bool = False


def replay(repository: Repository, wanted: Wanted, *, dry_run: bool) -> list[Outcome]:
    """Replay the letters that are wanted and fit by now; with `dry_run` only say which.

    Raises:
        HeadwaterError: no plan, another replay of a topic, or a broker without transactions.
        Unreachable: Redis, Kafka, the schema registry or the lake's store does not answer.
    """
    with Connection(repository.need_redis()) as connection:
        published = load_published(connection, repository.project)
        if published is None:
            raise HeadwaterError(
                f"Project {repository.project!r} has no plan in Redis. Publish one with 'headwater apply'."
            )
        sources: dict[str, Source] = {}
        for source in published.plan.sources:
            sources.setdefault(source.topic, source)
        outcomes: list[Outcome] = []
        for source in sources.values():
            if wanted.topic in (None, source.topic):
                outcomes += _Replay(repository, connection, published, source).run(wanted, dry_run=dry_run)
        return outcomes


class _Replay:
    """The replay of one topic."""

    def __init__(
        self, repository: Repository, connection: Connection, published: PublishedPlan, source: Source
    ) -> None:
        self.repository, self.connection, self.published, self.source = repository, connection, published, source
        self.kafka = repository.need_kafka()

    def run(self, wanted: Wanted, *, dry_run: bool) -> list[Outcome]:
        letters = read_letters(self.repository, [self.source], wanted)
        left = self._left(letters)
        outcomes = [Outcome(x, left.get(x.letter.place)) for x in letters]
        todo = [o for o in outcomes if o.left is None]
        return outcomes if dry_run or not todo else self._send(outcomes, todo)

    def _send(self, outcomes: list[Outcome], todo: Sequence[Outcome]) -> list[Outcome]:
        facts = topic_facts(self.kafka, [self.source.topic], offsets=False).get(self.source.topic)
        if facts is None:
            raise TopicChanged(f"Topic {self.source.topic!r} does not exist. 'headwater apply' creates it.")
        make_ledger(self.kafka, self.source.topic, TopicSettings.of(self.repository))
        replayer = Replayer(self.kafka, self.source.topic, facts.id)
        try:
            before = dict(replayer.done)
            for _ in replayer.send(self._originals([o.letter for o in todo])):
                pass
        finally:
            replayer.close()
        return [_sent(o, before, replayer.done) if o.left is None else o for o in outcomes]

    def _originals(self, letters: Sequence[Letter]) -> list[Original]:
        """What is sent: with the key of the dead letter, else the one that the topic still has."""
        known = {x.letter.place[1:]: x.letter.key_bytes for x in letters if x.letter.key_bytes is not None}
        asked = RecordKeys(self.kafka)
        try:
            places = {x.letter.place[1:]: x.raw for x in letters}
            unknown = {place: raw for place, raw in places.items() if place not in known}
            found = asked.of(self.source.topic, unknown, _KEYS_WITHIN)
        finally:
            asked.close()
        keys = known | found
        return [_original(x, keys.get(x.letter.place[1:])) for x in letters]

    # -- which are left ---------------------------------------------------------------------------------------------

    def _left(self, letters: Sequence[Letter]) -> dict[tuple[str, int, int], str]:
        """Place -> why the letter there is not sent."""
        left: dict[tuple[str, int, int], str] = {}
        candidates = []
        for x in letters:
            if x.replayed is not None:
                left[x.letter.place] = _replayed_text(x)
            elif x.broker_time is None:
                left[x.letter.place] = "the lake does not have it (yet): run 'headwater sink --until-caught-up' first"
            else:
                candidates.append(x)
        refused = self._refused(candidates)
        fills = self._fills()
        for x in candidates:
            place = x.letter.place
            text = refused.get(place) or self._counted(x, fills)
            if text is not None:
                left[place] = text
        return left

    def _refused(self, letters: Sequence[Letter]) -> dict[tuple[str, int, int], str]:
        """The reasons of those that the present plan does not admit, at the broker's time that they had."""
        if not letters:
            return {}
        admission = Admission(self.source, Schemas(self.repository.schema_registry))
        partition, offset = (np.array([x.letter.place[i] for x in letters], np.int64) for i in (1, 2))
        times = np.array([x.broker_time for x in letters], np.int64)
        admitted = admission.admit([x.raw for x in letters], partition, offset, times)
        return {letters[r.index].letter.place: f"still not admitted: {r.reason}" for r in admitted.rejected}

    def _fills(self) -> list[Fill]:
        """The fills that workers feed from this topic by the present source."""
        found = []
        for view, fill_id in stream_fills(self.published):
            source = source_of(self.published, view)
            fill = load_fill(self.connection, self.repository.project, view.name, fill_id)
            if source is None or fill is None or source.topic != self.source.topic:
                continue
            if read_positions(self.connection, self.repository.project, fill, max(fill.partitions, 1)):
                found.append(fill)
        return found

    def _counted(self, x: Letter, fills: Sequence[Fill]) -> str | None:
        """Which views count the event at its first place already; None where none does."""
        counting = sorted({fill.view for fill in fills if self._counts(fill, x)})
        others = sorted({fill.view for fill in fills} - set(counting))
        if not counting:
            return None
        text = (
            f"{', '.join(counting)} read it after the fix, and {'counts' if len(counting) == 1 else 'count'} it already"
        )
        if not others:
            return text
        return f"{text}; {', '.join(others)} not: run 'headwater backfill {' '.join(counting)}', then replay it"

    def _counts(self, fill: Fill, x: Letter) -> bool:
        """Whether a fill has admitted, or will admit, the event where it first lay."""
        _, partition, offset = x.letter.place
        if offset < fill.fed_from.get(partition, 0):
            return False
        # What JSON says never changes. A schema that was registered since may have mended the others: then the
        # worker has said that it could not take them, after this fill began.
        by_schema = self.source.format != "json" and x.letter.kind != QUARANTINE
        return not (by_schema and x.sent_at is not None and x.sent_at >= began_at(fill.id))


def _sent(outcome: Outcome, before: Places, after: Places) -> Outcome:
    """What became of a letter that was to be sent; somebody else may have been faster, before the fence."""
    place = outcome.letter.letter.place[1:]
    letter = replace(outcome.letter, replayed=after[place])
    return Outcome(letter, _replayed_text(letter)) if place in before else Outcome(letter, sent=True)


def _original(x: Letter, key: bytes | None) -> Original:
    assert x.broker_time is not None
    assert x.raw is not None, "a null payload is never admitted"
    return Original(x.letter.partition, x.letter.offset, x.broker_time, x.raw, key)


def _replayed_text(x: Letter) -> str:
    assert x.replayed is not None
    return f"replayed as {x.letter.topic}[{x.replayed.as_partition}]@{x.replayed.as_offset}"
