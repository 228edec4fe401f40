"""`headwater materialize`: snapshots of views, computed by an engine, judged by the gate, then published.

The steps of one view, and why a kill between any two of them does no harm:

1. Compute the snapshot at `as_of`. Nothing is written.
2. The gate. Closed: the failing rows go to the lake's quarantine, and nothing else is written.
3. The lake: one Delta commit, which replaces a snapshot of the same time.
4. Redis: rows of the fill; of two snapshots the newer stays, whichever was written last.
5. Where the fill was not active yet, the switch, in one step: readers never see a half-filled view.

Running it again repeats work and changes no value. A StreamView stops after step 3: its rows in Redis belong
to the worker behind the fence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from headwater.columns import Column
from headwater.errors import GateClosed, HeadwaterError, UsageError, nearest
from headwater.events.timestamps import format_timestamp
from headwater.lake import Lake
from headwater.online.connection import Connection
from headwater.online.plain_writes import write_plain_rows
from headwater.online.plan_store import activate, load_fill, load_published
from headwater.online.published import PublishedPlan
from headwater.plans.plan import BatchView, Plan, StreamView, View
from headwater.repository import Repository
from validation.gate import Failure, GateResult, gate

if TYPE_CHECKING:
    import pyarrow as pa

ENGINES = ("local", "spark")
Say = Callable[[str], None]


class BatchEngine(Protocol):
    """Where snapshots are computed. Both give the join keys and features in their declared types, sorted by key."""

    name: str

    def batch(self, view: BatchView, as_of: int) -> pa.Table:
        """The result of the view's SQL at `as_of`, microseconds."""

    def windows(self, view: StreamView, as_of: int) -> pa.Table:
        """The windowed features at `as_of`, microseconds, of every key that has an event before it."""

    def close(self) -> None:
        """Called once, after the last view, whatever happened."""


@dataclass(frozen=True)
class Materialized:
    """What became of one view.

    Attributes:
        rows: of the snapshot in the lake.
        written: rows that Redis took; None where the view's rows are the worker's.
        activated: whether readers have this definition only since now.
        tolerated: expectations that not all rows meet, but enough of them (`mostly`).
    """

    view: str
    as_of: int
    rows: int
    written: int | None
    activated: bool = False
    tolerated: tuple[Failure, ...] = field(default=())


def materialize(
    repository: Repository,
    names: Sequence[str],
    as_of: int,
    engine: str = "local",
    *,
    say: Say = lambda text: None,
    session: Any = None,
) -> list[Materialized]:
    """Materialize the named views (all BatchViews where none is named) at `as_of`, microseconds.

    Args:
        say: told what is being done, for a terminal.
        session: a Spark session to use, which is then not stopped.

    Raises:
        GateClosed: batches that failed; the other views were published all the same.
        UsageError: an unknown view or engine, or nothing applied yet.
        Unreachable: Redis does not answer.
    """
    connection = Connection(repository.need_redis())
    try:
        published = _published(connection, repository.project)
        views = _views(published.plan, names)
        lake = Lake(repository.lake)
        computing = _engine(engine, repository, lake, published.plan, session)
        try:
            return _Run(repository.project, connection, lake, computing, as_of, say).all(views)
        finally:
            computing.close()
    finally:
        connection.close()


