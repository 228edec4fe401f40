"""Which features are asked for: the command line's and services' names, resolved against a plan."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.errors import UnknownName, UsageError, nearest
from headwater.plans.plan import Plan


@dataclass(frozen=True)
class Wanted:
    """One output column: a feature of a view, and the column's name."""

    view: str
    feature: str

    @property
    def column(self) -> str:
        """VIEW__FEATURE."""
        return f"{self.view}__{self.feature}"


def parse_features(plan: Plan, text: str) -> list[Wanted]:
    """`VIEW:FEATURE,…` or `VIEW,…` (all its features), in order, each once.

    Raises:
        UnknownName: an unknown view or feature, with the nearest names.
        UsageError: nothing was asked for.
    """
    wanted: list[Wanted] = []
    for item in (part.strip() for part in text.split(",")):
        if item:
            wanted += _of_item(plan, item)
    if not wanted:
        raise UsageError("No features were asked for. Name them as VIEW:FEATURE,… or VIEW,….")
    return list(dict.fromkeys(wanted))


def service_features(plan: Plan, name: str) -> list[Wanted]:
    """The features of a feature service, in its order.

    Raises:
        UnknownName: no such service.
    """
    services = {s.name: s for s in plan.services}
    if name not in services:
        raise UnknownName(f"Project {plan.project!r} has no feature service {name!r}. {nearest(name, services)}")
    return [Wanted(view, feature) for view, features in services[name].features for feature in features]


def _of_item(plan: Plan, item: str) -> list[Wanted]:
    view_name, _, feature = item.partition(":")
    views = {v.name: v for v in plan.views}
    if view_name not in views:
        raise UnknownName(f"Project {plan.project!r} has no feature view {view_name!r}. {nearest(view_name, views)}")
    known = [f.name for f in views[view_name].outputs()]
    if not feature and ":" not in item:
        return [Wanted(view_name, name) for name in known]
    if feature not in known:
        raise UnknownName(f"Feature view {view_name!r} has no feature {feature!r}. {nearest(feature, known)}")
    return [Wanted(view_name, feature)]
