"""Moments as people read them in messages: int64 microseconds since the epoch as RFC 3339."""

from __future__ import annotations

import numpy as np


def moment_text(at: int) -> str:
    """Microseconds since the epoch as text in UTC, such as 2011-12-09T12:50:00.000000Z; any int64."""
    return f"{np.datetime64(at, 'us')}Z"
