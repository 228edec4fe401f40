"""Truncation of times in UTC: to fixed lengths by integers, to months and years by the calendar.

Apart from `evaluate.py` because it is the one place where the calendar (proleptic Gregorian, as in
DuckDB and Spark) comes in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.durations import DAY, HOUR, MINUTE

_FIXED = {"minute": (MINUTE, 0), "hour": (HOUR, 0), "day": (DAY, 0), "week": (7 * DAY, 4 * DAY)}
"""Unit -> its length and where one begins: 1970-01-05 was a Monday."""


def truncate(unit: str, micros: NDArray[Any]) -> NDArray[np.int64]:
    """The start of the unit that each time lies in, microseconds since the epoch, UTC."""
    if unit in _FIXED:
        size, origin = _FIXED[unit]
        start: NDArray[np.int64] = micros - (micros - origin) % size
        return start
    whole = micros.astype("datetime64[us]").astype("datetime64[M]" if unit == "month" else "datetime64[Y]")
    return whole.astype("datetime64[us]").astype(np.int64)
