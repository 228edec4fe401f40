"""The state of an approximate distinct count: a packed set of hashes, or registers, of any length."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from headwater.aggregations.approx_distinct import hashes, merge, pack
from headwater.aggregations.components import Ints, Runs, States, objects_of
from headwater.expressions.syntax import Expr


@dataclass(frozen=True)
class HashSet:
    """1 word that stands for the packed set (approx_distinct.py); None while it is empty."""

    column: str
    where: Expr | None = None
    width: ClassVar[int] = 1
    variable: ClassVar[bool] = True
    empty: ClassVar[tuple[int, ...]] = (0,)

    def reduce(self, runs: Runs) -> States:
        """The packed set of each run."""
        hashed, valid = hashes(runs.column(self.column))
        hashed, mask = hashed[runs.order], valid[runs.order]
        where = runs.mask(self.where, None)
        mask = mask if where is None else mask & where
        run = np.zeros(len(hashed), np.int64)
        run[runs.starts[1:]] = 1
        run = np.cumsum(run)
        run, hashed = run[mask], hashed[mask]
        order = np.lexsort((hashed, run))
        run, hashed = run[order], hashed[order]
        first = np.ones(len(run), np.bool_)
        first[1:] = (run[1:] != run[:-1]) | (hashed[1:] != hashed[:-1])
        run, hashed = run[first], hashed[first]
        cuts = np.searchsorted(run, np.arange(len(runs.starts) + 1)).tolist()
        found = [pack(hashed[a:b]) if b > a else None for a, b in pairwise(cuts)]
        return States(np.zeros((len(found), 1), np.int64), objects_of(found))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The union of each run."""
        assert states.objects is not None
        items, ends = states.objects.tolist(), [*starts[1:].tolist(), len(states.words)]
        found = [_union(items[a:b]) for a, b in zip(starts.tolist(), ends, strict=True)]
        return States(np.zeros((len(found), 1), np.int64), objects_of(found))

    def merge(self, old: States, new: States) -> States:
        """The union of two."""
        assert old.objects is not None
        assert new.objects is not None
        found = [_union([a, b]) for a, b in zip(old.objects.tolist(), new.objects.tolist(), strict=True)]
        return States(old.words, objects_of(found))


def _union(packed: list[bytes | None]) -> bytes | None:
    present = [p for p in packed if p]
    return merge(present) if present else None