class _Run:
    """One run: all views at one time."""

    def __init__(
        self, project: str, connection: Connection, lake: Lake, engine: BatchEngine, as_of: int, say: Say
    ) -> None:
        self.project, self.connection, self.lake = project, connection, lake
        self.engine, self.as_of, self.say = engine, as_of, say

    def all(self, views: Sequence[View]) -> list[Materialized]:
        """Every view; closed gates are raised together at the end, so that they hold up no other view."""
        done, closed = [], []
        for view in views:
            try:
                done.append(self._one(view))
            except GateClosed as error:
                closed.append(error)
        if len(closed) == 1:
            raise closed[0]
        if closed:
            raise GateClosed("\n".join(str(error) for error in closed))
        return done

    def _one(self, view: View) -> Materialized:
        self.say(f"{view.name}: computing on the {self.engine.name} engine")
        batch = isinstance(view, BatchView)
        table = self.engine.batch(view, self.as_of) if isinstance(view, BatchView) else self._windows(view)  # 1
        self.say(f"{view.name}: judging {table.num_rows:,} rows")
        result = gate(view, table)  # 2
        if not result.passed:
            raise self._closed(view, table, result)
        self.say(f"{view.name}: {table.num_rows:,} rows to the lake")
        self.lake.append_view_snapshot(as_batch_view(view), table, self.as_of)  # 3
        if not batch:
            return Materialized(view.name, self.as_of, table.num_rows, None, tolerated=result.tolerated)
        assert isinstance(view, BatchView)
        self.say(f"{view.name}: {table.num_rows:,} rows to Redis")
        written, activated = self._publish(view, table)
        return Materialized(view.name, self.as_of, table.num_rows, written, activated, result.tolerated)

    def _windows(self, view: StreamView) -> pa.Table:
        return self.engine.windows(view, self.as_of)

    def _publish(self, view: BatchView, table: pa.Table) -> tuple[int, bool]:
        """Steps 4 and 5."""
        fill, filling = self._fill(view)
        keys = [Column.from_arrow(k.dtype, table[k.name]) for k in view.keys]
        columns = {f.name: Column.from_arrow(f.dtype, table[f.name]) for f in view.features}
        written = write_plain_rows(self.connection, self.project, view, fill, keys, columns, self.as_of)  # 4
        activated = filling and activate(self.connection, self.project, view.name)  # 5
        if self._fill(view) != (fill, False):
            raise HeadwaterError(
                f"Batch view {view.name!r}: its definition was changed while it was materialized. Run it again."
            )
        return written, activated

    def _fill(self, view: BatchView) -> tuple[str, bool]:
        """The fill of this definition, and whether it still has to be made active."""
        published = _published(self.connection, self.project)
        for found, filling in ((published.active, False), (published.filling, True)):
            entry = found.get(view.name)
            same = entry is not None and entry.definition.state_hash == view.state_hash
            if entry is not None and same and load_fill(self.connection, self.project, view.name, entry.fill):
                return entry.fill, filling
        raise HeadwaterError(
            f"Batch view {view.name!r}: Redis has no record of the rows of this definition ({view.state_hash}). "
            f"Run 'headwater apply', then materialize it again."
        )

    def _closed(self, view: View, table: pa.Table, result: GateResult) -> GateClosed:
        """The failing rows are kept with their reasons; the error says where."""
        reasons = result.reasons()
        self.lake.append_quarantine(view.name, _quarantined(table, reasons, self.as_of))
        lines = "\n".join(f"  - {failure}" for failure in result.failures)
        return GateClosed(
            f"View {view.name!r} at {format_timestamp(self.as_of)}: the gate is closed, nothing was published. "
            f"{len(result.failures)} of its expectations do not hold:\n{lines}\n"
            f"The {len(reasons):,} failing rows are in {self.lake.table(f'quarantine/{view.name}').uri}, "
            f"with their reasons in the column _reason."
        )


def as_batch_view(view: View) -> BatchView:
    """The view as the lake keeps snapshots of it: a StreamView's windowed features are columns like any other."""
    if isinstance(view, BatchView):
        return view
    return BatchView(view.name, view.entities, view.keys, "", None, view.outputs(), view.state_hash)


def _quarantined(table: pa.Table, reasons: dict[int, str], as_of: int) -> pa.Table:
    import pyarrow as pa

    rows = table.take(pa.array(list(reasons), pa.int64()))
    times = pa.array([as_of] * len(reasons), pa.int64()).cast(pa.timestamp("us", "UTC"))
    return rows.append_column("_as_of", times).append_column("_reason", pa.array(list(reasons.values()), pa.string()))


def _published(connection: Connection, project: str) -> PublishedPlan:
    published = load_published(connection, project)
    if published is None:
        raise UsageError(f"Nothing is published for the project {project!r}. Run 'headwater apply' first.")
    return published


def _views(plan: Plan, names: Sequence[str]) -> list[View]:
    """The named views, each once; all BatchViews where none is named."""
    if not names:
        return list(plan.batch_views())
    known = {v.name: v for v in plan.views}
    for name in names:
        if name not in known:
            raise UsageError(f"The project {plan.project!r} has no view {name!r}. {nearest(name, known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _engine(name: str, repository: Repository, lake: Lake, plan: Plan, session: Any) -> BatchEngine:
    if name == "local":
        from pipelines.local_batch import LocalEngine

        return LocalEngine(lake, plan)
    if name == "spark":
        from pipelines.spark_materialize import SparkEngine

        return SparkEngine(lake, plan, repository.state / "logs" / "spark.log", session)
    raise UsageError(f"No engine {name!r}. {nearest(name, ENGINES)}")
