"""A listening socket, and what to say where there can be none: for every command that answers HTTP.

Apart from foreground.py, which needs uvicorn.
"""

from __future__ import annotations

import errno
import socket

from headwater.errors import UsageError


def listen(host: str, port: int, host_option: str = "--host", port_option: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes a free one. The options are those that a message advises to change.

    Raises:
        UsageError: the address is not one of this machine, or its port is taken or forbidden.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        advice = _advice(error, host_option, port_option)
        raise UsageError(f"Cannot listen on {host}:{port}: {advice}") from error


def address_of(listener: socket.socket) -> str:
    """The address to open, such as http://127.0.0.1:8600: of all interfaces the loopback one."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def _advice(error: OSError, host_option: str, port_option: str) -> str:
    # Python adds the address to the system's words, and the message has named it already.
    what = (error.strerror or str(error)).split(" (while")[0]
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{what}. Name an address of this machine with {host_option}, such as 127.0.0.1 or 0.0.0.0."
    if error.errno == errno.EACCES:
        return f"{what}. Ports below 1024 are the administrator's; choose another port with {port_option}."
    return f"{what}. Choose another port with {port_option} (0 takes a free one)."
