"""A view's first rows, begun by a worker at a place in the topic instead of by a backfill from the lake.

For `headwater stream --from`. Apart from the plan store because only workers that were told so do it. Many workers
may be told so at once: the publication is compare-and-set on the plan's id, so one of them places the positions,
and the others find them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from headwater.errors import UsageError
from headwater.events.timestamps import format_timestamp, parse_timestamp
from headwater.online.connection import Connection
from headwater.online.keys import lock_key
from headwater.online.plan_store import Publication, load_fill, load_published, read_positions
from headwater.online.published import Fill, KnownFrom, PublishedPlan
from headwater.online.topic_facts import TopicFacts, offsets_at, topic_facts
from headwater.plans.plan import StreamView

_ATTEMPTS = 20
"""Workers that start together lose to one another once a view."""


@dataclass(frozen=True)
class Start:
    """Where to begin: `asked` is "earliest", "latest" or RFC 3339, of which `micros` is the time."""

    asked: str
    micros: int | None = None

    @classmethod
    def parse(cls, text: str, now: int) -> Start:
        """What a person wrote; `now` in microseconds.

        Raises:
            UsageError: none of the three, or a time that has not come yet.
        """
        if text in ("earliest", "latest"):
            return cls(text)
        micros = next((m for item in (text, f"{text}T00:00:00") if (m := parse_timestamp(item)) is not None), None)
        if micros is None:
            raise UsageError(
                f"--from {text!r}: expected earliest, latest, or the broker's time of the first event, such as "
                f"2026-11-21T12:00:00Z or 2026-11-21 (UTC where there is no zone)."
            )
        if micros > now:
            raise UsageError(f"--from {text!r}: that time has not come yet; use --from latest.")
        return cls(format_timestamp(micros), micros)


def first_to_fill(connection: Connection, published: PublishedPlan) -> list[str]:
    """The windowed views that nothing was ever served of, whose fill has no positions and no backfill at work."""
    return [
        name
        for name, filling in published.filling.items()
        if isinstance(filling.definition, StreamView)
        and name not in published.active
        and _untouched(connection, published.plan.project, name, filling.fill)
    ]


def begin_first_fill(
    connection: Connection, kafka: Mapping[str, str], project: str, view: str, start: Start
) -> Fill | None:
    """Begin a view's first fill at a place of its topic; None where somebody else has begun it, or it is gone.

    Raises:
        Unreachable: Redis or Kafka does not answer.
    """
    for _ in range(_ATTEMPTS):
        before = load_published(connection, project)
        if before is None or view not in first_to_fill(connection, before):
            return None
        definition = before.filling[view].definition
        assert isinstance(definition, StreamView)
        topic = before.plan.source(definition.source).topic
        facts = topic_facts(kafka, [topic])
        if topic not in facts:
            return None
        known = KnownFrom(start.asked, time.time_ns() // 1000, _offsets(kafka, facts[topic], start), facts[topic].ends)
        change = Publication(connection, before.plan, before, facts)
        fill = change.begin_again(definition, known)
        if change.commit():
            change.retire_removed()
            return fill
    return None


def _untouched(connection: Connection, project: str, view: str, fill_id: str) -> bool:
    fill = load_fill(connection, project, view, fill_id)
    if fill is None or connection.command("EXISTS", lock_key(project, view, fill_id)):
        return False
    return not read_positions(connection, project, fill, max(fill.partitions, 1))


def _offsets(kafka: Mapping[str, str], topic: TopicFacts, start: Start) -> dict[int, int]:
    if start.asked == "earliest":
        return dict(topic.starts)
    if start.micros is None:
        return dict(topic.ends)
    found = offsets_at(kafka, topic.name, topic.partitions, start.micros)
    # Behind the last record there may be aborted ones, which nobody reads.
    return {p: max(topic.starts[p], min(found.get(p, end), end)) for p, end in topic.ends.items()}
