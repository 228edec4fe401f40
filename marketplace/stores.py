"""Reads the facts where they are: the plan in Redis or Feast's registry, status from Redis and Kafka, checks
from the lake.

The one real `FactReader`. The published plan is preferred where Redis answers: it has the same content as
the registry, says which fill is active, and costs no import of Feast (seconds). Without Redis, or with
nothing published, the registry itself is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from headwater.errors import HeadwaterError, Unreachable
from headwater.online.published import PublishedPlan
from headwater.plans.plan import BatchView, Plan, StreamView, View
from headwater.receipts.results import ViewCheck
from headwater.repository import Repository
from marketplace.examples import find_examples
from marketplace.facts import ExampleRow, Facts, Freshness, Unknown, ViewFacts

T = TypeVar("T")
_NOT_CHECKED = Unknown("no check was recorded yet; run 'headwater check'")
_NO_LAG = {
    StreamView: Unknown("the topic's ends or the view's positions could not be read"),
    BatchView: Unknown("a batch view reads no topic"),
}
_NO_FRESHNESS = {
    StreamView: Unknown("no worker measured it in the last day"),
    BatchView: Unknown("it was not materialized yet"),
}


class StoreFacts:
    """The facts of one repository. Opens what it needs for each reading and keeps no connection."""

    def __init__(self, load: Callable[[], Repository]) -> None:
        """`load` reads the repository's configuration; it is called for every reading, because `headwater up`
        may have started servers on other ports meanwhile. What it raises now is raised; later it is a problem."""
        self._load = load
        self._repository = load()
        self._registry: tuple[object, Plan | None] | None = None
        self._published: Plan | None = None
        self._examples: dict[tuple[str, str], tuple[ExampleRow, ...]] = {}

    def read(self) -> Facts:
        """All facts now; see `FactReader`."""
        problems: list[str] = []
        repository = self._current(problems)
        published = _attempt(lambda: _published(repository))
        plan: Plan | Unknown | None = published.plan if isinstance(published, PublishedPlan) else None
        origin = "the published plan"
        if isinstance(published, Unknown) and self._published is not None:
            # Redis is away for a while. The registry says the same, after seconds of importing Feast.
            plan, origin = self._published, "the published plan as it was last read"
        elif isinstance(plan, Plan):
            self._published = plan
        if plan is None:
            plan, origin = _attempt(lambda: self._registry_plan(repository)), "the registry"
        if isinstance(published, Unknown):
            problems.append(f"Online facts are unknown: {published.reason}.")
        if isinstance(plan, Unknown):
            problems.append(f"The registry cannot be read: {plan.reason}.")
        known = plan if isinstance(plan, Plan) else None
        return Facts(
            project=repository.project,
            repository=str(repository.root),
            plan=known,
            origin=origin if known else "",
            views=_measure(repository, known, published, problems) if known else {},
            measured_at=time.time_ns() // 1000,
            problems=tuple(problems),
            plan_unknown=plan.reason if isinstance(plan, Unknown) else None,
        )

    def examples(self, view: View, count: int) -> tuple[ExampleRow, ...]:
        """Rows of the view's active fill; what was found once is kept."""
        repository = self._repository
        published = _attempt(lambda: _published(repository))
        if not isinstance(published, PublishedPlan) or view.name not in published.active:
            return ()
        active = published.active[view.name]
        place = (view.name, active.fill)
        if len(self._examples.get(place, ())) < count:
            found = _attempt(lambda: find_examples(repository.need_redis(), repository.project, active, count))
            self._examples[place] = () if isinstance(found, Unknown) else found
        return self._examples[place][:count]

    def _current(self, problems: list[str]) -> Repository:
        """The repository as it is configured now, else as it was the last time that it could be read."""
        loaded = _attempt(self._load)
        if isinstance(loaded, Unknown):
            problems.append(f"The repository's configuration cannot be read: {loaded.reason}.")
        else:
            self._repository = loaded
        return self._repository

    def _registry_plan(self, repository: Repository) -> Plan | None:
        """The registry's plan, read again when its file has changed (a database: every 30 s)."""
        version = _version(repository.registry)
        if version is None:
            return None  # No registry yet: Feast, which takes seconds to import, is not needed to see that.
        from headwater.definitions.registry import registry_plan

        if self._registry is None or self._registry[0] != version:
            self._registry = (version, registry_plan(repository))
        return self._registry[1]


def _published(repository: Repository) -> PublishedPlan | None:
    """The published plan; None where nothing is published.

    Raises:
        Unreachable: with the address in its message, which pages show, or without where none is known.
    """
    from headwater.online.connection import Connection, RedisAddress
    from headwater.online.plan_store import load_published

    url = repository.need_redis()
    try:
        connection = Connection(url, timeout=5.0, connect_timeout=2.0)
    except Unreachable as error:
        raise Unreachable(f"Redis is not reachable at {RedisAddress.parse(url)}") from error
    try:
        return load_published(connection, repository.project)
    finally:
        connection.close()


