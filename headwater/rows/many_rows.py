"""The values of many rows' windows: column by column, each numpy call over all rows.

Apart from one_row.py, which does the same for one row by scalars; both give the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.components import Component, Ints, States, objects_of
from headwater.aggregations.numbers import LOW, from_ordered, quotients
from headwater.rows.codec import Sections, records, sections, states_at
from headwater.rows.window_reads import ExtremeRead, OtherRead, SumRead, WindowRead, WindowReads, seen_states

_NARROW = 2**47
"""Sums of at most 65,535 words (a group's tiles) below this cannot wrap."""


class ManyRows:
    """Reads the windows of many rows at once."""

    def __init__(self, reads: WindowReads) -> None:
        self._reads = reads

    def read(self, data: Sequence[bytes], as_of: Ints) -> tuple[list[list[Any]], Ints, Ints]:
        """A list of values for each name, in their order; the effective times, and the newest events' times.

        Raises:
            ReadError: bytes that are not a row of this view, or a sum past 64 bits.
        """
        found = sections(self._reads.layout, data)
        at = np.maximum(as_of, found.newest + 1)
        out: list[list[Any]] = [[]] * len(self._reads.names)
        for window in self._reads.windows:
            _Tiles(self._reads, window, found, at).read_all(out)
        return out, at, found.newest


class _Tiles:
    """The tiles that one window sees in all rows, in runs of one row each.

    Attributes:
        row, to: the row of each tile, and the first word of its record.
        starts: where each run begins.
        held: the row of each run.
        complete: whether every row has a run.
    """

    def __init__(self, reads: WindowReads, window: WindowRead, found: Sections, at: Ints) -> None:
        self.finished = reads.finished
        self.window, self.found, self.rows, self.at = window, found, len(at), at
        row, to = records(*found.groups[window.number], window.group.width)
        if window.group.hop is not None and window.window is not None:
            first = (at - window.window) // window.group.hop
            seen = found.tiles[to] >= first[row]
            if not seen.all():
                row, to = row[seen], to[seen]
        changes = np.ones(len(row), np.bool_)
        changes[1:] = row[1:] != row[:-1]
        self.row, self.to = row, to
        self.starts = np.flatnonzero(changes)
        self.held = row[self.starts]
        self.complete = len(self.starts) == self.rows

    def read_all(self, out: list[list[Any]]) -> None:
        """Put the values of all features of the window into `out`."""
        counts, sums, extremes = self.window.counts, self.window.sums, self.window.extremes
        if self.window.bulk:
            counters = [*(c.counter for c in counts), *(s.counter for s in sums), *(e.counter for e in extremes)]
            lines = self._added(counters)
            for read, column in zip(counts, lines[: len(counts)].tolist(), strict=True):
                out[read.to] = column
            lines = lines[len(counts) :]
            for unit in dict.fromkeys(r.unit for r in sums):
                mine = [i for i, r in enumerate(sums) if r.unit == unit]
                self._sums([sums[i] for i in mine], lines[mine], out)
            lines = lines[len(sums) :]
            for kind in dict.fromkeys((r.greatest, r.dtype) for r in extremes):
                mine = [i for i, r in enumerate(extremes) if (r.greatest, r.dtype) == kind]
                self._extremes([extremes[i] for i in mine], lines[mine], out)
        for other in self.window.others:
            out[other.to] = self._other(other)

    def _sums(self, reads: list[SumRead], counts: Ints, out: list[list[Any]]) -> None:
        """Sums and means of one unit; `counts` has a line a feature."""
        lows = list(dict.fromkeys(r.low for r in reads))
        low, high = (t[[lows.index(r.low) for r in reads]] for t in self._totals(lows))
        if not reads[0].unit:
            wide = (high != low >> 63).any(axis=1)
            if wide.any():
                i = int(np.flatnonzero(wide)[0])
                self.finished(reads[i].feature, [_one_word(counts[i]), States(np.stack([low[i], high[i]], axis=1))])
            _put(reads, low, counts, out)
            return
        by = np.where([[r.mean] for r in reads], np.maximum(counts, 1), 1)
        values = quotients(low.ravel(), high.ravel(), by.ravel(), reads[0].unit)
        _put(reads, values.reshape(counts.shape), counts, out)

    def _extremes(self, reads: list[ExtremeRead], counts: Ints, out: list[list[Any]]) -> None:
        """Extremes of one kind and type; `counts` has a line a feature."""
        law = np.maximum if reads[0].greatest else np.minimum
        values = self._reduced(law, self._words([r.word for r in reads]))
        _put(reads, from_ordered(values, reads[0].dtype), counts, out)

    def _added(self, numbers: list[int]) -> Ints:
        unique = list(dict.fromkeys(numbers))
        lines = self._reduced(np.add, self._words(unique))
        return lines if len(unique) == len(numbers) else lines[[unique.index(n) for n in numbers]]

    def _totals(self, lows: list[int]) -> tuple[Ints, Ints]:
        """The 128-bit sums of pairs of words, as lines of low and high words."""
        low, high = self._words(lows), self._words([n + 1 for n in lows])
        if not high.any() and (not low.size or (int(low.min()) >= 0 and int(low.max()) < _NARROW)):
            low = self._reduced(np.add, low)
            return low, np.zeros_like(low)
        a = np.add.reduceat(low & LOW, self.starts, axis=1)
        b = np.add.reduceat((low >> 32) & LOW, self.starts, axis=1) + (a >> 32)
        top = np.add.reduceat(high, self.starts, axis=1) + (b >> 32)
        return self._spread((b << 32) | (a & LOW)), self._spread(top)

    def _words(self, numbers: list[int]) -> Ints:
        """Words of all tiles: a line for each number."""
        words: Ints = self.found.tiles.take(np.array(numbers, np.int64)[:, None] + self.to)
        return words

    def _reduced(self, law: np.ufunc, words: Ints) -> Ints:
        return self._spread(law.reduceat(words, self.starts, axis=1) if len(self.starts) else words)

    def _spread(self, lines: Ints) -> Ints:
        """A value a row from a value a run: 0 where a row has no tile."""
        if self.complete:
            return lines
        out = np.zeros((len(lines), self.rows), np.int64)
        out[:, self.held] = lines
        return out

    def _other(self, read: OtherRead) -> list[Any]:
        group = self.window.group
        states = []
        for number in read.place.components:
            component = group.components[number]
            state = states_at(self.found, component, self.row, self.to + group.offsets[number])
            if len(self.starts) < len(self.to):
                state = component.merge_runs(state, self.starts)
            state = state if self.complete else self._all_rows(component, state)
            states.append(seen_states(read.feature, component, state, self.at))
        return self.finished(read.feature, states)

    def _all_rows(self, component: Component, state: States) -> States:
        """The states of all rows, empty ones included."""
        words = np.empty((self.rows, component.width), np.int64)
        words[:] = component.empty
        words[self.held] = state.words
        if not component.variable:
            return States(words)
        objects = objects_of([None] * self.rows)
        objects[self.held] = state.objects
        return States(words, objects)


def _one_word(line: Ints) -> States:
    return States(line[:, None])


def _put(reads: Sequence[SumRead | ExtremeRead], values: NDArray[Any], counts: Ints, out: list[list[Any]]) -> None:
    """Values a feature and row, None where nothing was counted."""
    columns = values.tolist()
    for read, column in zip(reads, columns, strict=True):
        out[read.to] = column
    missing, rows = np.nonzero(counts == 0)
    for i, row in zip(missing.tolist(), rows.tolist(), strict=True):
        columns[i][row] = None
