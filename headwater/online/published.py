"""What is published to Redis beside the rows: the plan, and which fill of each view is active.

Plain data; `online/plan_store.py` reads and writes it.
"""

from __future__ import annotations

import msgspec

from headwater.events.timestamps import format_timestamp
from headwater.plans.plan import CODEC_VERSION, Plan, StreamView, View


class Active(msgspec.Struct, frozen=True):
    """The fill that readers use, with the definition it was filled by (it may lag behind the plan's)."""

    fill: str
    definition: View


class Filling(msgspec.Struct, frozen=True):
    """A fill that is not complete yet: backfill and the worker fill it, nobody reads it."""

    fill: str
    definition: View


class PublishedPlan(msgspec.Struct, frozen=True):
    """`id` is new at every publication and switch. A view without an active fill is unavailable.

    `codec`: the version of the rows of all its fills (rows/codec.py); plans that do not say it are of version 1.
    """

    id: str
    plan: Plan
    active: dict[str, Active]
    filling: dict[str, Filling] = {}
    codec: int = 1


class KnownFrom(msgspec.Struct, frozen=True):
    """Where rows begin that a worker was told to begin: no event before that is in any of them.

    Attributes:
        asked: "earliest", "latest" or a broker time (RFC 3339).
        at: when the worker was told, microseconds since the epoch.
        offsets: partition -> the first offset that counts; partitions added later count from 0.
        goal: partition -> where the topic ended then; readers get the rows when they have come so far.
    """

    asked: str
    at: int
    offsets: dict[int, int]
    goal: dict[int, int]

    def text(self) -> str:
        """For people, such as "2026-11-21T18:30:00Z" or "the log's start"."""
        if self.asked == "earliest":
            return "the log's start"
        return format_timestamp(self.at) if self.asked == "latest" else self.asked


class Fill(msgspec.Struct, frozen=True):
    """The record of one life of a view's rows. `state` is "filling", "active" or "retired".

    `known_from`: None where the rows know all events. `fed_from`: partition -> the first offset that workers read
    for it (0 where it is not named); what lies before came from the lake, or is in no row.
    """

    id: str
    view: str
    state_hash: str
    topic: str | None
    topic_id: str | None
    partitions: int
    state: str
    retention_ms: int = 604_800_000
    known_from: KnownFrom | None = None
    fed_from: dict[int, int] = {}


decode_any_published, decode_fill = msgspec.json.Decoder(PublishedPlan).decode, msgspec.json.Decoder(Fill).decode


def decode_published(data: bytes) -> PublishedPlan:
    """What is published.

    Raises:
        msgspec.DecodeError: no plan of this version, or the rows of its fills are of another.
    """
    found = decode_any_published(data)
    if found.codec != CODEC_VERSION:
        raise msgspec.ValidationError(
            f"its rows are of codec version {found.codec}, and those of this Headwater of {CODEC_VERSION}"
        )
    return found


def stream_fills(plan: PublishedPlan) -> list[tuple[StreamView, str]]:
    """The windowed views of a plan with their fills: those that are read, then those that are being filled."""
    fills: list[Active | Filling] = [*plan.active.values(), *plan.filling.values()]
    return [(f.definition, f.fill) for f in fills if isinstance(f.definition, StreamView)]
