"""An HTTP server in the foreground: `headwater serve` and `headwater catalog` listen, and stop in one way."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn


def run_until_stopped(app: Any, listener: socket.socket, **settings: Any) -> None:
    """Serve until Ctrl-C or SIGTERM, which end it in order: requests that have begun are answered."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, **settings))
    # uvicorn raises the signal again when it is done; it has been obeyed by then.
    before = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
