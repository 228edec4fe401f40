"""The pages: which facts stand on which page. Reads nothing but what `LatestFacts` has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from headwater.errors import nearest
from headwater.plans.plan import BatchView, Plan, Service, StreamView, View
from marketplace.display import feature_conditions
from marketplace.facts import Facts
from marketplace.latest import LatestFacts
from marketplace.questions import entity_rows, service_features, view_features
from marketplace.search import Query, search
from marketplace.snippets import serving_snippet, training_snippet
from marketplace.templating import render

Page = Callable[[Request], Response]


def query_of(request: Request) -> Query:
    """The query in an address: q, entity, owner and tag, at most 200 characters each."""
    take = {k: request.query_params.get(k, "")[:200] for k in ("q", "entity", "owner", "tag")}
    return Query(take["q"], take["entity"], take["owner"], take["tag"])


def latest_of(request: Request) -> LatestFacts:
    """The facts that the application was made with."""
    latest: LatestFacts = request.app.state.latest
    return latest


def with_facts(page: Callable[[Request, Facts], Response]) -> Page:
    """A page that is shown once there are facts; before that, one that says what is waited for."""

    def endpoint(request: Request) -> Response:
        facts = latest_of(request).get()
        if facts is None:
            return message(
                "The definitions are being read",
                "The registry is read for the first time, which takes some seconds. This page loads again by itself.",
                status=503, again=True,
            )  # fmt: skip
        return page(request, facts)

    endpoint.__name__ = page.__name__
    return endpoint


def message(
    title: str, text: str, *, facts: Facts | None = None, status: int = 200, again: bool = False
) -> HTMLResponse:
    """A page that says one thing; `again`: and loads itself again after two seconds."""
    headers = {"Refresh": "2"} if again else {}
    page = render("message.html", facts=facts, title=title, text=text)
    return HTMLResponse(page, status_code=status, headers=headers)


@with_facts
def home(request: Request, facts: Facts) -> Response:
    """The list of views, searched and filtered."""
    query = query_of(request)
    found = search(facts.all_views(), query)
    page = render("views.html", facts=facts, query=query, found=found, facets=_facets(facts.all_views()))
    return HTMLResponse(page)


@with_facts
def view_page(request: Request, facts: Facts) -> Response:
    """Everything about one view."""
    view = facts.view(request.path_params["name"])
    if view is None or facts.plan is None:
        return _missing(facts, "view", request.path_params["name"], [v.name for v in facts.all_views()])
    features = view_features(view)
    asked = entity_rows(facts, latest_of(request).reader, (view,))
    source = facts.plan.source(view.source) if isinstance(view, StreamView) else None
    page = render(
        "view.html", facts=facts, view=view, source=source, measured=facts.measured(view.name),
        consumers=facts.consumers(view.name), conditions=feature_conditions(view), asked=asked,
        training=training_snippet(facts.repository, features, None, asked),
        serving=serving_snippet(facts.repository, features, None, asked),
    )  # fmt: skip
    return HTMLResponse(page)


@with_facts
def services(request: Request, facts: Facts) -> Response:
    """The list of services."""
    return HTMLResponse(render("services.html", facts=facts, services=facts.plan.services if facts.plan else ()))


@with_facts
def service_page(request: Request, facts: Facts) -> Response:
    """One service: its features, and how it is used."""
    service = _named(facts.plan.services if facts.plan else (), request.path_params["name"])
    if service is None or facts.plan is None:
        known = [s.name for s in facts.plan.services] if facts.plan else []
        return _missing(facts, "service", request.path_params["name"], known)
    features = service_features(service)
    asked = entity_rows(facts, latest_of(request).reader, _views_of(facts.plan, service))
    page = render(
        "service.html", facts=facts, service=service, asked=asked,
        training=training_snippet(facts.repository, features, service.name, asked),
        serving=serving_snippet(facts.repository, features, service.name, asked),
    )  # fmt: skip
    return HTMLResponse(page)


@with_facts
def sources(request: Request, facts: Facts) -> Response:
    """The list of sources."""
    return HTMLResponse(render("sources.html", facts=facts, sources=facts.plan.sources if facts.plan else ()))


@with_facts
def source_page(request: Request, facts: Facts) -> Response:
    """One source: its topic, its fields, what is expected of it, and the views over it."""
    known = facts.plan.sources if facts.plan else ()
    source = _named(known, request.path_params["name"])
    if source is None:
        return _missing(facts, "source", request.path_params["name"], [s.name for s in known])
    views = [v for v in facts.all_views() if isinstance(v, StreamView) and v.source == source.name]
    return HTMLResponse(render("source.html", facts=facts, source=source, views=views))


@with_facts
def api_page(request: Request, facts: Facts) -> Response:
    """What the JSON API offers."""
    return HTMLResponse(render("api.html", facts=facts, address=str(request.base_url).rstrip("/")))


def not_found(request: Request, error: Exception) -> Response:
    """The page for an address that leads nowhere."""
    return message("There is no such page", f"Nothing lies at {request.url.path}.", status=404)


def broken(request: Request, error: Exception) -> Response:
    """The page for a defect of the catalog itself; the server's log has its traceback."""
    text = "The catalog has a defect on this page. The log of 'headwater catalog' says which."
    return message("This page failed", text, status=500)


def _missing(facts: Facts, noun: str, name: str, known: list[str]) -> Response:
    text = f"There is no {noun} {name!r}. {nearest(name, known)}"
    return message(f"No such {noun}", text, facts=facts, status=404)


def _named(items: Any, name: str) -> Any:
    return next((item for item in items if item.name == name), None)


def _views_of(plan: Plan, service: Service) -> tuple[View, ...]:
    return tuple(plan.view(name) for name, _ in service.features)


def _facets(views: tuple[StreamView | BatchView, ...]) -> dict[str, list[tuple[str, int]]]:
    """(value, how many views have it) for each filter, the most frequent first."""
    counts = {
        "entity": Counter(e for v in views for e in v.entities),
        "owner": Counter(v.owner for v in views if v.owner),
        "tag": Counter(f"{k}:{x}" for v in views for k, x in v.tags.items()),
    }
    return {name: sorted(c.items(), key=lambda item: (-item[1], item[0])) for name, c in counts.items()}
