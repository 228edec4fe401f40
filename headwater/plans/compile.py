"""Compiles the definitions of a repository to a Plan, and names everything that is wrong in them at once.

It reads facts, never classes, so a repository's Python objects and what comes back from Feast's
registry compile to the same plan. Feast's own views are left alone: they stay in Feast's
registry and are no part of the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.definitions.facts import BatchFacts, SourceFacts, StreamFacts, ViewFacts, facts_of, user_tags
from headwater.errors import DefinitionError, nearest
from headwater.plans.batches import compile_batch_view
from headwater.plans.plan import Plan, Service, Source, View
from headwater.plans.problems import Problems
from headwater.plans.sources import compile_source
from headwater.plans.streams import compile_stream_view, unknown_source


@dataclass
class Definitions:
    """Feast objects by kind, as in Feast's RepoContents."""

    data_sources: list[Any] = field(default_factory=list)
    entities: list[Any] = field(default_factory=list)
    feature_views: list[Any] = field(default_factory=list)
    stream_feature_views: list[Any] = field(default_factory=list)
    feature_services: list[Any] = field(default_factory=list)


def compile_plan(project: str, objects: Any) -> Plan:
    """The plan of a project.

    Args:
        objects: Feast's RepoContents, `Definitions`, or a list of Feast objects (the sources of its
            views are then found through them).

    Raises:
        DefinitionErrors: all that is wrong, each with object, place, what was expected, nearest names.
    """
    parts = objects if hasattr(objects, "feature_views") else sorted_out(objects)
    problems = Problems()
    sources = _sources(parts.data_sources, problems)
    views = _views([*parts.stream_feature_views, *parts.feature_views], parts.entities, sources, problems)
    others = {v.name for v in parts.feature_views if facts_of(v) is None}
    others |= {v.name for v in getattr(parts, "on_demand_feature_views", [])}
    services = _services(parts.feature_services, views, others, problems)
    problems.raise_all()
    return Plan(project, _by_name(sources), _by_name(views), _by_name(services))


def sorted_out(objects: Iterable[Any]) -> Definitions:
    """A list of Feast objects by kind, with the sources that its views carry."""
    from feast import Entity, FeatureService
    from feast.data_source import DataSource
    from feast.feature_view import FeatureView
    from feast.stream_feature_view import StreamFeatureView

    found = Definitions()
    kinds = [
        (StreamFeatureView, found.stream_feature_views), (FeatureView, found.feature_views),
        (FeatureService, found.feature_services), (Entity, found.entities), (DataSource, found.data_sources),
    ]  # fmt: skip
    for item in objects:
        for kind, place in kinds:
            if isinstance(item, kind):
                place.append(item)
                break
    for view in (*found.stream_feature_views, *found.feature_views):
        source = view.stream_source or view.batch_source
        if source is not None and not any(source is s for s in found.data_sources):
            found.data_sources.append(source)
    return found


def _sources(data_sources: Sequence[Any], problems: Problems) -> list[Source]:
    # The same source object may be listed twice; two equal ones under one name are still two definitions.
    ours = [s for s in _distinct(data_sources) if isinstance(getattr(s, "facts", None), SourceFacts)]
    _unique("Stream source", [s.name for s in ours], problems)
    sources = [
        compile_source(s.name, s.facts, problems, description=s.description, owner=s.owner, tags=user_tags(s.tags))
        for s in ours
    ]
    readers: dict[str, str] = {}
    for source in sources:
        other = readers.setdefault(source.topic, source.name)
        if other != source.name:
            problems.add(
                f"Stream source '{source.name}', topic",
                f"source '{other}' reads '{source.topic}' already, and the lake keeps one table a topic. "
                f"Use one source for both.",
            )
    return sources


def _views(
    feast_views: Sequence[Any], entities: Sequence[Any], sources: Sequence[Source], problems: Problems
) -> list[View]:
    from feast.feature_view import DUMMY_ENTITY_NAME

    known = {e.name: e for e in entities if e.name != DUMMY_ENTITY_NAME}
    by_name = {s.name: s for s in sources}
    _unique("View", [v.name for v in _distinct(feast_views)], problems)
    views: list[View] = []
    for view in _distinct(feast_views):
        facts = facts_of(view)
        if facts is None:
            continue
        kind = "Stream" if isinstance(facts, StreamFacts) else "Batch"
        _check_name(f"{kind} view '{view.name}'", view.name, problems)
        keyed = _entities(f"{kind} view '{view.name}'", facts.entities, known, problems)
        compiled = _view(view, facts, keyed, by_name, problems)
        if compiled is not None:
            views.append(compiled)
    return views


