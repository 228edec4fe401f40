"""Runs the consistency check for `headwater check`: reads both sides, checks each view, keeps the results."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from headwater.errors import (
    HeadwaterError,
    KafkaUnreachable,
    LakeDamaged,
    TopicChanged,
    Unreachable,
    UsageError,
    nearest,
)
from headwater.lake.lake import Lake
from headwater.online.connection import Connection
from headwater.online.keys import row_prefix
from headwater.online.plan_store import began_at, load_fill, load_published, source_of
from headwater.online.published import Active, Fill, KnownFrom, PublishedPlan
from headwater.plans.plan import BatchView, Source, StreamView, View
from headwater.receipts.results import ViewCheck
from headwater.repository import Repository
from validation.consistency import Findings, examine
from validation.kept_receipts import Replayed, replay_kept
from validation.lake_side import LakeSide
from validation.losses import Difference
from validation.online_side import newest_applied, read_rows, read_served
from validation.snapshot_consistency import check_snapshots
from validation.uncheckable import uncheckable

_LOOK_AGAIN = 1.0
_SWITCHES = 5


@dataclass(frozen=True)
class CheckRun:
    """What a run found.

    Attributes:
        problem: why a table of the lake could not be read, or the results not be kept.
        incomplete: which part of the comparison could not be made, because Kafka is away.
    """

    results: list[ViewCheck]
    problem: HeadwaterError | None
    incomplete: Unreachable | None = None


def run_check(
    repository: Repository,
    views: Sequence[str],
    *,
    sample: int | None = None,
    accept_gaps: bool = False,
    kept_receipts: bool = False,
    progress: Callable[[str], None] = lambda view: None,
) -> CheckRun:
    """Check views (all of the plan where none is named) and keep the results in the lake.

    `sample`: how many receipts to draw a view, at random; None: every row's. `accept_gaps`: the gaps of the
    views' topics are known, and named no more. `kept_receipts`: replay those that servers kept, too.

    Raises:
        UsageError: a view that the published plan does not have.
        HeadwaterError: no plan is published.
        Unreachable: Redis or the lake's object store does not answer.
    """
    lake = Lake(repository.lake)
    with Connection(repository.need_redis()) as connection:
        published = _published(connection, repository.project)
        names = _chosen(published, views)
        if accept_gaps:
            _accept_gaps(lake, published, names)
        run = _Run(repository, lake, connection, sample)
        results = []
        for name in names:
            progress(name)
            if (result := run.check(name)) is not None:
                results.append(result)
        if kept_receipts:
            progress("receipts that servers kept")
            try:
                results = _with_kept(results, replay_kept(repository.state / "receipts", run.lake_side, names))
            except LakeDamaged as error:
                run.problem = run.problem or error
    try:
        lake.append_checks([r for r in results if r.view in run.checked])
    except LakeDamaged as error:
        run.problem = run.problem or error
    return CheckRun(results, run.problem, run.incomplete())


def _with_kept(results: Sequence[ViewCheck], replayed: Mapping[str, Replayed]) -> list[ViewCheck]:
    """The results with what became of the receipts of their views."""
    out = []
    for result in results:
        mine = replayed.get(result.view)
        if mine is not None:
            counts = Counter(result.differences) + Counter(mine.differences)
            result = msgspec.structs.replace(
                result, differences=dict(counts), examples=(*result.examples, *mine.examples),
                notes=(*result.notes, *mine.notes()), kept=mine.kept, kept_equal=mine.equal,
            )  # fmt: skip
        out.append(result)
    return out


def _published(connection: Connection, project: str) -> PublishedPlan:
    published = load_published(connection, project)
    if published is None:
        raise HeadwaterError(f"Project {project!r} has no plan in Redis. Publish one with 'headwater apply'.")
    return published


def _chosen(published: PublishedPlan, views: Sequence[str]) -> list[str]:
    known = [v.name for v in published.plan.views]
    for name in views:
        if name not in known:
            raise UsageError(f"No view {name!r} to check. {nearest(name, known)}")
    return list(dict.fromkeys(views)) or known


def _accept_gaps(lake: Lake, published: PublishedPlan, names: Sequence[str]) -> None:
    views = [v for v in published.plan.stream_views() if v.name in names]
    for topic in {published.plan.source(v.source).topic for v in views}:
        lake.accept_gaps(topic)


def find_differences(
    repository: Repository, lake: Lake, connection: Connection, view: StreamView, source: Source, fill: Fill,
    keys: Sequence[bytes] | None, where_keys: Mapping[str, Sequence[Any]] | None,
) -> Findings:  # fmt: skip
    """Every difference of a fill, for repair; of these entity keys only, where they are given.

    `where_keys`: join key -> the values that those keys are made of.

    Raises:
        LakeDamaged, TopicChanged: the lake cannot be compared with the rows.
    """
    served = read_served(connection, repository.project, view, fill, keys)
    kept = LakeSide(repository, lake).read(
        view, source, fill.topic_id, newest_applied(served.rows), where_keys, first_known(fill)
    )
    found = examine(view, source, served, kept, drawn=None, now=_now())
    if keys is None:
        return found
    # Of several join keys the lake gives every combination.
    return replace(found, rows={key: found.rows[key] for key in keys if key in found.rows})


class _Run:
    """One run: all views, and what is remembered from one to the next."""

    def __init__(self, repository: Repository, lake: Lake, connection: Connection, sample: int | None) -> None:
        self.repository, self.lake, self.connection, self.sample = repository, lake, connection, sample
        self.project = repository.project
        self.lake_side = LakeSide(repository, lake)
        self.checked: set[str] = set()
        self.streams = False
        self.problem: HeadwaterError | None = None

    def incomplete(self) -> Unreachable | None:
        """What could not be compared; None where everything could, or no view has a topic."""
        if self.lake_side.kafka_away is None or not self.streams:
            return None
        return KafkaUnreachable(
            f"{self.lake_side.kafka_away.rstrip('.')}. Rows and lake were compared; whether positions and events lie past "
            "a topic's end is not known, so nothing is proven. Start Kafka, then check again."
        )

    def check(self, name: str) -> ViewCheck | None:
        """The result of one view; None for one that was removed meanwhile."""
        for _ in range(_SWITCHES):
            published = load_published(self.connection, self.project)
            if published is None or not any(v.name == name for v in published.plan.views):
                return None
            active = published.active.get(name)
            if active is None:
                return _filling(name)
            self.checked.add(name)
            result = self._check(published, active)
            # A fill that was switched or removed while its rows were read has lost some of them by now.
            again = load_published(self.connection, self.project)
            if again is not None and (now := again.active.get(name)) is not None and now.fill == active.fill:
                return result
        return result

    def examine(self, view: StreamView, source: Source, fill: Fill) -> Findings:
        """Both sides of a windowed view read, in the order that matters, and compared."""
        self.streams = True
        served = read_served(self.connection, self.project, view, fill)
        newest = newest_applied(served.rows)
        kept = self.lake_side.read(view, source, fill.topic_id, newest, known_from=first_known(fill))
        return examine(view, source, served, kept, drawn=self._drawn(list(served.rows)), now=_now())

    def _check(self, published: PublishedPlan, active: Active) -> ViewCheck:
        view = active.definition
        try:
            if isinstance(view, BatchView):
                return self._check_snapshots(view, active.fill)
            return self._check_windows(published, view, active.fill)
        except (LakeDamaged, TopicChanged) as error:
            self.problem = self.problem or error
            rows = self._rows(view, active.fill)
            likely = "the lake's table cannot be read, so no row can be replayed"
            if isinstance(error, TopicChanged):
                likely = "the lake holds another topic's events, so no row can be replayed"
            return uncheckable(view, rows, Difference("missing in lake", likely, "", str(error), ""), _now())

    def _check_windows(self, published: PublishedPlan, view: StreamView, fill_id: str) -> ViewCheck:
        fill = load_fill(self.connection, self.project, view.name, fill_id)
        if fill is None:
            lost = Difference(
                "missing online", "Redis lost the record of the view's rows, so none of them is served or fed",
                action=f"headwater apply, then headwater backfill {view.name}",
            )  # fmt: skip
            return uncheckable(view, {}, lost, _now())
        source = source_of(published, view)
        if source is None:
            changed = Difference(
                "definition changed", "the source of these rows was changed, so they cannot be computed again",
                "it is served by the earlier definition", "", f"headwater backfill {view.name}",
            )  # fmt: skip
            return uncheckable(view, self._rows(view, fill_id), changed, _now())
        result = self.examine(view, source, fill).result
        notes = [*result.notes]
        if fill.known_from is not None:
            notes.append(_known_note(fill.known_from))
        if self.lake_side.kafka_away is not None:
            notes.append("Kafka was not asked: whether positions and events lie past the topic's end is not known.")
        return msgspec.structs.replace(result, notes=tuple(notes))

    def _check_snapshots(self, view: BatchView, fill: str) -> ViewCheck:
        """Looks again while there is less to find: a run of `materialize` writes the lake first, then Redis."""
        result = self._check_snapshots_once(view, fill)
        while result.defects:
            time.sleep(_LOOK_AGAIN)
            again = self._check_snapshots_once(view, fill)
            if again.defects >= result.defects:
                return again
            result = again
        return result

    def _check_snapshots_once(self, view: BatchView, fill: str) -> ViewCheck:
        rows = self._rows(view, fill)
        return check_snapshots(
            view, self.lake.read_view_definitions(view), rows,
            drawn=self._drawn(list(rows)), now=_now(), began=began_at(fill),
        )  # fmt: skip

    def _rows(self, view: View, fill: str) -> dict[bytes, bytes]:
        return read_rows(self.connection, row_prefix(self.project, view.name, view.state_hash, fill))

    def _drawn(self, keys: list[bytes]) -> list[bytes] | None:
        return None if self.sample is None or self.sample >= len(keys) else random.sample(keys, self.sample)


def first_known(fill: Fill) -> dict[int, int]:
    """Partition -> the first offset that a fill's rows count; empty where they know all."""
    return fill.known_from.offsets if fill.known_from is not None else {}


def _known_note(known: KnownFrom) -> str:
    """Why rows without older events are no difference."""
    return f"Its rows begin at {known.text()}, as a worker was told; older events are in none of them."


def _filling(name: str) -> ViewCheck:
    note = f"nothing of it is served yet, so there is nothing to compare: fill it with 'headwater backfill {name}'."
    return ViewCheck(name, _now(), 0, 0, 0, 0, {}, (), 0, (note,))


def _now() -> int:
    return time.time_ns() // 1000
