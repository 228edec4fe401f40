"""The JSON API: the same facts as the pages, for programs. `/api` documents it.

A number that is not known is null, and `unknown` says why, by the number's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from headwater.errors import nearest
from headwater.plans.plan import BatchView, Service, StreamView, View
from headwater.receipts.results import ViewCheck
from marketplace.display import check_badge, feature_conditions, iso, kind
from marketplace.facts import Facts, Unknown, ViewFacts
from marketplace.pages import latest_of, query_of
from marketplace.questions import service_features
from marketplace.search import search


def answer(data: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(data), status_code=status, media_type="application/json")


def with_facts(endpoint: Callable[[Request, Facts], Response]) -> Callable[[Request], Response]:
    """Answers 503 until the first facts are read."""

    def waiting(request: Request) -> Response:
        facts = latest_of(request).get()
        if facts is None:
            return answer({"error": "The definitions are being read; try again in some seconds."}, 503)
        return endpoint(request, facts)

    waiting.__name__ = f"api_{endpoint.__name__}"
    return waiting


@with_facts
def views(request: Request, facts: Facts) -> Response:
    """All views that match q, entity, owner and tag, best first."""
    found = search(facts.all_views(), query_of(request))
    listed = [_summary(v, facts.measured(v.name)) for v in found.views]
    return answer({**_head(facts), "replaced": found.replaced, "views": listed})


@with_facts
def view(request: Request, facts: Facts) -> Response:
    """One view with everything that is known of it."""
    name = request.path_params["name"]
    known = facts.view(name)
    if known is None:
        names = [v.name for v in facts.all_views()]
        return answer({"error": f"There is no view {name!r}. {nearest(name, names)}", "known": sorted(names)}, 404)
    consumers = [s.name for s in facts.consumers(name)]
    return answer({**_head(facts), **_detail(known, facts.measured(name)), "services": consumers})


@with_facts
def services(request: Request, facts: Facts) -> Response:
    """All services with their features."""
    return answer({**_head(facts), "services": [_service(s) for s in (facts.plan.services if facts.plan else ())]})


@with_facts
def unknown(request: Request, facts: Facts) -> Response:
    """Anything else under /api/."""
    known = ["/api/views", "/api/views/NAME", "/api/services"]
    return answer({"error": f"Nothing lies at {request.url.path}.", "known": known}, 404)


def health(request: Request) -> Response:
    """200 while pages can be shown: "ok", or "degraded" with what is away; 503 before the first reading and
    where the definitions can be read nowhere."""
    # Who asks gives up after a second or two; what is away must not look like a catalog that hangs.
    facts = latest_of(request).get(patience=0.5)
    if facts is None:
        return answer({"status": "starting"}, 503)
    if facts.plan_unknown is not None:
        return answer({"status": "unavailable", "problems": facts.problems}, 503)
    return answer({"status": "degraded" if facts.problems else "ok", "problems": facts.problems})


def _head(facts: Facts) -> dict[str, Any]:
    return {
        "project": facts.project,
        "origin": facts.origin,
        "measured_at": iso(facts.measured_at),
        "problems": facts.problems,
    }


def _summary(view: View, measured: ViewFacts) -> dict[str, Any]:
    fresh = measured.freshness
    said = {
        "state": measured.state,
        "lag": measured.lag,
        "freshness_ms": fresh if isinstance(fresh, Unknown) else fresh.ms,
        "freshness_measured_at": fresh if isinstance(fresh, Unknown) else iso(fresh.measured_at),
    }
    return {
        "view": view.name,
        "kind": kind(view),
        "entities": view.entities,
        "owner": view.owner,
        "description": view.description,
        "tags": view.tags,
        "features": len(view.outputs()),
        "freshness_target_ms": None if view.freshness is None else view.freshness / 1000,
        **{name: None if isinstance(fact, Unknown) else fact for name, fact in said.items()},
        "check": _check(measured.check),
        "unknown": {
            name: fact.reason for name, fact in {**said, "check": measured.check}.items() if isinstance(fact, Unknown)
        },
    }


def _check(check: ViewCheck | Unknown) -> dict[str, Any] | None:
    """The last check in the shape of `headwater check --json`, with its time and its one-line judgement."""
    if isinstance(check, Unknown):
        return None
    return {
        "checked_at": iso(check.checked_at),
        "result": check_badge(check).text,
        "receipts": {"drawn": check.drawn, "equal": check.drawn_equal},
        "recomputed": {"compared": check.compared, "equal": check.compared_equal},
        "differences": check.differences,
        "examples": msgspec.to_builtins(check.examples),
    }


def _detail(view: StreamView | BatchView, measured: ViewFacts) -> dict[str, Any]:
    """The summary, with keys, schema, windows and expectations; durations in microseconds."""
    detail = _summary(view, measured) | {
        "keys": msgspec.to_builtins(view.keys),
        "state_hash": view.state_hash,
        "expectations": [_expectation(e) for e in msgspec.to_builtins(view.expectations)],
    }
    if isinstance(view, BatchView):
        return detail | {"sql": view.sql, "ttl_us": view.ttl, "schema": msgspec.to_builtins(view.features)}
    return detail | {
        "source": view.source,
        "where": view.where_text or None,
        "derive": view.derive_text,
        "ttl_us": view.ttl,
        "schema": _windowed(view),
    }


def _windowed(view: StreamView) -> list[dict[str, Any]]:
    conditions = feature_conditions(view)
    return [
        {
            "name": f.name, "function": f.function, "column": f.column, "dtype": f.dtype,
            "window_us": f.window, "hop_us": f.hop, "where": conditions.get(f.name),
            "n": f.n, "limit": f.limit, "q": f.q, "length": f.length,
        }
        for f in view.features
    ]  # fmt: skip


def _expectation(rule: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in rule.items() if v is not None and v != ()}


def _service(service: Service) -> dict[str, Any]:
    return {
        "service": service.name,
        "owner": service.owner,
        "description": service.description,
        "tags": service.tags,
        "features": service_features(service),
    }
