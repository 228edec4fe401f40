"""Runs the application on uvicorn. Apart from asgi.py because the extra `serve` is needed here alone."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from headwater.errors import UsageError
from headwater.online.connection import connect_ready
from headwater.serving.asgi import Application


def serve(redis_url: str, project: str, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until a signal ends it. `announce` is told warnings and, once requests are taken, the address.

    Raises:
        Unreachable: Redis is away at the start. Later it may go and come: requests get 503 meanwhile.
        UsageError: the port is taken.
    """
    connection, warnings = connect_ready(redis_url)
    connection.close()
    listener = _listen(host, port)
    for warning in warnings:
        announce(f"Warning: {warning}")
    shown = f"[{host}]" if ":" in host else host
    announce(f"Serving features of '{project}' on http://{shown}:{listener.getsockname()[1]}")
    config = uvicorn.Config(Application(redis_url, project), log_level="warning", access_log=False, lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise UsageError(
            f"Cannot serve on {host}:{port}: {error.strerror or error}. Choose another with --port (0: any free one)."
        ) from error
