"""What differs between two plans, place by place, as text. announcement.py words it for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from headwater.dtypes import shown
from headwater.durations import format_duration
from headwater.expressions.readable import readable
from headwater.plans.plan import BatchView, Expectation, Feature, Field, Plan, Service, Source, StreamView, View

Described = Mapping[str, str]
"""What an object says, place by place, as text."""


@dataclass(frozen=True)
class Difference:
    """One place of a changed object; None where it has no such place before or after."""

    place: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Change:
    """One object that was added, changed or removed.

    Attributes:
        kind: "source", "view" or "service".
        differences: place by place; of an added object all that it says, of a removed one nothing.
        consumers: who uses it: "view NAME" for a source, "service NAME" for a view.
        refill: whether its values change their meaning, so that its rows have to be filled again.
    """

    change: str
    kind: str
    name: str
    differences: list[Difference] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    refill: bool = False


def differences(old: Plan | None, new: Plan) -> list[Change]:
    """All changes from the plan `old` (None: nothing was applied yet) to `new`: sources, views, services."""
    before = old or Plan(new.project)
    return [
        *_changes("source", before.sources, new.sources, before, new),
        *_changes("view", before.views, new.views, before, new),
        *_changes("service", before.services, new.services, before, new),
    ]


def as_json(changes: Sequence[Change]) -> dict[str, list[dict[str, Any]]]:
    """The changes as plain data: {"added": […], "changed": […], "removed": […]}."""
    return {
        kind: [{k: v for k, v in asdict(c).items() if k != "change"} for c in changes if c.change == kind]
        for kind in ("added", "changed", "removed")
    }


def _changes(kind: str, olds: Sequence[Any], news: Sequence[Any], before: Plan, after: Plan) -> list[Change]:
    old, new = {o.name: o for o in olds}, {n.name: n for n in news}
    changes = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found = _compare({}, _describe(new[name]))
            changes.append(Change("added", kind, name, found, _consumers(kind, name, after), kind == "view"))
        elif name not in new:
            changes.append(Change("removed", kind, name, [], _consumers(kind, name, before)))
        elif old[name] != new[name]:
            refill = getattr(old[name], "state_hash", "") != getattr(new[name], "state_hash", "")
            found = _compare(_describe(old[name]), _describe(new[name]))
            if refill:
                found.append(Difference("state hash", old[name].state_hash, new[name].state_hash))
            changes.append(Change("changed", kind, name, found, _consumers(kind, name, after), refill))
    return changes


def _compare(old: Described, new: Described) -> list[Difference]:
    places = [*new, *(p for p in old if p not in new)]
    return [Difference(p, old.get(p), new.get(p)) for p in places if old.get(p) != new.get(p)]


def _consumers(kind: str, name: str, plan: Plan) -> list[str]:
    if kind == "source":
        return [f"view {v.name}" for v in plan.stream_views() if v.source == name]
    if kind == "view":
        return [f"service {s.name}" for s in plan.services if any(view == name for view, _ in s.features)]
    return []


def _describe(item: Source | View | Service) -> Described:
    if isinstance(item, Source):
        return _source(item)
    return _service(item) if isinstance(item, Service) else _view(item)


def _source(source: Source) -> Described:
    return {
        "topic": source.topic,
        **({} if source.format == "json" else {"format": source.format}),
        **({} if source.envelope is None else {"envelope": f"{source.envelope}, updates {source.updates}"}),
        "event time": source.event_time,
        **({"key": source.key} if source.key else {}),
        "tolerance": format_duration(source.tolerance),
        **_columns("column", source.fields),
        **_expectations(source.expectations),
        **_documented(source),
    }


def _view(view: View) -> Described:
    keys = ", ".join(f"{e} ({k.name} {k.dtype})" for e, k in zip(view.entities, view.keys, strict=True))
    body = _stream(view) if isinstance(view, StreamView) else _batch(view)
    freshness = {} if view.freshness is None else {"freshness": format_duration(view.freshness)}
    return {"entities": keys, **body, **freshness, **_expectations(view.expectations), **_documented(view)}


def _stream(view: StreamView) -> Described:
    where = {"where": view.where_text} if view.where_text else {}
    derived = {f"derive {name}": text for name, text in view.derive_text.items()}
    features = {f"feature {f.name}": _feature(f) for f in view.features}
    ttl = {} if view.ttl is None else {"ttl": format_duration(view.ttl)}
    return {"source": view.source, **where, **derived, **ttl, **features}


def _feature(feature: Feature) -> str:
    what = feature.function if feature.column is None else f"{feature.function} of {feature.column}"
    if feature.window is None or feature.hop is None:
        over = "over all time"
    else:
        over = f"over {format_duration(feature.window)} by {format_duration(feature.hop)}"
    where = "" if feature.where is None else f", where {readable(feature.where)}"
    scale = f", scale {feature.scale}" if feature.scale else ""
    n = "" if feature.n is None else f", n {feature.n}"
    n += "" if feature.limit is None else f", limit {feature.limit}"
    n += "" if feature.q is None else f", q {feature.q}"
    return f"{what} {over}, {shown(feature.dtype, feature.length)}{scale}{n}{where}"


def _batch(view: BatchView) -> Described:
    ttl = "for ever" if view.ttl is None else format_duration(view.ttl)
    return {"sql": " ".join(view.sql.split()), "ttl": ttl, **_columns("feature", view.features)}


def _service(service: Service) -> Described:
    return {**{f"view {view}": ", ".join(names) for view, names in service.features}, **_documented(service)}


def _columns(what: str, fields: Sequence[Field]) -> Described:
    return {f"{what} {f.name}": shown(f.dtype, f.length) for f in fields}


def _expectations(expectations: Sequence[Expectation]) -> Described:
    return {f"expectation {e.kind} {e.column}": _expectation(e) for e in expectations}


def _expectation(expectation: Expectation) -> str:
    said = {
        "between": _bounds(expectation),
        "not_null": "never null",
        "in_set": f"one of {', '.join(map(str, expectation.values))}",
    }[expectation.kind]
    return said if expectation.mostly >= 1 else f"{said}, for {expectation.mostly:g} of all"


def _bounds(expectation: Expectation) -> str:
    low, high = expectation.minimum, expectation.maximum
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _documented(item: Source | View | Service) -> Described:
    texts = {"owner": item.owner, "description": item.description}
    return {**{k: v for k, v in texts.items() if v}, **{f"tag {k}": v for k, v in item.tags.items()}}
