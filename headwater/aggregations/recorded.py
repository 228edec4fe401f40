"""What components share whose states are packed records of one column's values (records.py).

Apart from records.py, which knows bytes and no components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headwater.aggregations.components import States
from headwater.aggregations.records import Records, pack
from headwater.dtypes import FIXED, Dtype
from headwater.expressions.syntax import Expr


@dataclass(frozen=True)
class Recorded:
    """1 word that stands for packed records, None while there is no value.

    Attributes:
        most: how many values a state holds at most.
    """

    column: str
    dtype: Dtype
    most: int
    where: Expr | None = None
    width: ClassVar[int] = 1
    variable: ClassVar[bool] = True
    empty: ClassVar[tuple[int, ...]] = (0,)

    @property
    def fixed(self) -> bool:
        """Whether a value fits a word; strings and bytes do not."""
        return self.dtype in FIXED


def packed_states(records: Records, n: int) -> States:
    """The states of n runs or tiles, of which these are the records."""
    return States(np.zeros((n, 1), np.int64), pack(records, n))
