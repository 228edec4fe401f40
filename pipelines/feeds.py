"""A feed: one fill of one view, from admitted events to rows in Redis behind the fence.

Steps 4 to 6 of the stream path (see worker.py), apart from it because everything here is
about one view: its position, its cached rows, its scripts. Rules 1 to 3 of the fence live here:

* every script carries the position it was computed from; inside a batch of several scripts the
  position is `offset/mark/i`, so that one refusal refuses all that follow;
* a row is written only over the bytes it was computed from; where another worker was faster,
  the row is read again, merged again and sent again;
* rows, position and counters change together or not at all.

A batch is written behind: `start` sends its scripts, `settle` takes what Redis said of them and sends again what
another worker was faster with. Between the two the next batch may be read and decoded, nothing else of the feed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.errors import ReadError, Unreachable
from headwater.events.batch import Events
from headwater.events.select import select
from headwater.online import scripts
from headwater.online.connection import CommandError, Connection
from headwater.online.expiry import expiry_of
from headwater.online.framing import command, frame
from headwater.online.keys import counter_key, entity_key, position_key, row_prefix
from headwater.online.posts import Piece, Posted
from headwater.online.published import Fill
from headwater.online.row_writes import FRAMES, MOST_ROWS, outcome, write_rows
from headwater.plans.plan import StreamView
from headwater.rows.counters import Counters
from headwater.rows.fold import key_items
from headwater.rows.layout import layout_of
from headwater.rows.table import RowTable
from pipelines.unreadable_rows import naming_the_row

ROWS_A_SCRIPT = 1000
BYTES_A_SCRIPT = 160_000
"""What fits a processor's cache takes Redis less time."""
ROWS_AT_ONCE = MOST_ROWS
"""Rows that are encoded together, and read together."""
CACHE_BYTES = 1 << 30

Ints = NDArray[np.int64]
_NONE = Counters()


class Refused(Exception):
    """Redis does not hold the position that a script was computed from: reread, forget, seek."""


class PositionsLost(Exception):
    """Partitions of a fill have no position: Redis lost them, and the view must be filled again."""

    def __init__(self, view: str, partitions: Sequence[int]) -> None:
        super().__init__(f"View {view!r} has no position for partitions {', '.join(map(str, partitions))}.")
        self.view = view


class Held(Unreachable):
    """A repair holds a view's positions; it is over in a moment, at the latest when the hold expires."""


@dataclass
class _Chunk:
    """Rows of one script: their numbers, what Redis must hold of them, the digests that they then have, and the
    commands that bring their bytes, from the frame `first` on; None where they are sent and would be made again."""

    rows: Ints
    expected: bytes
    digests: NDArray[np.uint64]
    commands: memoryview | None = None
    first: int = 0


@dataclass
class _Flight:
    """A batch whose scripts are sent. `merge_again` merges it once more into rows that were read again."""

    moving: dict[int, int]
    counts: Counters
    merge_again: Callable[[Ints], None]
    chunks: list[_Chunk] = field(default_factory=list)
    posted: list[Posted] = field(default_factory=list)


