"""Runs the application on uvicorn. Apart from asgi.py because the extra `serve` is needed here alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headwater.online.connection import connect_ready
from headwater.receipts.log import ReceiptLog
from headwater.serving.asgi import Application
from headwater.serving.foreground import run_until_stopped
from headwater.serving.listening import address_of, listen


def serve(
    redis_url: str, project: str, host: str, port: int, announce: Callable[[str], None], receipts: tuple[Path, float]
) -> None:
    """Serve until a signal ends it. `announce` is told warnings and, once requests are taken, the address.

    `receipts`: the folder that receipts are kept in, and of which share of all keys.

    Raises:
        Unreachable: Redis is away at the start. Later it may go and come: requests get 503 meanwhile.
        UsageError: the port is taken.
    """
    connection, warnings = connect_ready(redis_url)
    connection.close()
    listener = listen(host, port)
    for warning in warnings:
        announce(f"Warning: {warning}")
    announce(f"Serving features of '{project}' on {address_of(listener)}  (Ctrl-C stops it)")
    log = ReceiptLog(*receipts) if receipts[1] > 0 else None
    run_until_stopped(Application(redis_url, project, log), listener, lifespan="on")
