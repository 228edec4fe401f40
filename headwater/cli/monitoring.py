"""The options by which commands that run for long are watched. Apart from them because they share them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.monitoring.endpoint import MonitorAddress


def monitored(stalled_after: float = 60) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options; the command gets `monitor`: where to answer (a MonitorAddress), None where nobody asked.

    `stalled_after`: seconds without a turn after which a loop counts as stalled, unless the user says otherwise.
    """
    options = (
        click.option("--metrics-port", type=click.IntRange(0, 65535), metavar="PORT",
                     help="Answer /metrics (Prometheus), /health and /ready on this port; 0: a free one."),
        click.option("--metrics-host", metavar="HOST",
                     help="The address for --metrics-port to listen on. Default: 127.0.0.1."),
        click.option("--stalled-after", "after", type=click.FloatRange(1), metavar="SECONDS",
                     help=f"/health answers 503 when the loop has not turned for so long. Default: {stalled_after:g}."),
    )  # fmt: skip

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_monitor(
            *args: Any, metrics_port: int | None, metrics_host: str | None, after: float | None, **kwargs: Any
        ) -> None:
            command(*args, monitor=_address(metrics_port, metrics_host, after, stalled_after), **kwargs)

        found: Callable[..., None] = with_monitor
        for option in reversed(options):
            found = option(found)
        return found

    return add


def _address(port: int | None, host: str | None, after: float | None, default: float) -> MonitorAddress | None:
    if port is None:
        for name, value in (("--metrics-host", host), ("--stalled-after", after)):
            if value is not None:
                raise UsageError(f"{name} needs --metrics-port: without it nothing is answered.")
        return None
    from headwater.monitoring.endpoint import MonitorAddress

    return MonitorAddress(host or "127.0.0.1", port, after or default)
