"""How every view stands: lag, freshness and counters, for `headwater status`, `up` and the catalog."""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater.online.connection import Connection
from headwater.online.freshness import load_statistics
from headwater.online.keys import counter_key
from headwater.online.plan_store import load_fill, load_published, read_positions
from headwater.online.published import Fill, PublishedPlan
from headwater.online.topic_facts import TopicFacts, topic_facts
from headwater.plans.plan import StreamView, View
from headwater.repository import Repository


@dataclass(frozen=True)
class ViewStatus:
    """One view as it stands.

    Attributes:
        hash: the state hash of the definition that readers use; None where no fill is active.
        state: "active", "filling" (needs backfill or materialize) or "switching" (active, a new one fills).
        lag: events that the topic has and the rows do not; None for BatchViews and where unknown.
        freshness_ms: median milliseconds from broker time to readable, as a worker last measured it.
        measured_at: when it did, microseconds since the epoch: freshness and rate are of the second before that.
        known_from: where its rows begin, where a worker was told to begin there ("the log's start", or a time).
        counters: of the active fill, those above 0 by name (rows/counters.py).
    """

    view: str
    hash: str | None
    state: str
    lag: int | None = None
    freshness_ms: float | None = None
    freshness_p99_ms: float | None = None
    events_per_second: float | None = None
    counters: dict[str, int] = field(default_factory=dict)
    measured_at: int | None = None
    known_from: str | None = None


def view_statuses(repository: Repository) -> list[ViewStatus]:
    """The status of every published view; empty where nothing is published.

    Raises:
        Unreachable: Redis or Kafka does not answer, or none was started.
    """
    with Connection(repository.need_redis()) as connection:
        plan = load_published(connection, repository.project)
        if plan is None:
            return []
        topics = {plan.plan.source(v.source).topic for v in plan.plan.stream_views()}
        facts = topic_facts(repository.need_kafka(), topics) if topics else {}
        measured = load_statistics(connection, repository.project, [v.name for v in plan.plan.views])
        out = []
        for view in plan.plan.views:
            found = measured.get(view.name)
            fill = _fill(connection, repository.project, plan, view)
            lag, counters = _lag(connection, repository.project, fill, facts)
            known = fill.known_from if fill is not None else None
            out.append(
                ViewStatus(
                    view.name, _hash(plan, view), _state(plan, view), lag,
                    found.freshness_p50_ms if found else None, found.freshness_p99_ms if found else None,
                    found.events_per_second if found else None, counters,
                    found.at if found else None, known.text() if known else None,
                )
            )  # fmt: skip
        return out


def _hash(plan: PublishedPlan, view: View) -> str | None:
    active = plan.active.get(view.name)
    return active.definition.state_hash if active else None


def _state(plan: PublishedPlan, view: View) -> str:
    if view.name not in plan.filling:
        return "active"
    return "switching" if view.name in plan.active else "filling"


def _fill(connection: Connection, project: str, plan: PublishedPlan, view: View) -> Fill | None:
    """The windowed fill that readers have, or the first one that is being filled."""
    chosen = plan.active.get(view.name) or plan.filling.get(view.name)
    if chosen is None or not isinstance(chosen.definition, StreamView):
        return None
    return load_fill(connection, project, view.name, chosen.fill)


def _lag(
    connection: Connection, project: str, fill: Fill | None, facts: dict[str, TopicFacts]
) -> tuple[int | None, dict[str, int]]:
    topic = facts.get(fill.topic or "") if fill is not None else None
    if fill is None or topic is None or topic.id != fill.topic_id:
        return None, {}
    positions = read_positions(connection, project, fill, topic.partitions)
    if not positions and fill.state == "filling":
        return None, {}
    lag = sum(max(0, end - positions.get(p, 0)) for p, end in topic.ends.items())
    pairs = connection.command("HGETALL", counter_key(project, fill.view, fill.id))
    return lag, {pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)}
