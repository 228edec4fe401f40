"""Durations as people write them: "5m", "1h", "30d". Inside they are int64 microseconds.

Apart from the window law because definitions, the command line and configuration parse
them too, at their borders and nowhere else.
"""

from __future__ import annotations

import re

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


def parse_duration(text: str) -> int:
    """Microseconds of a duration such as "90s", "5m", "12h" or "30d".

    Raises:
        ValueError: not a positive whole number followed by s, m, h or d, or over 100 years.
    """
    match = re.fullmatch(r"(\d{1,10})([smhd])", text) if isinstance(text, str) else None
    micros = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < micros <= 36_500 * DAY:
        raise ValueError(f"expected a duration such as '90s', '5m', '12h' or '30d' (at most 36500d), got {text!r}")
    return micros


def format_duration(micros: int) -> str:
    """The shortest text that `parse_duration` reads back to the same microseconds; "12h" stays "12h"."""
    for unit in ("d", "h", "m", "s"):
        if micros % _UNITS[unit] == 0:
            return f"{micros // _UNITS[unit]}{unit}"
    return f"{micros}us"
