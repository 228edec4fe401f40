"""Which events a view takes, and with which columns: `derive`, `where`, and keys that are not null.

The same function on the stream, in backfill, in history and in the check, so that no path
can disagree about an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.events.batch import Events
from headwater.expressions.evaluate import evaluate
from headwater.expressions.syntax import Call, Expr, Literal, Ref
from headwater.plans.plan import StreamView


@dataclass(frozen=True, slots=True)
class Selected:
    """The events of one view.

    Attributes:
        keys: a column a join key, none of them null.
        columns: the source's and derived columns that features need.
        partition, offset, time: as in `Events`.
        index: where each stood in the batch that was selected from.
        null_keys: how many events passed `where` but had a null join key.
        derived_nulls: how many derived values are null though all columns they are made of have one
            (a division by zero, or a value past 64 bits).
    """

    keys: list[Column]
    columns: dict[str, Column]
    partition: NDArray[np.int64]
    offset: NDArray[np.int64]
    time: NDArray[np.int64]
    index: NDArray[np.int64]
    null_keys: int
    derived_nulls: int = 0

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Selected:
        """The events at `chosen`."""
        return Selected(
            [k.take(chosen) for k in self.keys],
            {n: c.take(chosen) for n, c in self.columns.items()},
            self.partition[chosen], self.offset[chosen], self.time[chosen], self.index[chosen],
            self.null_keys, self.derived_nulls,
        )  # fmt: skip

    def where(self, condition: Expr | None) -> NDArray[np.bool_]:
        """Where a feature's own condition is true (unknown is not true)."""
        return is_true(condition, self.columns, len(self))


def is_true(condition: Expr | None, columns: Mapping[str, Column], length: int) -> NDArray[np.bool_]:
    """Where a condition holds; no condition always holds."""
    if condition is None:
        return np.ones(length, np.bool_)
    result = evaluate(condition, columns, length)
    return result.values if result.valid is None else result.values & result.valid


def select(view: StreamView, events: Events) -> Selected:
    """The events that count in a view: `where` is true and no join key is null."""
    columns = dict(events.columns)
    derived_nulls = 0
    for derived in view.derive:
        columns[derived.name] = evaluate(derived.expr, columns, len(events))
        derived_nulls += _made_null(columns[derived.name], [columns[name] for name in refs(derived.expr)])
    passes = is_true(view.where, columns, len(events))
    keyed = passes.copy()
    for key in view.keys:
        valid = columns[key.name].valid
        if valid is not None:
            keyed &= valid
    index = np.flatnonzero(keyed)
    null_keys = int(np.count_nonzero(passes)) - len(index)
    needed = columns_of(view)
    whole = len(index) == len(events)
    return Selected(
        keys=[columns[k.name] if whole else columns[k.name].take(index) for k in view.keys],
        columns={n: c if whole else c.take(index) for n, c in columns.items() if n in needed},
        partition=events.partition if whole else events.partition[index],
        offset=events.offset if whole else events.offset[index],
        time=events.time if whole else events.time[index],
        index=index,
        null_keys=null_keys,
        derived_nulls=derived_nulls,
    )


def _made_null(column: Column, made_of: list[Column]) -> int:
    if column.valid is None:
        return 0
    null = ~column.valid
    for other in made_of:
        if other.valid is not None:
            null &= other.valid
    return int(np.count_nonzero(null))


def columns_of(view: StreamView) -> set[str]:
    """The source's and derived columns that the view's features read."""
    names = {f.column for f in view.features if f.column is not None}
    for f in view.features:
        names |= refs(f.where)
    return names


def source_columns(view: StreamView) -> set[str]:
    """The source's columns that a view reads in any way; what a scan of the lake has to bring."""
    names = columns_of(view) | refs(view.where) | {k.name for k in view.keys}
    for derived in view.derive:
        names |= refs(derived.expr)
    return names - {d.name for d in view.derive}


def refs(expr: Expr | None) -> set[str]:
    """The columns that an expression names."""
    match expr:
        case Ref():
            return {expr.name}
        case Call():
            return set().union(*(refs(a) for a in expr.args)) if expr.args else set()
        case Literal() | None:
            return set()