class ViewFeed:
    """Feeds one fill. `positions` holds the next offset of each partition that this worker owns."""

    def __init__(self, connection: Connection, project: str, view: StreamView, fill: Fill) -> None:
        self.connection, self.project, self.view, self.fill = connection, project, view, fill
        self.layout = layout_of(view)
        self.table = RowTable(self.layout)
        self.positions: dict[int, int] = {}
        self.conflicts = 0
        # Two workers must never mistake each other's half-done batch for their own.
        self._mark = ""
        self._prefix = row_prefix(project, view.name, view.state_hash, fill.id)
        self._names: list[bytes] = []
        self._flight: _Flight | None = None
        expiry = expiry_of(view, fill)
        self._expiry = b"" if expiry is None else b"%d" % expiry
        self._rows_cached = max(1000, CACHE_BYTES // self.table.bytes_a_row)

    def begin(self, partitions: Iterable[int]) -> dict[int, int]:
        """Forget cached rows and read the positions of these partitions; partitions added later start at 0.

        Raises:
            PositionsLost: a partition that the fill's record counts has no position.
            Held: a repair of rows holds the positions for a moment; try again.
        """
        wanted = sorted(partitions)
        self._flight = None
        self.forget()
        # Scripts of a batch that broke off may still wait in the old connection: theirs is another mark.
        self._mark = os.urandom(8).hex()
        self.positions = {}
        if not wanted:
            return {}
        for p in wanted:
            if p >= self.fill.partitions:
                self.connection.command("SET", self._position_key(p), 0, "NX")
        replies = scripts.begin.run(self.connection, [self._position_key(p) for p in wanted], [])
        if replies == b"HELD":
            raise Held(f"View {self.view.name!r} is being repaired; its rows are held for a moment.")
        assert isinstance(replies, list)
        lost = [p for p, reply in zip(wanted, replies, strict=True) if reply is None]
        if lost:
            raise PositionsLost(self.view.name, lost)
        self.positions = {p: int(reply) for p, reply in zip(wanted, replies, strict=True)}
        return dict(self.positions)

    def forget(self) -> None:
        """Drop all cached rows; Redis may hold others by now."""
        self.table = RowTable(self.layout)
        self._names = []

    def apply(self, events: Events, nexts: Mapping[int, int]) -> None:
        """Bring the fill to the positions `nexts`, given all admitted events before them.

        Raises:
            Refused: another worker, or a Redis that was rolled back, holds another position.
            Unreachable: Redis went away; whether the last script was done is unknown.
        """
        self.start(events, nexts)
        self.settle()

    def start(self, events: Events, nexts: Mapping[int, int]) -> None:
        """As `apply`, without waiting for Redis: `positions` move when the batch is settled. Settles the one before."""
        self.settle()
        moving = {p: n for p, n in nexts.items() if n > self.positions.get(p, n)}
        if not moving:
            return
        events = self._due(events)
        # 4. Evaluate where and derive.
        selected = select(self.view, events)
        # 5. Take the rows concerned, skip what they have, merge the rest.
        if len(self.table) > self._rows_cached:
            self.forget()
        rows, new = self.table.numbers(key_items(selected.keys))
        self._load(new)
        touched = self.table.fold(rows, selected) if len(rows) else rows

        def fold_again(again: Ints) -> None:
            mine = np.isin(rows, again)
            self.table.fold(rows[mine], selected.take(mine))

        # 6. Write whole rows and the new positions behind the fence.
        self._start_writing(touched, moving, Counters.of(self.layout, selected), fold_again)

    def advance(self, nexts: Mapping[int, int]) -> None:
        """Move positions past records that nobody reads (aborted transactions), rows untouched."""
        moving = {p: n for p, n in nexts.items() if n > self.positions.get(p, n)}
        if moving:
            self._write(np.empty(0, np.int64), moving, Counters(), self._never)

    def _never(self, again: Ints) -> None:
        raise AssertionError("a script without rows has no conflicts")

    def _due(self, events: Events) -> Events:
        """The events from this fill's positions on; other views of the source may be further back."""
        last = max([*self.positions, int(events.partition.max(initial=0))])
        start = np.full(last + 1, 2**62, np.int64)
        start[list(self.positions)] = list(self.positions.values())
        due = events.offset >= start[events.partition]
        return events if due.all() else events.take(due)

    def _load(self, new: Ints) -> None:
        keys = self.table.keys[len(self._names) :]
        single = len(self.view.keys) == 1
        self._names += [frame(self._prefix + entity_key((k,) if single else k)) for k in keys]
        for i in range(0, len(new), ROWS_AT_ONCE):
            self._reload(new[i : i + ROWS_AT_ONCE])

    def _reload(self, rows: Ints) -> None:
        names = [self._names[r] for r in rows.tolist()]
        (reply,) = self.connection.ask(command(1 + len(names), [frame(b"MGET"), *names]), 1)
        if isinstance(reply, CommandError):
            raise reply
        try:
            self.table.load(rows, reply)
        except ReadError as error:
            keys = [self.table.keys[r] for r in rows.tolist()]
            raise naming_the_row(self.view, self.layout, keys, reply, error) from error

    def _write(
        self, touched: Ints, moving: dict[int, int], counts: Counters, merge_again: Callable[[Ints], None]
    ) -> None:
        """Write rows and positions, and wait until they are written."""
        self._start_writing(touched, moving, counts, merge_again)
        self.settle()

    def _start_writing(
        self, touched: Ints, moving: dict[int, int], counts: Counters, merge_again: Callable[[Ints], None]
    ) -> None:
        """Send scripts ahead: each as soon as its rows are encoded, so that Redis works meanwhile."""
        flight = _Flight(moving, counts, merge_again)
        firsts = range(0, max(len(touched), 1), ROWS_AT_ONCE)
        for first in firsts:
            for chunk in self._chunks(touched[first : first + ROWS_AT_ONCE]):
                # The last one moves the positions, and is not known before it is there.
                if flight.chunks:
                    flight.posted.append(self._post(flight, len(flight.chunks) - 1, last=False))
                flight.chunks.append(chunk)
        flight.posted.append(self._post(flight, len(flight.chunks) - 1, last=True))
        self._flight = flight

    def settle(self) -> float | None:
        """Wait until what was started is written; when that was, seconds since the epoch. None where nothing was.

        Raises:
            Refused, Unreachable: as `apply`.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return None
        done, written = 0, 0.0
        while done < len(flight.chunks):
            for posted in flight.posted:
                # The first that is not OK stops those behind it.
                reply = outcome(posted.replies())
                if reply != b"OK":
                    self._refused(flight, done, reply)
                    break
                self.table.digests[flight.chunks[done].rows] = flight.chunks[done].digests
                done, written = done + 1, posted.done_at
            last = len(flight.chunks) - 1
            flight.posted = [self._post(flight, i, last=i == last) for i in range(done, last + 1)]
        self.positions.update(flight.moving)
        return written

    def _refused(self, flight: _Flight, number: int, reply: Any) -> None:
        """What becomes of a script that was not done: raises, or leaves the chunk as it is to be sent again."""
        if reply == b"FENCE":
            raise Refused(self.view.name)
        if isinstance(reply, CommandError):
            raise reply
        flight.chunks[number] = self._again(flight, flight.chunks[number], reply)

    def _chunks(self, rows: Ints) -> Iterator[_Chunk]:
        """The scripts that rows are sent in: at least one row in each, or one script without."""
        if not len(rows):
            yield _Chunk(rows, b"", np.empty(0, np.uint64), memoryview(b""))
            return
        data, ends, digests = self.table.framed(rows, FRAMES)
        expected, first, start = self.table.digests[rows].tobytes(), 0, 0
        while first < len(rows):
            last = max(int(np.searchsorted(ends, start + BYTES_A_SCRIPT, side="right")), first + 1)
            last = min(last, first + ROWS_A_SCRIPT)
            z, end = slice(first, last), int(ends[last - 1])
            yield _Chunk(rows[z], expected[8 * first : 8 * last], digests[z], data[start:end], first)
            first, start = last, end

    def _chunk(self, rows: Ints) -> _Chunk:
        """One script for rows that were in one before."""
        data, _, digests = self.table.framed(rows, FRAMES)
        return _Chunk(rows, self.table.digests[rows].tobytes(), digests, data)

    def _again(self, flight: _Flight, chunk: _Chunk, bad: list[int]) -> _Chunk:
        """The rows of a chunk that another worker changed first: read, merged and encoded again."""
        self.conflicts += len(bad)
        index = np.array(bad, np.int64)
        written = np.ones(len(chunk.rows), np.bool_)
        written[index] = False
        self.table.digests[chunk.rows[written]] = chunk.digests[written]
        again = chunk.rows[index]
        self._reload(again)
        flight.merge_again(again)
        return self._chunk(again)

    def _post(self, flight: _Flight, i: int, *, last: bool) -> Posted:
        if flight.chunks[i].commands is None:
            flight.chunks[i] = self._chunk(flight.chunks[i].rows)
        request = self._request(flight.chunks[i], i, flight.moving, flight.counts if last else None)
        flight.chunks[i].commands = None
        return self.connection.post(*request)

    def _request(
        self, chunk: _Chunk, i: int, moving: dict[int, int], counts: Counters | None
    ) -> tuple[list[Piece], int]:
        """Script i of a batch expects the first position at offset/mark/i and leaves it at offset/mark/(i + 1).

        The last script has the counters, and leaves all positions where the batch ends.
        """
        parts = sorted(moving)
        old = [b"%d" % self.positions[p] for p in parts]
        first = b"%s/%s/" % (old[0], self._mark.encode())
        was = [first + b"%d" % i if i else old[0], *old[1:]]
        becomes = [first + b"%d" % (i + 1), *old[1:]] if counts is None else [b"%d" % moving[p] for p in parts]
        keys = [*(self._position_key(p) for p in parts), counter_key(self.project, self.view.name, self.fill.id)]
        found = counts or _NONE
        nulls = [b"%d" % n for n in (found.null_keys, found.derived_nulls, found.scaled_nulls)]
        arguments = [b"%d" % len(parts), *was, *becomes, chunk.expected, *nulls, self._expiry]
        assert chunk.commands is not None
        names = [self._names[r] for r in chunk.rows.tolist()]
        return write_rows(keys, names, chunk.first, chunk.commands, arguments)

    def _position_key(self, partition: int) -> bytes:
        return position_key(self.project, self.view.name, self.fill.id, partition)
