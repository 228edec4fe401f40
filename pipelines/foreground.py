"""What the long-running commands share: stopping on SIGTERM and Ctrl-C, and answering who watches them."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from headwater.monitoring.endpoint import MonitorAddress, monitored
from headwater.monitoring.logs import log_to_stderr, say
from headwater.monitoring.signals import stopped_by_signals
from pipelines.loop_metrics import LoopMetrics

__all__ = ["as_a_worker", "log_to_stderr", "metrics_of", "stopped_by_signals"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""As malloc.h has them."""


@contextmanager
def as_a_worker() -> Iterator[None]:
    """Within, the process is a worker and nothing else.

    Tuples and lists of a batch die by reference count, and the collector would only walk the caches. The thread that
    sends rows must not wait 5 ms for the interpreter, Python's own interval: that is half of an event's way. And what
    a batch frees is kept for the next one, since clearing new pages takes a quarter of a worker's time.
    """
    _keep_freed_memory()
    collecting, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collecting:
            gc.enable()


def _keep_freed_memory() -> None:
    """Tell glibc's malloc, where it is that, to take pieces of up to 32 MB from the heap and not to give back its end."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 512 << 20)


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