def _measure(
    repository: Repository, plan: Plan, published: PublishedPlan | Unknown | None, problems: list[str]
) -> dict[str, ViewFacts]:
    """The measured facts of every view of the plan."""
    checks = _attempt(lambda: _checks(repository))
    if isinstance(checks, Unknown):
        problems.append(f"Results of checks are unknown: {checks.reason}.")
    lags: dict[str, int | None] | Unknown
    fresh: dict[str, Freshness] | Unknown
    if isinstance(published, PublishedPlan):
        fresh = _attempt(lambda: _freshness(repository, plan))
        lags = _attempt(lambda: _lags(repository))
        if isinstance(lags, Unknown):
            problems.append(f"Lag is unknown: {lags.reason}.")
    else:
        fresh = lags = published or Unknown("nothing is published to Redis; run 'headwater apply'")
    return {
        view.name: ViewFacts(
            state=_state(view, published),
            lag=_lag_of(view, lags),
            freshness=_freshness_of(repository, view, fresh),
            check=checks if isinstance(checks, Unknown) else checks.get(view.name, _NOT_CHECKED),
        )
        for view in plan.views
    }


def _lags(repository: Repository) -> dict[str, int | None]:
    """Lag by view. Raises Unreachable where Redis or Kafka is away."""
    from headwater.online.status import view_statuses

    return {s.view: s.lag for s in view_statuses(repository)}


def _freshness(repository: Repository, plan: Plan) -> dict[str, Freshness]:
    """What workers last measured; apart from lag, because it needs no broker."""
    from headwater.online.connection import Connection
    from headwater.online.freshness import load_statistics

    with Connection(repository.need_redis(), timeout=5.0, connect_timeout=2.0) as connection:
        found = load_statistics(connection, repository.project, [v.name for v in plan.views])
    return {name: Freshness(f.freshness_p50_ms, f.at) for name, f in found.items()}


def _freshness_of(repository: Repository, view: View, fresh: dict[str, Freshness] | Unknown) -> Freshness | Unknown:
    if isinstance(view, BatchView):
        age = _attempt(lambda: _snapshot_age(repository, view))
        return age or _NO_FRESHNESS[BatchView]
    return fresh if isinstance(fresh, Unknown) else fresh.get(view.name, _NO_FRESHNESS[StreamView])


def _snapshot_age(repository: Repository, view: BatchView) -> Freshness | None:
    """The age of the view's newest snapshot, by the lake's file statistics; None where there is none."""
    import pyarrow as pa

    from headwater.lake import Lake

    table = Lake(repository.lake).views_table(view.name).open()
    files = pa.table(table.get_add_actions(flatten=True)) if table is not None else None
    if files is None or "max.event_timestamp" not in files.column_names:
        return None
    newest = max((t for t in files["max.event_timestamp"].to_pylist() if t is not None), default=None)
    now = time.time_ns() // 1000
    return None if newest is None else Freshness(now / 1000 - newest.timestamp() * 1000, now)


def _checks(repository: Repository) -> dict[str, ViewCheck]:
    from headwater.lake import Lake

    return Lake(repository.lake).latest_checks()


def _lag_of(view: View, lags: dict[str, int | None] | Unknown) -> int | Unknown:
    if isinstance(view, BatchView):
        return _NO_LAG[BatchView]
    if isinstance(lags, Unknown):
        return lags
    lag = lags.get(view.name)
    return _NO_LAG[StreamView] if lag is None else lag


def _state(view: View, published: PublishedPlan | Unknown | None) -> str | Unknown:
    if isinstance(published, Unknown):
        return published
    if published is None:
        return "unavailable"
    if view.name in published.active:
        return "active"
    return "filling" if view.name in published.filling else "unavailable"


def _attempt(read: Callable[[], T]) -> T | Unknown:
    """What `read` gives; Unknown with one clause of reason where a part is away, missing or cannot be read."""
    try:
        return read()
    except (HeadwaterError, OSError, ModuleNotFoundError) as error:
        return Unknown(_clause(str(error) or type(error).__name__))


def _clause(message: str) -> str:
    """The first line of a message, without its full stop and without passwords in addresses."""
    first = message.strip().splitlines()[0].rstrip(".")
    return " ".join(_without_password(word) for word in first.split())


def _without_password(word: str) -> str:
    if "://" not in word or "@" not in word:
        return word
    scheme, rest = word.split("://", 1)
    return f"{scheme}://{rest.rsplit('@', 1)[1]}"


def _version(registry: str) -> object:
    """Changes when the registry does: its file's time and size, or a clock of 30 s for a database; None: no file."""
    path = urlsplit(registry).path if registry.startswith("file://") else registry
    if "://" in path:
        return int(time.monotonic() // 30)
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size
