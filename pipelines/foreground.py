"""What the long-running commands share: stopping on SIGTERM and Ctrl-C, and answering who watches them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headwater.monitoring.endpoint import MonitorAddress, monitored
from headwater.monitoring.logs import log_to_stderr, say
from pipelines.loop_metrics import LoopMetrics

__all__ = ["log_to_stderr", "metrics_of", "stopped_by_signals"]


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within, SIGTERM and SIGINT call `stop` instead of ending the process."""
    before = {s: signal.signal(s, lambda *_: stop()) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def metrics_of(metrics: LoopMetrics, address: MonitorAddress | None) -> Iterator[None]:
    """Within, /metrics, /health and /ready are answered, where an address is given.

    Raises:
        UsageError: the port is taken.
    """
    with monitored(metrics, address) as at:
        if at is not None:
            metrics.watch_lag()
            say(f"Metrics: {at}/metrics, and /health and /ready beside it.")
        yield
