"""value(q) = aggregate of the events with floor(q - W, h) <= event_time < q.

Times are int64 microseconds since the epoch, UTC. The hop h depends only on the window W
and is frozen in the definition; it never depends on when something ran.
"""

from __future__ import annotations

from headwater.durations import DAY, HOUR, MINUTE

LIFETIME_START = -(2**63)
"""Where the lifetime window (`over="all"`) starts."""


def hop_of(window: int) -> int:
    """The hop of a window when the definition names none (both in microseconds)."""
    if window < 12 * HOUR:
        return 5 * MINUTE
    return HOUR if window < 12 * DAY else DAY


def floor_to(time: int, hop: int) -> int:
    """The greatest multiple of `hop` that is not after `time`; right for negative times too."""
    return time // hop * hop


def window_start(at: int, window: int | None, hop: int | None) -> int:
    """The first event time that a window read at `at` holds (`window` None: the lifetime window)."""
    if window is None or hop is None:
        return LIFETIME_START
    return floor_to(at - window, hop)


def effective_time(as_of: int, newest: int | None) -> int:
    """The time a read really has: a window is open at its end, so the newest event must lie before it."""
    return as_of if newest is None else max(as_of, newest + 1)