def _view(
    view: Any, facts: ViewFacts, entities: Sequence[Any], sources: Mapping[str, Source], problems: Problems
) -> View | None:
    documented: dict[str, Any] = {
        "description": view.description, "owner": view.owner, "tags": user_tags(view.tags),
    }  # fmt: skip
    if isinstance(facts, BatchFacts):
        return compile_batch_view(view.name, facts, entities, list(sources.values()), problems, **documented)
    source = sources.get(facts.source)
    if source is None:
        problems.note(unknown_source(view.name, facts.source, list(sources)))
        return None
    return compile_stream_view(view.name, facts, entities, source, problems, **documented)


def _entities(place: str, names: Sequence[str], known: Mapping[str, Any], problems: Problems) -> list[Any]:
    if not names:
        problems.add(f"{place}, entity", "expected an Entity (entity=) or several (entities=), got none.")
    found = []
    for name in names:
        if name in known:
            found.append(known[name])
        else:
            problems.add(
                f"{place}, entity",
                f"no entity '{name}' in the repository; define it at a module's top. {nearest(name, known)}",
            )
    return found


def _check_name(place: str, name: str, problems: Problems) -> None:
    if problems.name(f"{place}, name", name) and ("__" in name or name.endswith("_")):
        problems.add(
            f"{place}, name", "results join view and feature by '__', so it can neither hold that nor end in '_'."
        )


def _services(services: Sequence[Any], views: Sequence[View], others: set[str], problems: Problems) -> list[Service]:
    """The services, with those of their views that are ours; a service of Feast's views alone is left out."""
    by_name = {v.name: v for v in views}
    _unique("Feature service", [s.name for s in _distinct(services)], problems)
    found = []
    for service in _distinct(services):
        place = f"Feature service '{service.name}'"
        chosen: dict[str, tuple[str, ...]] = {}
        for name, wanted in _wanted(service):
            if name in by_name:
                chosen[name] = chosen.get(name, ()) + _chosen(place, wanted, by_name[name], problems)
            elif name not in others:
                problems.add(place, f"no view '{name}'. {nearest(name, [*by_name, *others])}")
        if chosen:
            found.append(
                Service(
                    service.name,
                    tuple((view, tuple(dict.fromkeys(names))) for view, names in chosen.items()),
                    service.owner,
                    service.description,
                    user_tags(service.tags),
                )
            )
    return found


def _wanted(service: Any) -> list[tuple[str, list[str]]]:
    """The views of a service with the features it chose of each; none chosen means all."""
    wanted = [(p.name, [*p.desired_features, *(f.name for f in p.features)]) for p in service.feature_view_projections]
    # Features given as text ("view" or "view:feature") become projections only when Feast applies the service.
    for reference in getattr(service, "_pending_feature_refs", []):
        view, _, feature = reference.partition(":")
        wanted.append((view.split("@")[0], [feature] if feature else []))
    return wanted


def _chosen(place: str, wanted: Sequence[str], view: View, problems: Problems) -> tuple[str, ...]:
    features = [f.name for f in view.outputs()]
    # Feast counts the join keys among the features of a view that comes back from its registry.
    names = [n for n in wanted if n not in {k.name for k in view.keys}]
    for name in names:
        if name not in features:
            problems.add(f"{place}, view '{view.name}'", f"no feature '{name}'. {nearest(name, features)}")
    return tuple(names) or tuple(features)


def _unique(kind: str, names: Sequence[str], problems: Problems) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if sum(1 for n in names if n.lower() == name.lower()) > 1 and other == name:
            problems.note(DefinitionError(f"{kind} '{name}': there are several of that name. Names must differ."))


def _distinct(objects: Sequence[Any]) -> list[Any]:
    """The objects, each once, though it be reachable by several names."""
    return list({id(o): o for o in objects}.values())


def _by_name(items: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(sorted(items, key=lambda i: i.name))
