"""What was known when: a read restricted, row by row, to what had arrived in the lake by then.

Rows are grouped by which arrivals they may see (the sink stamps a batch at once, so there
are few), and each group is answered from that part of the log alone. Slower than the plain
read, and the same code computes the values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.events.batch import concat_columns

Answer = Callable[[NDArray[np.int64], NDArray[np.int64]], Sequence[Column]]
"""(indices of the rows of the log that may be seen, indices of questions) -> columns, a row a question."""


def answer_by_arrival(arrived: NDArray[np.int64], known_by: Column, answer: Answer) -> list[Column]:
    """Columns, a row a question, each from the rows of the log with arrived <= its `known_by` (null: all).

    `arrived` and `known_by` are int64 microseconds.
    """
    moments = np.unique(arrived)
    seen = np.searchsorted(moments, known_by.values, "right")
    if known_by.valid is not None:
        seen = np.where(known_by.valid, seen, len(moments))
    order = np.argsort(seen, kind="stable")
    parts = []
    for rows in np.split(order, np.flatnonzero(np.diff(seen[order])) + 1):
        known = int(seen[rows[0]]) if len(rows) else 0
        visible = np.flatnonzero(arrived <= moments[known - 1]) if known else np.empty(0, np.int64)
        parts.append(answer(visible, rows))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return [concat_columns(columns).take(back) for columns in zip(*parts, strict=True)]
