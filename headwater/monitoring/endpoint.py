"""GET /metrics, /health and /ready of a process that has a loop and no HTTP server of its own.

A thread beside the loop answers, so that a loop which stands still is seen from outside: what is asked here only
reads what the loop has noted. `headwater serve` answers /health and /ready itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from headwater.errors import MissingExtra
from headwater.serving.listening import address_of, listen

PATHS = ("/metrics", "/health", "/ready")


@dataclass(frozen=True)
class MonitorAddress:
    """Where to listen (port 0: a free one), and after how many seconds without a turn a loop counts as stalled."""

    host: str
    port: int
    stalled_after: float = 60.0


class Turns:
    """When a loop last turned. Called by the loop, read by the endpoint."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def turned(self) -> None:
        """The loop is at its start again, or waits for a server and asks it again and again."""
        self._last = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last turn."""
        return time.monotonic() - self._last


class Watched(Protocol):
    """What the endpoint shows. Both methods are called from its thread and must neither wait nor raise."""

    turns: Turns

    def collect(self) -> Iterable[Any]:
        """prometheus_client's metric families."""

    def not_ready(self) -> list[str]:
        """What is missing until it does its work, in words; empty where nothing is."""


@contextmanager
def monitored(watched: Watched, address: MonitorAddress | None) -> Iterator[str | None]:
    """Within, the endpoint answers; its address, or None where none was asked for.

    Raises:
        UsageError: the port is taken, or the host is none of this machine.
        MissingExtra: prometheus_client is not installed.
    """
    if address is None:
        yield None
        return
    server = _Server(watched, address)
    # Daemonic: a process that dies by an error must not live on as an endpoint.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield address_of(server.socket)
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, watched: Watched, address: MonitorAddress) -> None:
        self.watched, self.stalled_after = watched, address.stalled_after
        self.exposition = _Exposition(watched)
        listener = listen(address.host, address.port, "--metrics-host", "--metrics-port")
        self.address_family = listener.family
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""


class _Exposition:
    """Everything that is counted, in Prometheus's text format or OpenMetrics, as the client asks."""

    def __init__(self, watched: Watched) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector
            from prometheus_client.exposition import choose_encoder
        except ModuleNotFoundError as error:
            raise MissingExtra("prometheus-client", "monitoring", "--metrics-port") from error
        self._choose = choose_encoder
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Collector(watched))

    def __call__(self, accept: str) -> tuple[str, bytes]:
        encode, kind = self._choose(accept)
        return kind, encode(self._registry)


class _Collector:
    """What prometheus_client calls; `describe` is empty so that registering collects nothing."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def describe(self) -> Iterable[Any]:
        return []

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import GaugeMetricFamily

        from headwater import __version__

        yield from self._watched.collect()
        yield GaugeMetricFamily(
            "headwater_loop_age_seconds", "Seconds since the loop last turned.", self._watched.turns.age
        )
        info = GaugeMetricFamily("headwater_build_info", "Which Headwater this is.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "headwater", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/metrics":
            kind, body = self.server.exposition(self.headers.get("Accept", ""))
            self._answer(200, kind, body)
        elif path == "/health":
            self._health()
        elif path == "/ready":
            missing = self.server.watched.not_ready()
            self._json(503 if missing else 200, {"status": "not ready" if missing else "ready", "missing": missing})
        else:
            self._json(404, {"error": "Refused", "detail": f"No such path: {path}. There are: {', '.join(PATHS)}."})

    do_HEAD = do_GET

    def _health(self) -> None:
        age, limit = self.server.watched.turns.age, self.server.stalled_after
        if age <= limit:
            return self._json(200, {"status": "ok", "loop_age_seconds": round(age, 3)})
        detail = f"The loop has not turned for {age:.0f} s; {limit:g} s are allowed. Restart it: nothing is lost."
        return self._json(503, {"status": "stalled", "loop_age_seconds": round(age, 3), "detail": detail})

    def _json(self, status: int, content: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(content).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not a line for each scrape."""
