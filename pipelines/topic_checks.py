"""Whether a fill's positions still belong to its topic: the topic's id, its ends and the start of its log (stream.md, 5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headwater.errors import TopicChanged
from headwater.online.connection import Connection
from headwater.online.plan_store import read_positions
from headwater.online.published import Fill, PublishedPlan
from headwater.online.topic_facts import TopicFacts

_LOOK_AGAIN = (0.0, 0.5, 1.5)
"""Seconds before the ends are asked for again: the first answer may be older than the positions."""


@dataclass(frozen=True)
class Misfit:
    """Why no worker can feed a fill; `lost`: its view has to be filled again."""

    reason: str
    lost: bool


def waits_anew(plan: PublishedPlan, view: str, fill: Fill) -> bool:
    """Whether another fill of the view waits already to take this one's place."""
    waiting = plan.filling.get(view)
    return waiting is not None and waiting.fill != fill.id


def positions_past(positions: Mapping[int, int], facts: TopicFacts) -> dict[int, int]:
    """The positions that lie past their partition's end."""
    return {p: o for p, o in positions.items() if o > facts.ends.get(p, 0)}


def misfit_of(
    connection: Connection, project: str, view: str, fill: Fill, facts: TopicFacts | None,
    again: Callable[[], TopicFacts | None], *, waits: bool,
) -> Misfit | None:  # fmt: skip
    """What is wrong between a fill and the topic as it is now (None: there is no such topic); None where they fit.

    `again` asks for the facts anew: another worker may have read past the ends that were asked for before.

    Raises:
        TopicChanged: the topic is another one, or ends before a position, and nobody has said what shall be done.
    """
    topic = fill.topic
    if facts is None or facts.id != fill.topic_id:
        if waits:
            text = f"View {view!r}: its topic {topic!r} was made anew. 'headwater backfill {view}' is due."
            return Misfit(text, lost=False)
        raise TopicChanged(
            f"Topic {topic!r} is not the one that view {view!r} was filled from (recorded id "
            f"{fill.topic_id}, now {facts.id if facts else 'none'}): it was deleted"
            f"{' and made anew' if facts else ''}. Run 'headwater apply' to begin new fills."
        )
    positions = read_positions(connection, project, fill, facts.partitions)
    past = positions_past(positions, facts)
    for wait in _LOOK_AGAIN:
        if not past:
            break
        time.sleep(wait)
        facts = again()
        if facts is None or facts.id != fill.topic_id:
            return misfit_of(connection, project, view, fill, facts, again, waits=waits)
        past = positions_past(positions, facts)
    if past:
        raise TopicChanged(
            f"View {view!r} is at {past} (partition: offset) of topic {topic!r}, which ends at "
            f"{ ({p: facts.ends[p] for p in past}) }: the broker lost events, or this is another topic. "
            f"Run 'headwater apply' after making sure of the topic."
        )
    before = {p: o for p, o in positions.items() if o < facts.starts[p]}
    if not before:
        return None
    return Misfit(
        f"its positions {before} (partition: offset) in topic {topic!r} lie before the log's start "
        f"{ ({p: facts.starts[p] for p in before}) }: retention took events before they were read",
        lost=True,
    )
