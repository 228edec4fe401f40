"""Why a row is not what the lake gives: the name of each difference, what was seen, and what to do about it.

The names are the design's (receipts/results.py). Late data makes none here: a row is compared with exactly the
events it had to have, whatever their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.durations import SECOND, format_duration
from headwater.events.timestamps import format_timestamp
from headwater.online.entities import repair_command
from headwater.online.keys import entity_text
from headwater.plans.plan import StreamView
from headwater.rows.codec import RowHeader
from validation.keyed_events import KeyedEvents
from validation.lake_side import Kept
from validation.losses import Difference, Losses, Range, has_text, ranges_text
from validation.online_side import Served

Ints = NDArray[np.int64]
WAITS = "waits"
"""Said of a row whose last events the sink has not kept yet."""


@dataclass(frozen=True)
class Seen:
    """A key that differs: its row, the row replayed from its own offsets, and the row that the lake gives."""

    key: bytes
    row: bytes | None
    replayed: bytes | None
    expected: bytes | None


def shown(key: bytes) -> str:
    """An entity key as text."""
    return key.decode("utf-8", "backslashreplace")


class Causes:
    """Names the differences of one view."""

    def __init__(
        self, view: StreamView, served: Served, kept: Kept, events: KeyedEvents, headers: Mapping[bytes, RowHeader],
        now: int,
    ) -> None:  # fmt: skip
        self.view, self.served, self.kept, self.events = view, served, kept, events
        self.headers, self.now = headers, now
        self.newest: dict[int, int] = {}
        for header in headers.values():
            for p, _, applied in header.partitions:
                self.newest[p] = max(self.newest.get(p, applied), applied)
        self.losses = Losses(view, served, kept, events, self.newest)

    # -- rows that are not what they say ------------------------------------------------------------------------

    @staticmethod
    def unreadable(view: StreamView, key: bytes, data: bytes, reason: str) -> Difference:
        """Bytes that are no row of this codec."""
        return Difference(
            "defect", f"the bytes are no row that this Headwater reads: {reason}",
            f"it has {len(data)} bytes, {data[:16].hex(' ') or 'none'}",
            action=f"{repair_command(view, key)}; where another version of Headwater wrote it, upgrade this one instead",
            repairable=True,
        )  # fmt: skip

    @staticmethod
    def changed_bytes(view: StreamView, key: bytes, header: RowHeader, digest: int) -> Difference:
        """A digest that does not fit."""
        return Difference(
            "defect", "bytes of the row were changed after it was written (memory, disk, or a write past the worker)",
            f"its digest is {header.digest:016x}, its bytes have {digest:016x}", action=repair_command(view, key),
            repairable=True,
        )  # fmt: skip

    @staticmethod
    def other_definition(view: StreamView, key: bytes, header: RowHeader) -> Difference:
        """A whole row, of another definition than its key says."""
        return Difference(
            "defect", "the row was written by another definition and copied here",
            f"it has the definition {header.state_hash}, its key {view.state_hash}", action=repair_command(view, key),
            repairable=True,
        )  # fmt: skip

    # -- events that only the lake has --------------------------------------------------------------------------

    def strangers(self) -> Iterator[tuple[bytes, Difference]]:
        """Keys that have events in the lake which the sink cannot have written."""
        where = np.flatnonzero(self.events.strange)
        codes, first = np.unique(self.events.codes[where], return_index=True)
        for code, i in zip(codes.tolist(), where[first].tolist(), strict=True):
            key = self.events.keys[code]
            yield key, self._stranger(key, i)

    def _stranger(self, key: bytes, i: int) -> Difference:
        p, o = int(self.events.selected.partition[i]), int(self.events.selected.offset[i])
        if self.events.twice[i]:
            why = "that place is in the table more than once"
        elif self.kept.ends is not None and o >= self.kept.ends.get(p, 0):
            why = f"the topic ends at {self.kept.ends.get(p, 0)}"
        else:
            why = f"the sink has come to {self.kept.positions.get(p, 0)}"
        return Difference(
            "missing online", "an event is in the lake that did not come from the topic: somebody else wrote the table",
            self.row_text(key), f"it has an event at partition {p}, offset {o}; {why}",
            f"see who wrote: DeltaTable('{self.kept.uri}').history(); take out what the topic does not have: "
            f".delete('_partition = {p} AND _offset = {o}')",
        )  # fmt: skip

    # -- rows whose last events the lake does not have ----------------------------------------------------------

    def uncovered(self, key: bytes, header: RowHeader) -> Difference | str | None:
        """What is to say of a row that the lake does not cover; None where it does."""
        past = [(p, a) for p, _, a in header.partitions if a >= self.kept.positions.get(p, 0)]
        for p, a in past:
            log = has_text(p, self.kept.positions.get(p, 0))
            if self.kept.ends is not None and a >= (end := self.kept.ends.get(p, 0)):
                return Difference(
                    "missing in lake", "the row has an event that its topic never had, or has lost: somebody wrote the "
                    "row past the worker, or the broker lost its last records",
                    self.row_text(key), f"{log}; the topic ends at {end}",
                    f"make sure of the topic; then {repair_command(self.view, key)}", True,
                )  # fmt: skip
            if a < self.kept.committed.get(p, 0):
                return self.losses.went_back(p, self.row_text(key))
            if a < self.kept.starts.get(p, 0):
                return Difference(
                    "missing in lake", "retention took the event from the topic before the sink kept it",
                    self.row_text(key), f"{log}; the topic begins at {self.kept.starts[p]}",
                    "run 'headwater sink': it writes the gap down; 'headwater check --accept-gaps' once you know of it",
                )  # fmt: skip
        return WAITS if past else None

    # -- whole rows that differ ---------------------------------------------------------------------------------

    def name(self, seen: Seen) -> Difference | None:
        """The difference of a key whose row (if any) is readable and covered; None where nothing can be proven."""
        here = self.events.of(seen.key)
        if seen.row is None:
            return self._not_online(seen.key, here)
        header = self.headers[seen.key]
        if seen.replayed == seen.row:
            lacking = self._lacking(header, here)
            if self._came_later(header, here, lacking):
                return self._older(seen.key, here[lacking])
            return self._began_anew(seen.key, here, lacking)
        lost = [r for r in self.losses.ranges if _names(header, r)]
        if lost and all(any(_inside(r, g) for g in self.losses.accepted) for r in lost):
            return None
        if lost:
            return self._lost(seen.key, lost)
        return self._other_bytes(seen.key) if len(here) else self._never_in_lake(seen.key)

    def ahead_of_positions(self) -> Iterator[tuple[bytes, Difference]]:
        """Rows that have applied more than a position that stands still says."""
        for key, header in self.headers.items():
            ahead = [
                (p, self.served.behind[p]) for p, _, a in header.partitions if a >= self.served.behind.get(p, 2**62)
            ]
            for p, position in ahead[:1]:
                yield key, Difference(
                    "defect", f"the position of partition {p} was moved back, or restored without its rows",
                    self.row_text(key), f"the view's position of partition {p} is {position}, and stands still",
                    "start a worker ('headwater stream'): it reads on from there, and rows skip what they have",
                )  # fmt: skip

    def _never_in_lake(self, key: bytes) -> Difference:
        return Difference(
            "missing in lake", "the row is served, and the lake never had an event of its key: somebody wrote it past "
            "the worker", self.row_text(key), "it has no event of this key",
            f"{repair_command(self.view, key)} (takes it away)", True,
        )  # fmt: skip

    def _lost(self, key: bytes, lost: list[Range]) -> Difference:
        files = len(self.kept.missing_files)
        named = f"; files that are gone or broken: {', '.join(self.kept.missing_files[:3])}" if files else ""
        likely = "a data file of the lake is gone or broken" if files else "records were taken out of the lake's table"
        return Difference(
            "missing in lake", f"{likely}, so the row's events cannot all be replayed",
            self.row_text(key), f"it lacks {ranges_text(lost)}{named}", self.losses.mend(),
        )  # fmt: skip

    def _other_bytes(self, key: bytes) -> Difference:
        return Difference(
            "defect", "the row was written with a digest that fits, and its own offsets give other bytes: a copy of "
            "another row, a write past the worker, or a bug",
            self.row_text(key), f"replaying them gives other bytes; it has {_events(len(self.events.of(key)))} of this key",
            repair_command(self.view, key), True,
        )  # fmt: skip

    def _lacking(self, header: RowHeader, here: Ints) -> NDArray[np.bool_]:
        """Which of the key's events the row should have and does not name."""
        born = self._at({p: b for p, b, _ in header.partitions}, here, 2**62)
        applied = self._at({p: a for p, _, a in header.partitions}, here, -1)
        offset = self.events.selected.offset[here]
        return ((offset < born) | (offset > applied)) & self._due(here)

    def _came_later(self, header: RowHeader, here: Ints, lacking: NDArray[np.bool_]) -> bool:
        """Whether the row lacks events that came after those it has, and not only older ones.

        In a partition that the row does not name, before and after are told by the arrival in the lake.
        """
        applied = self._at({p: a for p, _, a in header.partitions}, here, 2**62)
        if (lacking & (self.events.selected.offset[here] > applied)).any():
            return True
        unnamed, has = lacking & (applied == 2**62), self.events.arrived[here][~lacking]
        return bool(len(has) and unnamed.any() and self.events.arrived[here][unnamed].max() > has.min())

    def _due(self, here: Ints) -> NDArray[np.bool_]:
        mine = ~self.events.strange[here]
        result: NDArray[np.bool_] = mine & (
            self.events.selected.offset[here] < self._at(self.served.positions, here, 0)
        )
        return result

    def _at(self, offsets: Mapping[int, int], here: Ints, default: int) -> Ints:
        found = [offsets.get(p, default) for p in self.events.selected.partition[here].tolist()]
        return np.array(found, np.int64)

    def _older(self, key: bytes, missed: Ints) -> Difference:
        moved = self._moved_over(missed)
        return Difference(
            "defect", f"{moved}, or an older copy of the row was put back" if moved
            else "an older copy of the row was put back (a restore, or a write past the worker)",
            self.row_text(key), f"it has {_events(len(missed))} of this key behind that, below the view's position: "
            f"{self._places_text(missed)}", self._restore(key, bool(moved)), True,
        )  # fmt: skip

    def _moved_over(self, missed: Ints) -> str:
        """Whether no row at all has the events from here on: then the position is suspected, not the row."""
        for i in missed.tolist():
            p, o = int(self.events.selected.partition[i]), int(self.events.selected.offset[i])
            if o > self.newest.get(p, -1):
                return (
                    f"the position of partition {p} was moved forward to {self.served.positions[p]}: no row has an "
                    f"event behind offset {self.newest.get(p, -1)}"
                )
        return ""

    def _restore(self, key: bytes, moved: bool) -> str:
        return f"headwater repair {self.view.name} --from-check" if moved else repair_command(self.view, key)

    def _not_online(self, key: bytes, here: Ints) -> Difference:
        due = here[self._due(here)]
        # A backfill writes rows of old events, and they live from then on.
        last, expiry = max(int(self.events.arrived[here].max()), self.served.began), self.served.expiry_ms
        log = f"it has {_events(len(due))} of this key below the view's positions: {self._places_text(due)}"
        if expiry is not None and last + expiry * 1000 < self.now:
            lives = format_duration(expiry * 1000 // SECOND * SECOND)
            return Difference(
                "expired", f"no event of this key for longer than a row lives ({lives} after its last write)",
                "there is none", f"{log}; the last came {format_timestamp(last)}", "nothing: no window sees them",
            )  # fmt: skip
        moved = self._moved_over(due)
        return Difference(
            "missing online", f"{moved}, or the row was deleted" if moved
            else "the row was deleted, expired too early, or was lost by Redis", "there is none", log,
            self._restore(key, bool(moved)), True,
        )  # fmt: skip

    def _began_anew(self, key: bytes, here: Ints, older: NDArray[np.bool_]) -> Difference:
        """A row that is right by its own word and yet lacks older events: expired before, or lost."""
        arrived, log = self.events.arrived[here], f"it has older events of this key: {self._places_text(here[older])}"
        quiet = int(arrived[~older].min()) - int(arrived[older].max()) if older.any() and not older.all() else 0
        # A row lives longer than any of its windows; retention bounds how late the sink can be.
        if self.served.expiry_ms is not None and quiet >= max(w + hop for hop, w in self.view.hops().items()):
            return Difference(
                "expired", "the row began anew after it had expired; older events had left every window",
                self.row_text(key), log, "nothing",
            )  # fmt: skip
        return Difference(
            "missing online", "the row was deleted or lost, and began anew with the key's next event",
            self.row_text(key), log, repair_command(self.view, key), True,
        )  # fmt: skip

    # -- wording ------------------------------------------------------------------------------------------------

    def row_text(self, key: bytes) -> str:
        """What a row says of itself."""
        header = self.headers.get(key)
        if header is None:
            return "there is none"
        spans = "; ".join(f"partition {p} from offset {b} to {a}" for p, b, a in header.partitions)
        return f"it has {spans or 'no partition'}; newest event {format_timestamp(header.newest)}"

    def notes(self, waiting: set[bytes], unprovable: set[bytes]) -> tuple[str, ...]:
        """What to say of rows that were not compared."""
        said = []
        if waiting:
            key = min(waiting)
            lake = "; ".join(has_text(p, self.kept.positions.get(p, 0)) for p, _, _ in self.headers[key].partitions)
            entity = entity_text(key, [k.name for k in self.view.keys])
            one = len(waiting) == 1
            said.append(
                f"{'1 row is' if one else f'{len(waiting):,} rows are'} not compared, because the sink has not kept "
                f"{'its' if one else 'their'} last events yet: {entity}{'' if one else ' and others'} ({self.row_text(key)}; "
                f"the lake: {lake}). Is 'headwater sink' running?"
            )
        if unprovable:
            said.append(f"Not compared are rows with events in gaps that were accepted: {len(unprovable):,}.")
        return tuple(said)

    def _places_text(self, here: Ints) -> str:
        selected = self.events.selected
        places = [f"partition {selected.partition[i]} offset {selected.offset[i]}" for i in here[:3].tolist()]
        return ", ".join(places) + (f" and {len(here) - 3:,} more" if len(here) > 3 else "")


def _events(n: int) -> str:
    return "1 event" if n == 1 else f"{n:,} events"


def _names(header: RowHeader, lost: Range) -> bool:
    """Whether a row's own offsets cover some of a range."""
    return any(p == lost[0] and b < lost[2] and lost[1] <= a for p, b, a in header.partitions)


def _inside(lost: Range, gap: Range) -> bool:
    return lost[0] == gap[0] and gap[1] <= lost[1] and lost[2] <= gap[2]
