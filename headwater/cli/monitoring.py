"""The options by which commands that run for long are watched. Apart from them because they share them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.monitoring.endpoint import MonitorAddress

_OPTIONS = (
    click.option("--metrics-port", type=click.IntRange(0, 65535), metavar="PORT",
                 help="Answer /metrics (Prometheus), /health and /ready on this port; 0: a free one."),
    click.option("--metrics-host", metavar="HOST", help="The address for --metrics-port to listen on. Default: 127.0.0.1."),
    click.option("--stalled-after", type=click.FloatRange(1), metavar="SECONDS",
                 help="/health answers 503 when the loop has not turned for so long. Default: 60."),
)  # fmt: skip


def monitored(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options; the command gets `monitor`: where to answer (a MonitorAddress), None where nobody asked."""

    @wraps(command)
    def with_monitor(
        *args: Any, metrics_port: int | None, metrics_host: str | None, stalled_after: float | None, **kwargs: Any
    ) -> None:
        command(*args, monitor=_address(metrics_port, metrics_host, stalled_after), **kwargs)

    found: Callable[..., None] = with_monitor
    for option in reversed(_OPTIONS):
        found = option(found)
    return found


def _address(port: int | None, host: str | None, stalled_after: float | None) -> MonitorAddress | None:
    if port is None:
        for name, value in (("--metrics-host", host), ("--stalled-after", stalled_after)):
            if value is not None:
                raise UsageError(f"{name} needs --metrics-port: without it nothing is answered.")
        return None
    from headwater.monitoring.endpoint import MonitorAddress

    return MonitorAddress(host or "127.0.0.1", port, stalled_after or 60.0)
