"""The catalog as a Starlette application: the routes, and what holds for every response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.repository import load_repository
from marketplace import api, pages
from marketplace.facts import FactReader
from marketplace.latest import LatestFacts
from marketplace.stores import StoreFacts

_HEADERS = [
    # Pages load nothing from elsewhere; should escaping ever fail, this keeps a script from running.
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
     b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]  # fmt: skip


def repository_app(start: str) -> Starlette:
    """The catalog of the repository at `start`."""
    return make_app(StoreFacts(lambda: load_repository(start)))


def make_app(reader: FactReader, *, max_age: float = 2.0, patience: float = 3.0) -> Starlette:
    """The catalog over any reader of facts.

    Args:
        max_age: seconds that facts are shown without reading them again.
        patience: seconds that a page waits for facts before it shows older ones.
    """
    latest = LatestFacts(reader, max_age=max_age, patience=patience)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        latest.start()
        yield
        latest.close()

    app = Starlette(routes=_routes(), lifespan=lifespan, middleware=[Middleware(Headers)],
                    exception_handlers={404: pages.not_found, 500: pages.broken})  # fmt: skip
    app.state.latest = latest
    return app


class Headers:
    """Adds the headers that every response carries."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request: its response starts with the headers added."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _routes() -> list[Route | Mount]:
    return [
        Route("/", pages.home),
        Route("/views", _to_home),
        Route("/views/{name}", pages.view_page),
        Route("/services", pages.services),
        Route("/services/{name}", pages.service_page),
        Route("/sources", pages.sources),
        Route("/sources/{name}", pages.source_page),
        Route("/health", api.health),
        Route("/api", pages.api_page),
        Route("/api/views", api.views),
        Route("/api/views/{name}", api.view),
        Route("/api/services", api.services),
        Route("/api/{rest:path}", api.unknown),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


def _to_home(request: Request) -> Response:
    return Response(status_code=307, headers={"location": "/"})
