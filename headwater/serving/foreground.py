"""An HTTP server in the foreground: `headwater serve` and `headwater catalog` listen, fail and stop in one way."""

from __future__ import annotations

import errno
import signal
import socket
from typing import Any

import uvicorn

from headwater.errors import UsageError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UsageError: the address is not one of this machine, or its port is taken or forbidden.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise UsageError(f"Cannot listen on {host}:{port}: {_advice(error)}") from error


def address_of(listener: socket.socket) -> str:
    """The address to open, such as http://127.0.0.1:8600: of all interfaces the loopback one."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


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


def _advice(error: OSError) -> str:
    # Python adds the address to the system's words, and the message has named it already.
    what = (error.strerror or str(error)).split(" (while")[0]
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{what}. Name an address of this machine with --host, such as 127.0.0.1 or 0.0.0.0."
    if error.errno == errno.EACCES:
        return f"{what}. Ports below 1024 are the administrator's; choose another port with --port."
    return f"{what}. Choose another port with --port (0 takes a free one)."
