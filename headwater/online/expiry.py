"""How long a windowed row lives in Redis after a write (stream.md, 3): writers set it, the check explains it."""

from __future__ import annotations

from headwater.durations import DAY
from headwater.online.published import Fill
from headwater.plans.plan import StreamView

MARGIN = 7 * DAY
_FOR_EVER = 1000 * 365 * DAY // 1000
"""Milliseconds. A topic that is to keep everything may say so with the largest integer, which Redis does not take."""


def expiry_of(view: StreamView, fill: Fill) -> int | None:
    """Milliseconds from the write: longest window, its hop, the topic's retention and 7 days.

    None for ever: a lifetime window, or a topic that keeps everything (or a thousand years). Counted from
    the write's wall clock, since an expiry at event time would delete a replay of old events at once.
    """
    if not 0 <= fill.retention_ms < _FOR_EVER or any(f.window is None for f in view.features):
        return None
    longest = max(window + hop for hop, window in view.hops().items())
    return (longest + MARGIN) // 1000 + fill.retention_ms
