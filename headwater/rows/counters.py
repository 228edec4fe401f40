"""What is counted of a view's events beside its rows: what left no trace in a value, so that a user can see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headwater.aggregations.numbers import scaled
from headwater.columns import Column
from headwater.events.select import Selected
from headwater.rows.layout import RowLayout

_LIMIT = 2.0**62


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts of one batch of a view's events; Redis adds them up by these names.

    Attributes:
        null_keys: events that passed `where` but have a null join key: they are in no row.
        derived_nulls: derived values that are null though all columns they are made of have one (past 64 bits,
            a division by zero).
        scaled_nulls: values that a sum or mean leaves out because they do not fit 64 bits when scaled.
    """

    null_keys: int = 0
    derived_nulls: int = 0
    scaled_nulls: int = 0

    @classmethod
    def of(cls, layout: RowLayout, selected: Selected) -> Counters:
        """The counts of selected events."""
        misfits = sum(_misfits(selected.columns[name], scale) for name, scale in layout.scaled)
        return cls(selected.null_keys, selected.derived_nulls, misfits)


def _misfits(column: Column, scale: int) -> int:
    values = column.values
    if not len(values) or max(-float(values.min()), float(values.max())) * 10.0**scale < _LIMIT:
        return 0
    return int(np.count_nonzero(column.mask() & ~scaled(column, scale).mask()))
