"""Runs the consistency check for `headwater check`: reads both sides, checks each view, keeps the results."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from headwater.errors import HeadwaterError, Unreachable, UsageError, nearest
from headwater.events.select import source_columns
from headwater.lake.lake import Lake
from headwater.online.connection import Connection
from headwater.online.expiry import expiry_of
from headwater.online.keys import row_prefix
from headwater.online.plan_store import all_positions, load_fill, load_published, scan_rows, source_of
from headwater.online.published import PublishedPlan
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import BatchView, Source, StreamView
from headwater.receipts.results import ViewCheck
from headwater.repository import Repository
from validation.consistency import Kept, Served, check_view
from validation.snapshot_consistency import check_snapshots

_BATCH = 1000


def run_check(
    repository: Repository,
    views: Sequence[str],
    *,
    sample: int | None = None,
    progress: Callable[[str], None] = lambda view: None,
) -> list[ViewCheck]:
    """Check views (all that are active where none is named) and keep the results in the lake.

    `sample`: how many receipts to draw a view, at random; None: every row's.

    Raises:
        UsageError: a view that the published plan does not have.
        HeadwaterError: no plan is published.
        Unreachable: Redis does not answer.
    """
    lake = Lake(repository.lake)
    with Connection(repository.need_redis()) as connection:
        published = load_published(connection, repository.project)
        if published is None:
            raise HeadwaterError(
                f"Project {repository.project!r} has no plan in Redis. Publish one with 'headwater apply'."
            )
        results = []
        for name in _chosen(published, views):
            progress(name)
            results.append(_check(repository, lake, connection, published, name, sample))
    if results:
        lake.append_checks(results)
    return results


def _chosen(published: PublishedPlan, views: Sequence[str]) -> list[str]:
    known = [v.name for v in published.plan.views]
    for name in views:
        if name not in known:
            raise UsageError(f"No view {name!r} to check. {nearest(name, known)}")
        if name not in published.active:
            raise UsageError(
                f"View {name!r} is not filled yet, so nothing of it is served. Fill it with 'headwater backfill'."
            )
    return list(dict.fromkeys(views)) or [n for n in known if n in published.active]


def _check(
    repository: Repository,
    lake: Lake,
    connection: Connection,
    published: PublishedPlan,
    name: str,
    sample: int | None,
) -> ViewCheck:
    active = published.active[name]
    view, now = active.definition, time.time_ns() // 1000
    prefix = row_prefix(repository.project, view.name, view.state_hash, active.fill)
    if isinstance(view, BatchView):
        rows = _rows(connection, prefix)
        return check_snapshots(view, lake.read_view(view), rows, drawn=_drawn(rows, sample), now=now)
    fill = load_fill(connection, repository.project, view.name, active.fill)
    # Positions before rows, rows before the lake: see consistency.py.
    positions = all_positions(connection, repository.project, fill) if fill is not None else {}
    rows = _rows(connection, prefix)
    again = load_published(connection, repository.project)
    if again is not None and name in again.active and again.active[name].fill != active.fill:
        # The view was switched while its rows were read, and the old rows are going.
        return _check(repository, lake, connection, again, name, sample)
    if fill is None:
        raise HeadwaterError(f"View {view.name!r}: its fill's record is gone from Redis. Run 'headwater apply'.")
    source = source_of(published, view)
    if source is None:
        raise HeadwaterError(
            f"View {view.name!r}: the source of its rows was changed, so they cannot be computed again. "
            f"Fill the new ones with 'headwater backfill {view.name}'."
        )
    kept = _kept(repository, lake, view, source)
    return check_view(
        view, source, Served(positions, rows, expiry_of(view, fill)), kept,
        drawn=_drawn(rows, sample), now=now,
    )  # fmt: skip


def _rows(connection: Connection, prefix: bytes) -> dict[bytes, bytes]:
    """All rows of a fill, by entity key."""
    found: dict[bytes, bytes] = {}
    for keys in scan_rows(connection, prefix):
        for i in range(0, len(keys), _BATCH):
            some = keys[i : i + _BATCH]
            for key, row in zip(some, connection.command("MGET", *some), strict=True):
                if row is not None:
                    found[key[len(prefix) :]] = row
    return found


def _drawn(rows: dict[bytes, bytes], sample: int | None) -> list[bytes] | None:
    if sample is None or sample >= len(rows):
        return None
    return random.sample(list(rows), sample)


def _kept(repository: Repository, lake: Lake, view: StreamView, source: Source) -> Kept:
    columns = sorted({*source_columns(view), source.event_time})
    snapshot = lake.events(source.topic)
    if snapshot is None:
        empty = np.empty(0, np.int64)
        return Kept(lake.read_events(source, columns=columns), {}, (empty, empty), [], _ends(repository, source.topic))
    missing = snapshot.missing()
    files = [f for f in snapshot.files if f not in set(missing)]
    table = snapshot.read(source, columns=columns, files=files)
    places = snapshot.read_places(files)
    arrays = [
        places[n].combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False) for n in ("_partition", "_offset")
    ]
    # The ends last: an event that came meanwhile lies below them.
    ends = _ends(repository, source.topic)
    return Kept(table, snapshot.positions(), (arrays[0], arrays[1]), missing, ends)


def _ends(repository: Repository, topic: str) -> dict[int, int] | None:
    """The topic's ends, None where Kafka cannot be asked: the check needs only Redis and the lake."""
    if not repository.kafka.get("bootstrap.servers"):
        return None
    try:
        facts = topic_facts(repository.kafka, [topic])
    except Unreachable:
        return None
    return facts[topic].ends if topic in facts else None
