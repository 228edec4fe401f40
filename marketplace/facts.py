"""What the catalog knows: the definitions, and what was measured of each view.

Apart from the pages so that they are tested without servers: a `FactReader` is the seam. `StoreFacts`
(stores.py) reads the registry, Redis and the lake; `MemoryFacts` here gives what it was made with.
A fact that cannot be had is `Unknown` with its reason. It is never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headwater.plans.plan import Plan, Service, View
from headwater.receipts.results import ViewCheck


@dataclass(frozen=True)
class Unknown:
    """A fact that cannot be had, and why, as a clause: "Redis is not reachable at 127.0.0.1:6379"."""

    reason: str


@dataclass(frozen=True)
class Freshness:
    """Milliseconds from an event's arrival at the broker to its rows being readable (of a batch view: the age
    of its newest snapshot), and when that was measured (microseconds since the epoch)."""

    ms: float
    measured_at: int


@dataclass(frozen=True)
class ViewFacts:
    """What was measured of one view.

    Attributes:
        state: "active", "filling" or "unavailable": whether it can be read online.
        lag: events that are not applied yet.
        freshness: how old values are when they can be read.
        check: the last result of `headwater check`.
    """

    state: str | Unknown
    lag: int | Unknown
    freshness: Freshness | Unknown
    check: ViewCheck | Unknown


@dataclass(frozen=True)
class Facts:
    """Everything at one moment.

    Attributes:
        project: the project's name.
        repository: the absolute path of the repository, as snippets name it.
        plan: None where nothing was applied yet, or where `plan_unknown` says why it cannot be read.
        origin: where the plan was read, "the published plan" or "the registry"; empty without one.
        views: measured facts by view name; a view that is missing here has none.
        problems: what could not be read, as sentences for the page's head.
        measured_at: microseconds since the epoch, UTC.
    """

    project: str
    repository: str
    plan: Plan | None
    origin: str
    views: Mapping[str, ViewFacts]
    measured_at: int
    problems: tuple[str, ...] = ()
    plan_unknown: str | None = None

    def view(self, name: str) -> View | None:
        """The view of that name, None where there is none."""
        return next((v for v in self.all_views() if v.name == name), None)

    def all_views(self) -> tuple[View, ...]:
        """The views of the plan; empty without a plan."""
        return self.plan.views if self.plan else ()

    def measured(self, view: str) -> ViewFacts:
        """The measured facts of a view."""
        unmeasured = Unknown("nothing was measured")
        return self.views.get(view) or ViewFacts(unmeasured, unmeasured, unmeasured, unmeasured)

    def consumers(self, view: str) -> tuple[Service, ...]:
        """The services that consume a view."""
        services = self.plan.services if self.plan else ()
        return tuple(s for s in services if any(name == view for name, _ in s.features))


@dataclass(frozen=True)
class ExampleRow:
    """Join key values that exist, and the time of the newest event that the row knows (us; None: not known)."""

    keys: Mapping[str, object]
    newest: int | None


class FactReader(Protocol):
    """Where facts come from. Both methods may block for as long as a server takes to answer, and both are
    called from threads other than the main one, `read` by one at a time."""

    def read(self) -> Facts:
        """All facts now. A part that is away becomes `Unknown` and a problem; it raises nothing for that."""

    def examples(self, view: View, count: int) -> tuple[ExampleRow, ...]:
        """At most `count` rows of the view that exist online; empty where none can be found."""


@dataclass(frozen=True)
class MemoryFacts:
    """Facts that are given, not read: for tests of pages, and for looking at pages without servers."""

    facts: Facts
    rows: Mapping[str, tuple[ExampleRow, ...]] = field(default_factory=dict)

    def read(self) -> Facts:
        """The facts as given."""
        return self.facts

    def examples(self, view: View, count: int) -> tuple[ExampleRow, ...]:
        """The rows as given for this view."""
        return self.rows.get(view.name, ())[:count]
