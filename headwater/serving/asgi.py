"""The server as a bare ASGI application: routes, limits, health, and errors as statuses.

The one place where Headwater's errors become HTTP statuses: 400 wrong use, 404 a name that is not there,
405, 413, 503 what may be there later (Redis away, no plan, view not filled), 500 a value that cannot be read.
The core below knows no HTTP. Frameworks are left out because they cost more than the whole read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec
import orjson
from hiredis import pack_command

from headwater.errors import HeadwaterError, ReadError, Unavailable, UnknownName, Unreachable, UsageError
from headwater.online.feature_rows import FeatureRows
from headwater.online.keys import fill_key
from headwater.online.plan_store import source_of
from headwater.online.published import decode_fill
from headwater.online.read_plan import Entities
from headwater.online.reads import FeatureReads, Time, read_times
from headwater.plans.plan import StreamView
from headwater.receipts.log import ReceiptLog
from headwater.serving import feast_api, own_api
from headwater.serving.async_connection import AsyncConnection

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 16 << 20
"""Bytes of a request: about a million entities."""

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (UnknownName, 404), (UsageError, 400), (msgspec.DecodeError, 400),
    (Unavailable, 503), (Unreachable, 503), (ReadError, 500), (HeadwaterError, 500),
)  # fmt: skip
_log = logging.getLogger("headwater.serve")


class _Refused(Exception):
    """A request that is refused before it is looked into."""

    def __init__(self, status: int, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status, self.headers = status, list(headers)


class Application:
    """Serves one project's features; holds one connection to Redis.

    GET /health says whether Redis answers; GET /ready whether features can be read. `receipts` is where receipts of
    what is served are kept; None keeps none.
    """

    def __init__(self, redis_url: str, project: str, receipts: ReceiptLog | None = None) -> None:
        self._redis = AsyncConnection(redis_url)
        self._reads = FeatureReads(project)
        self._receipts = receipts
        self._loaded_at = time.monotonic()
        self._seen_plan: str | None = None
        self._routes: dict[str, tuple[str, Callable[[bytes], Awaitable[tuple[int, bytes]]]]] = {
            "/get-online-features": ("POST", self._feast),
            "/v1/features": ("POST", self._own),
            "/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            status, body, headers = await self._answer(scope, receive)
            length = (b"content-length", str(len(body)).encode())
            start = [(b"content-type", b"application/json"), length, *headers]
            await send({"type": "http.response.start", "status": status, "headers": start})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        try:
            handler = self._route(scope["method"], scope["path"])
            return *(await handler(await _body(receive))), []
        except _Refused as refused:
            return refused.status, _problem("Refused", str(refused)), refused.headers
        except (HeadwaterError, msgspec.DecodeError) as error:
            status = next(status for kind, status in _STATUSES if isinstance(error, kind))
            return status, _problem(type(error).__name__, str(error)), []
        except Exception:
            # The outermost loop of a request: one that meets a defect must not take the server with it.
            _log.exception("%s %s failed", scope["method"], scope["path"])
            return 500, _problem("InternalError", "The server met a defect; its log has the details."), []

    def _route(self, method: str, path: str) -> Callable[[bytes], Awaitable[tuple[int, bytes]]]:
        if path not in self._routes:
            raise _Refused(404, f"No such path: {path}. There are: {', '.join(self._routes)}.")
        allowed, handler = self._routes[path]
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            raise _Refused(405, f"{path} takes {allowed}, not {method}.", [(b"allow", allowed.encode())])
        return handler

    async def _feast(self, body: bytes) -> tuple[int, bytes]:
        request = feast_api.decode(body)
        # As Feast: where a service is named, `features` is not looked at.
        features = () if request.feature_service else request.features
        rows = await self._read(request.entities, features, request.feature_service, request.as_of, request.receipts)
        return 200, feast_api.encode(rows, request)

    async def _own(self, body: bytes) -> tuple[int, bytes]:
        asked = own_api.decode(body)
        rows = await self._read(asked.entities, asked.features, asked.service, asked.as_of, asked.receipts)
        return 200, own_api.encode(rows)

    async def _read(
        self,
        entities: Entities,
        features: Sequence[str],
        service: str | None,
        as_of: Time | Sequence[Time] | None,
        receipts: bool,
    ) -> FeatureRows:
        times, drawn = read_times(as_of, time.time_ns() // 1_000), receipts or self._receipts is not None
        steps = self._reads.steps(entities, features=features, service=service, as_of=times, receipts=drawn)
        try:
            raw, count = next(steps)
            while True:
                raw, count = steps.send(await self._redis.ask(raw, count))
        except StopIteration as done:
            rows: FeatureRows = done.value
        if self._receipts is not None:
            await self._keep(self._receipts, rows)
            if not receipts:
                rows.receipts = {}
        return rows

    async def _keep(self, log: ReceiptLog, rows: FeatureRows) -> None:
        """Keep what is sampled of the receipts; those of a fill that is gone by now prove nothing any more."""
        published = self._reads.published
        for view, fill in log.unknown(rows.receipts):
            active = published.active.get(view) if published is not None else None
            if (
                published is None
                or active is None
                or active.fill != fill
                or not isinstance(active.definition, StreamView)
            ):
                continue
            source = source_of(published, active.definition)
            (record,) = await self._redis.ask(pack_command((b"GET", fill_key(published.plan.project, view, fill))), 1)
            if source is not None and isinstance(record, bytes):
                log.learn(decode_fill(record), active.definition, source)
        log.keep(receipt for some in rows.receipts.values() for receipt in some)

    async def _health(self, _: bytes) -> tuple[int, bytes]:
        try:
            await self._load()
        except (Unreachable, Unavailable) as error:
            away = isinstance(error, Unreachable)
            status = {"status": "unavailable" if away else "ok", "redis": not away, "plan": None, "detail": str(error)}
            return 503 if away else 200, orjson.dumps(status)
        age = round(time.monotonic() - self._loaded_at, 3)
        return 200, orjson.dumps({"status": "ok", "redis": True, "plan": self._seen_plan, "plan_age_seconds": age})

    async def _ready(self, _: bytes) -> tuple[int, bytes]:
        await self._load()
        assert self._reads.published is not None
        views = sorted(self._reads.published.active)
        return 200 if views else 503, orjson.dumps(
            {"status": "ready" if views else "no view is filled", "views": views}
        )

    async def _load(self) -> None:
        """Load the plan as it is now; note since when this server has known it."""
        steps = self._reads.load()
        try:
            raw, count = next(steps)
            while True:
                raw, count = steps.send(await self._redis.ask(raw, count))
        except StopIteration:
            pass
        assert self._reads.published is not None
        if self._reads.published.id != self._seen_plan:
            self._seen_plan, self._loaded_at = self._reads.published.id, time.monotonic()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self._redis.close()
                if self._receipts is not None:
                    self._receipts.close()
                return


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > MAX_BODY:
            raise _Refused(413, f"The request is longer than {MAX_BODY} bytes; ask for fewer entities at once.")
        parts.append(part)
    return b"".join(parts)


def _problem(kind: str, message: str) -> bytes:
    return orjson.dumps({"error": kind, "detail": message})
