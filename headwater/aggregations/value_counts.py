"""How often each value came, exact up to a bound: what top_k counts.

Counts add up, so a state a tile is needed, unlike in distinct_values.py. A state of more than `limit` values is the
word MORE and stays it through merges: a window that holds it holds more than `limit` values, so its answer is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Ints, Runs, States, as_bytes, from_bytes, objects_of
from headwater.aggregations.numbers import from_ordered, to_ordered
from headwater.aggregations.recorded import Recorded
from headwater.aggregations.records import Records, added, merged, pack, ranks, unpack
from headwater.columns import Column, codes_of
from headwater.dtypes import FIXED, counts_of

MORE = b"\xff" * 8
"""The state of more values than the limit."""
_VALUE, _COUNT = 0, 1


@dataclass(frozen=True)
class ValueCounts(Recorded):
    """Records by rising values, or MORE; `most` is the limit.

    A record is the value as an integer that sorts alike, and its count; of strings and bytes the count and the
    value's length, and the value behind the records.
    """

    def reduce(self, runs: Runs) -> States:
        """The counts of each run."""
        column = runs.column(self.column)
        position, run = runs.counted(self.where, column)
        values, texts = runs.remember(("ordered", self.column), lambda: _ordered(column))
        words = np.stack([values[runs.order[position]], np.ones(len(run), np.int64)], axis=1)
        return self._packed(added(Records(run, words)), texts, len(runs.starts))

    def merge_runs(self, states: States, starts: Ints) -> States:
        """The counts of each run of states."""
        (records,), texts, more = self._taken(states)
        run = np.searchsorted(starts, records.row, "right") - 1
        return self._packed(
            added(Records(run, records.words)), texts, len(starts), np.logical_or.reduceat(more, starts)
        )

    def merge(self, old: States, new: States) -> States:
        """The counts of both."""
        (a, b), texts, more = self._taken(old, new)
        return self._packed(merged(a, b, len(new.words), (_VALUE,), _COUNT, np.add), texts, len(new.words), more)

    def top(self, states: States, n: int) -> Column:
        """The n values that came most often with their counts, by count falling, then by value rising; null for MORE."""
        (records,), texts, more = self._taken(states)
        words = records.words
        # Values rise, and the sort is stable.
        order = np.lexsort((~words[:, _COUNT], records.row))
        order = order[ranks(records.row) < n]
        values, counts = self._values(words[order, _VALUE], texts), words[order, _COUNT].tolist()
        pairs = [[v, c] for v, c in zip(values, counts, strict=True)]
        ends = np.cumsum(np.bincount(records.row[order], minlength=len(more))).tolist()
        lists = [pairs[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        found = Column.of(counts_of(self.dtype), lists)
        return Column(found.dtype, found.values, ~more) if more.any() else found

    def state_of(self, counts: Sequence[Sequence[tuple[Any, int]] | None]) -> States:
        """States of (value, count) pairs, each value once, in any order; None for MORE: what a SQL engine returns."""
        flat = [pair for pairs in counts for pair in pairs or ()]
        row = np.repeat(np.arange(len(counts)), [len(pairs or ()) for pairs in counts])
        values, texts = _ordered(Column.of(self.dtype, [v for v, _ in flat]))
        words = np.stack([values, np.array([n for _, n in flat], np.int64)], axis=1)
        more = np.array([pairs is None for pairs in counts], np.bool_)
        return self._packed(added(Records(row, words)), texts, len(counts), more)

    def _taken(self, *parts: States) -> tuple[list[Records], list[bytes], NDArray[np.bool_]]:
        """Records of (value, count) of each part, without states that are MORE; the texts by value; which are MORE."""
        held = [p.objects for p in parts if p.objects is not None]
        more = np.logical_or.reduce([np.fromiter((p == MORE for p in h.tolist()), np.bool_, len(h)) for h in held])
        if more.any():
            held = [objects_of([None if p == MORE else p for p in h.tolist()]) for h in held]
        found = [unpack(h, 2, valued=not self.fixed) for h in held]
        return (found, [], more) if self.fixed else (*_numbered(found), more)

    def _packed(self, records: Records, texts: list[bytes], n: int, more: NDArray[np.bool_] | None = None) -> States:
        many = np.bincount(records.row, minlength=n) > self.most
        more = many if more is None else many | more
        if more.any():
            records = records.take(~more[records.row])
        if not self.fixed:
            values = objects_of([texts[v] for v in records.words[:, _VALUE].tolist()])
            lengths = np.fromiter(map(len, values.tolist()), np.int64, len(values))
            records = Records(records.row, np.stack([records.words[:, _COUNT], lengths], axis=1), values)
        packed = pack(records, n)
        packed[more] = MORE
        return States(np.zeros((n, 1), np.int64), packed)

    def _values(self, values: Ints, texts: list[bytes]) -> list[Any]:
        if not self.fixed:
            return [from_bytes(texts[v], self.dtype) for v in values.tolist()]
        found: list[Any] = from_ordered(np.ascontiguousarray(values), self.dtype).tolist()
        return found


def _ordered(column: Column) -> tuple[Ints, list[bytes]]:
    """An integer for each value that sorts alike; of strings and bytes it is the place in the texts, which rise."""
    if column.dtype in FIXED:
        return to_ordered(column.values, column.dtype), []
    distinct, codes = codes_of(column)
    return _risen([as_bytes(v) for v in distinct], codes)


def _numbered(parts: Sequence[Records]) -> tuple[list[Records], list[bytes]]:
    """Records of (count, length) and a value as records of (place in the texts, count); and the texts."""
    known: dict[bytes, int] = {}
    items = [v for p in parts if p.values is not None for v in p.values.tolist()]
    codes = np.fromiter((known.setdefault(v, len(known)) for v in items), np.int64, len(items))
    places, texts = _risen(list(known), codes)
    ends = np.cumsum([len(p) for p in parts])[:-1]
    return [
        Records(p.row, np.stack([places_of, p.words[:, 0]], axis=1))
        for p, places_of in zip(parts, np.split(places, ends), strict=True)
    ], texts


def _risen(texts: list[bytes], codes: Ints) -> tuple[Ints, list[bytes]]:
    """Codes of texts as places in the sorted texts, and these."""
    order = sorted(range(len(texts)), key=texts.__getitem__)
    places = np.empty(len(texts), np.int64)
    places[order] = np.arange(len(texts))
    return places[codes], [texts[i] for i in order]
