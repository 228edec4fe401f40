"""Events a second of a worker, seen from outside: how its positions in Redis move.

A file of its own because it must not believe the worker: it reads the positions of record while
the worker catches up on a topic that is already full.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from headwater.errors import HeadwaterError, Unreachable
from headwater.online.connection import Connection
from headwater.online.keys import position_key
from headwater.online.plan_store import load_fill, load_published

_PAUSE = 0.005
"""Seconds between two looks."""


def measure_throughput(
    connection: Connection,
    project: str,
    source: str,
    events: int,
    still_works: Callable[[], None],
    patience: float = 120.0,
) -> float:
    """Wait until every view of the source has `events` events, and return events a second of all of them together.

    Counted from the first write that is seen to the last, so a process's start does not count; an
    event counts once, however many views it goes into.

    Args:
        still_works: called between looks; raises where waiting has become useless.

    Raises:
        HeadwaterError: no plan, or no fill.
        Unreachable: not caught up within `patience` seconds.
    """
    keys = _position_keys(connection, project, source)
    before = _positions(connection, keys)
    deadline = time.monotonic() + patience
    begun: float | None = None
    while True:
        seen, now = _positions(connection, keys), time.monotonic()
        if begun is None and seen != before:
            begun = now
        if all(sum(_offset(text) for text in view) >= events for view in seen):
            return events / max(now - (begun or now), _PAUSE)
        if now > deadline:
            raise Unreachable(f"The worker has not caught up with {events} events after {patience:.0f} s: {seen}.")
        still_works()
        time.sleep(_PAUSE)


def _position_keys(connection: Connection, project: str, source: str) -> list[list[bytes]]:
    published = load_published(connection, project)
    views = [v for v in published.plan.stream_views() if v.source == source] if published else []
    found = []
    for view in views:
        active = published.active.get(view.name) if published else None
        fill = load_fill(connection, project, view.name, active.fill) if active else None
        if fill is None:
            raise HeadwaterError(f"View '{view.name}' has no active fill in Redis. Run 'headwater apply' first.")
        found.append([position_key(project, view.name, fill.id, partition) for partition in range(fill.partitions)])
    if not found:
        raise HeadwaterError(f"No view of source '{source}' in the plan of project '{project}'.")
    return found


def _positions(connection: Connection, keys: list[list[bytes]]) -> list[list[bytes | None]]:
    return [connection.command("MGET", *view) for view in keys]


def _offset(text: bytes | None) -> int:
    # Inside a batch a position is offset/mark/i; its offset is where the batch began.
    return int(text.split(b"/")[0]) if text else 0
