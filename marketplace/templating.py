"""The templates, compiled once: everything that comes from definitions is escaped on its way into a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from headwater.dtypes import shown
from marketplace import display
from marketplace.facts import Unknown

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def link(kind: str, name: str) -> str:
    """The address of a page: link("views", "customer_spend")."""
    return f"/{kind}/{quote(name, safe='')}"


def filtered(**wanted: str) -> str:
    """The address of the list with filters; empty ones are left out."""
    chosen = {k: v for k, v in wanted.items() if v}
    return "/?" + urlencode(chosen) if chosen else "/"


def render(template: str, **values: Any) -> str:
    """The page as HTML. A name that a template uses and nobody gave is an error, not an empty place."""
    return _ENVIRONMENT.get_template(template).render(**values)


_ENVIRONMENT.globals.update(
    link=link,
    filtered=filtered,
    check_badge=display.check_badge,
    freshness_badge=display.freshness_badge,
    state_badge=display.state_badge,
    kind=display.kind,
    counted=display.counted,
    duration=display.duration,
    expectation=display.expectation,
    parameters=display.parameters,
    events_of=display.events_of,
    shown=shown,
)
_ENVIRONMENT.filters.update(moment=display.moment, iso=display.iso)
_ENVIRONMENT.tests["unknown"] = lambda value: isinstance(value, Unknown)
