"""How long a windowed row lives in Redis after a write (stream.md, 3): writers set it, the check explains it."""

from __future__ import annotations

from headwater.durations import DAY
from headwater.online.published import Fill
from headwater.plans.plan import StreamView

MARGIN = 7 * DAY


def expiry_of(view: StreamView, fill: Fill) -> int | None:
    """Milliseconds from the write: longest window, its hop, the topic's retention and 7 days.

    None for ever: a lifetime window, or a topic that keeps everything. Counted from the write's wall
    clock, since an expiry at event time would delete a replay of old events at once.
    """
    if fill.retention_ms < 0 or any(f.window is None for f in view.features):
        return None
    longest = max(window + hop for hop, window in view.hops().items())
    return (longest + MARGIN) // 1000 + fill.retention_ms
