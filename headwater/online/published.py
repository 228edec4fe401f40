"""What is published to Redis beside the rows: the plan, and which fill of each view is active.

Plain data; `online/plan_store.py` reads and writes it.
"""

from __future__ import annotations

import msgspec

from headwater.plans.plan import Plan, StreamView, View


class Active(msgspec.Struct, frozen=True):
    """The fill that readers use, with the definition it was filled by (it may lag behind the plan's)."""

    fill: str
    definition: View


class Filling(msgspec.Struct, frozen=True):
    """A fill that is not complete yet: backfill and the worker fill it, nobody reads it."""

    fill: str
    definition: View


class PublishedPlan(msgspec.Struct, frozen=True):
    """`id` is new at every publication and switch. A view without an active fill is unavailable."""

    id: str
    plan: Plan
    active: dict[str, Active]
    filling: dict[str, Filling] = {}


class Fill(msgspec.Struct, frozen=True):
    """The record of one life of a view's rows. `state` is "filling", "active" or "retired"."""

    id: str
    view: str
    state_hash: str
    topic: str | None
    topic_id: str | None
    partitions: int
    state: str
    retention_ms: int = 604_800_000


def stream_fills(plan: PublishedPlan) -> list[tuple[StreamView, str]]:
    """The windowed views of a plan with their fills: those that are read, then those that are being filled."""
    fills: list[Active | Filling] = [*plan.active.values(), *plan.filling.values()]
    return [(f.definition, f.fill) for f in fills if isinstance(f.definition, StreamView)]
