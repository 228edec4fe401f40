"""Repair: rows of a view computed again from the lake, while workers run.

1. Read the rows as they are.
2. Fence: a batch in progress begins again, so an event that a row may have had and lost lies below the
   positions, or comes once more.
3. Wait until the lake covers the positions, and the offsets that the rows say they have applied.
4. Compute each row from all its events below these.
5. Replace it where it is still what it was in 1, byte for byte; else begin again. Workers notice by their own
   compare, and merge into the new row what it does not have.
6. A row that changes faster than the lake follows would never be met: after some attempts the view's positions
   are held, for seconds and by a mark that expires, until the lake has come so far.

What a row says it has applied counts only where its digest fits and the topic goes so far. A row that no event
stands behind is taken away. Nothing is computed from a lake whose files are gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headwater.errors import HeadwaterError, ReadError, TopicChanged, UsageError, nearest
from headwater.events.batch import Events
from headwater.events.select import select, source_columns
from headwater.lake.lake import Lake
from headwater.online import scripts
from headwater.online.connection import Connection
from headwater.online.entities import parse_key
from headwater.online.expiry import expiry_of
from headwater.online.keys import entity_key, fill_key, position_key, row_prefix
from headwater.online.plan_store import all_positions, load_fill, load_published, source_of
from headwater.online.published import Fill
from headwater.online.topic_facts import TopicFacts, topic_facts
from headwater.plans.plan import Source, StreamView
from headwater.receipts.results import DEFECTS
from headwater.repository import Repository
from headwater.rows.codec import RowHeader, digest_of, read_header
from headwater.rows.fold import fold, key_codes
from headwater.rows.layout import layout_of
from validation.check_command import find_differences, first_known
from validation.consistency import Findings
from validation.lake_side import known_events
from validation.losses import Difference
from validation.online_side import rows_of

ROWS_A_SCRIPT = 500
KEYS_FILTERED = 5_000
"""With more keys than this the whole topic is read, and filtered afterwards."""
FREE_ATTEMPTS, ATTEMPTS = 2, 6
HOLD_MS = 20_000


@dataclass
class Repaired:
    """What a repair did.

    Attributes:
        repaired, taken_away: rows that were replaced, and rows that nothing stands behind.
        right: keys that were asked for and had no difference.
        positions: partition -> the offset that its position was set back to.
        left: entity key -> what still differs, and why it could not be repaired.
    """

    view: str
    repaired: int = 0
    taken_away: int = 0
    right: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    left: dict[bytes, Difference] = field(default_factory=dict)


def repair(
    repository: Repository,
    view: str,
    entities: Sequence[Mapping[str, Any]] | None,
    *,
    wait: float = 60.0,
    say: Callable[[str], None] = lambda text: None,
) -> Repaired:
    """Repair the rows of these entities, or, where None are given, every row that the check finds to differ.

    `wait`: seconds that the lake may take to cover the rows. `say` is told what is being done.

    Raises:
        UsageError: not a windowed view, or entities that do not name its join keys.
        HeadwaterError: nothing of the view is served, or the lake does not get so far.
        LakeDamaged: files of the lake are gone; rows are never computed from what is left.
        Unreachable: Redis or Kafka does not answer.
    """
    with Connection(repository.need_redis()) as connection:
        return _Repair(repository, connection, view, wait, say).run(entities)


class _Repair:
    """The repair of one view's active fill."""

    def __init__(
        self, repository: Repository, connection: Connection, name: str, wait: float, say: Callable[[str], None]
    ) -> None:
        self.repository, self.connection, self.project = repository, connection, repository.project
        self.kafka, self.lake = repository.need_kafka(), Lake(repository.lake)
        self.wait, self.say, self.token = wait, say, os.urandom(8).hex()
        self.view, self.source, self.fill = _target(connection, self.project, name)
        self.layout = layout_of(self.view)
        self.prefix = row_prefix(self.project, self.view.name, self.view.state_hash, self.fill.id)
        self.facts = self._facts()
        self.done = Repaired(self.view.name)

    def run(self, entities: Sequence[Mapping[str, Any]] | None) -> Repaired:
        keys = None if entities is None else [self._entity_key(e) for e in entities]
        self.say(f"{self.view.name}: looking for differences")
        found = self._find(keys)
        if keys is None:
            self._set_back(found.positions)
        todo = [key for key, d in found.rows.items() if d.repairable]
        self.done.right = len(keys or []) - len(found.rows) if keys is not None else 0
        for attempt in range(ATTEMPTS):
            if not todo:
                break
            self.say(f"{self.view.name}: {len(todo):,} rows, attempt {attempt + 1}")
            todo = self._once(todo, held=attempt >= FREE_ATTEMPTS)
        left = self._find(list(found.rows)).rows if found.rows else {}
        self.done.left = {key: d for key, d in left.items() if d.cause in DEFECTS}
        return self.done

    def _find(self, keys: list[bytes] | None) -> Findings:
        where = None if keys is None else self._where(keys)
        return find_differences(
            self.repository, self.lake, self.connection, self.view, self.source, self.fill, keys, where
        )

    # -- one attempt --------------------------------------------------------------------------------------------

    def _once(self, keys: list[bytes], *, held: bool) -> list[bytes]:
        """Steps 1 to 5, with the positions held or not; the keys that were changed by somebody else meanwhile."""
        if not held:
            rows = rows_of(self.connection, self.prefix, keys)  # 1
            return self._replace(keys, rows, self._computed(keys, rows, self._fence()))
        with self._hold() as positions:  # 6
            rows = rows_of(self.connection, self.prefix, keys)
            return self._replace(keys, rows, self._computed(keys, rows, positions))

    def _fence(self) -> dict[int, int]:
        """2. The positions, none of them in the middle of a batch."""
        while True:
            partitions = list(all_positions(self.connection, self.project, self.fill))
            replies = scripts.begin.run(self.connection, self._position_keys(partitions), [])
            if isinstance(replies, list):
                return {p: int(r) for p, r in zip(partitions, replies, strict=True) if r is not None}
            time.sleep(0.2)  # another repair holds them

    @contextmanager
    def _hold(self) -> Iterator[dict[int, int]]:
        """6. The positions, held until the block ends or the hold expires."""
        partitions = list(all_positions(self.connection, self.project, self.fill))
        keys = self._position_keys(partitions)
        while not isinstance(replies := scripts.hold.run(self.connection, keys, [self.token, HOLD_MS]), list):
            time.sleep(0.2)
        try:
            yield {p: int(r) for p, r in zip(partitions, replies, strict=True) if r is not None}
        finally:
            scripts.end_hold.run(self.connection, keys, [self.token])

    def _computed(
        self, keys: Sequence[bytes], rows: Mapping[bytes, bytes], positions: Mapping[int, int]
    ) -> dict[bytes, bytes]:
        """3, 4. The rows that the lake gives; keys without events are left out."""
        # The topic's ends after positions and rows: earlier ones would call their newest offsets impossible.
        self.facts = self._facts()
        cuts = {key: self._cut(rows.get(key), positions) for key in keys}
        need: dict[int, int] = {}
        for cut in cuts.values():
            for p, end in cut.items():
                need[p] = max(need.get(p, 0), end)
        self._wait_for_lake(need)
        snapshot = self.lake.events(self.source.topic)
        if snapshot is None:
            return {}
        columns = sorted({*source_columns(self.view), self.source.event_time})
        table = snapshot.read(self.source, up_to=need, columns=columns, where_keys=self._where(keys))
        table = known_events(table, first_known(self.fill))
        events = select(self.view, Events.from_arrow(self.source, table, columns))
        codes, values = key_codes(events.keys)
        names = [entity_key((v,) if len(self.view.keys) == 1 else v) for v in values]
        ends = np.zeros((len(names), 1 + max(need, default=0)), np.int64)
        for i, name in enumerate(names):
            for p, end in cuts.get(name, {}).items():
                ends[i, p] = end
        below = events.offset < ends[codes, events.partition]
        # Rows of a lake know from 0; those that a worker began, from their first event.
        born = 0 if self.fill.known_from is None else None
        return {entity_key(r.key): r.data for r in fold(self.layout, events.take(below), born=born)}

    def _cut(self, row: bytes | None, positions: Mapping[int, int]) -> dict[int, int]:
        """Partition -> the offset that the row's events end at: the position, or past what it has applied."""
        cut = {p: min(o, self.facts.ends.get(p, 0)) for p, o in positions.items()}
        header = None if row is None else self._trusted(row)
        for p, _, applied in header.partitions if header is not None else ():
            cut[p] = max(cut.get(p, 0), applied + 1)
        return cut

    def _trusted(self, row: bytes) -> RowHeader | None:
        """The header of a row that may be believed."""
        try:
            header = read_header(row)
        except ReadError:
            return None
        whole = digest_of(row) == header.digest and header.state_hash == self.view.state_hash
        known = all(0 <= a < self.facts.ends.get(p, 0) for p, _, a in header.partitions)
        return header if whole and known else None

    def _wait_for_lake(self, need: Mapping[int, int]) -> None:
        until = time.monotonic() + self.wait
        while True:
            held = self.lake.positions(self.source.topic)
            short = {p: end for p, end in need.items() if held.get(p, 0) < end}
            if not short:
                return
            if time.monotonic() > until:
                p, end = min(short.items())
                raise HeadwaterError(
                    f"View {self.view.name!r}: its rows need partition {p} of topic {self.source.topic!r} up to offset "
                    f"{end - 1}, and the lake has come to {held.get(p, 0)}. Nothing was replaced in this attempt. "
                    f"Run 'headwater sink', then repair again."
                )
            self.say(f"{self.view.name}: waiting for the sink")
            time.sleep(0.1)

    def _replace(self, keys: Sequence[bytes], have: Mapping[bytes, bytes], new: Mapping[bytes, bytes]) -> list[bytes]:
        """5. The keys whose rows are not what they were."""
        expiry, again = expiry_of(self.view, self.fill), []
        record = fill_key(self.project, self.view.name, self.fill.id)
        for i in range(0, len(keys), ROWS_A_SCRIPT):
            some = keys[i : i + ROWS_A_SCRIPT]
            pairs = [marked for key in some for marked in (_marked(have.get(key)), _marked(new.get(key)))]
            args = [b"" if expiry is None else b"%d" % expiry, *pairs]
            bad = scripts.replace.run(self.connection, [record, *(self.prefix + key for key in some)], args)
            if not isinstance(bad, list):
                raise HeadwaterError(
                    f"View {self.view.name!r} was filled anew while it was repaired; its old rows are gone. "
                    f"Run 'headwater check {self.view.name}'."
                )
            changed = {some[n] for n in bad}
            again += [key for key in some if key in changed]
            written = [key for key in some if key not in changed]
            self.done.repaired += sum(key in new for key in written)
            self.done.taken_away += sum(key not in new for key in written)
        return again

    # -- positions, keys, servers -------------------------------------------------------------------------------

    def _set_back(self, wanted: Mapping[int, int]) -> None:
        """Positions past events that no row has go back to the first of them; what rows have they skip again."""
        for p, offset in wanted.items():
            [key] = self._position_keys([p])
            was = self.connection.command("GET", key)
            offset = max(offset, self.facts.starts.get(p, 0))
            if was is None or b"/" in was or int(was) <= offset:
                continue
            if scripts.set_back.run(self.connection, [key], [was, offset]) == b"OK":
                self.done.positions[p] = offset

    def _position_keys(self, partitions: Sequence[int]) -> list[bytes]:
        return [position_key(self.project, self.view.name, self.fill.id, p) for p in partitions]

    def _entity_key(self, entity: Mapping[str, Any]) -> bytes:
        names = [k.name for k in self.view.keys]
        missing = [n for n in names if entity.get(n) is None]
        if missing or set(entity) - set(names):
            raise UsageError(
                f"View {self.view.name!r} is keyed by {', '.join(names)}; got {', '.join(entity) or 'nothing'}. "
                f"Name each join key once: --entity {','.join(f'{n}=VALUE' for n in names)}."
            )
        return entity_key([entity[n] for n in names])

    def _where(self, keys: Sequence[bytes]) -> dict[str, list[Any]] | None:
        """Join key -> the values of these keys; None where there are too many to filter by."""
        if len(keys) > KEYS_FILTERED:
            return None
        values = [v for key in keys if (v := self._values(key)) is not None]
        return {k.name: sorted({v[i] for v in values}) for i, k in enumerate(self.view.keys)}

    def _values(self, key: bytes) -> tuple[Any, ...] | None:
        """The join key values of an entity key; None for one that no event can have."""
        try:
            values = parse_key(key, self.view.keys)
        except UsageError:
            return None
        return values if len(values) == len(self.view.keys) else None

    def _facts(self) -> TopicFacts:
        facts = topic_facts(self.kafka, [self.source.topic]).get(self.source.topic)
        if facts is None or facts.id != self.fill.topic_id:
            raise TopicChanged(
                f"Topic {self.source.topic!r} is not the one that view {self.view.name!r} was filled from. "
                f"Run 'headwater apply' to begin a new fill."
            )
        return facts


def _target(connection: Connection, project: str, name: str) -> tuple[StreamView, Source, Fill]:
    published = load_published(connection, project)
    if published is None:
        raise HeadwaterError(f"Project {project!r} has no plan in Redis. Publish one with 'headwater apply'.")
    known = [v.name for v in published.plan.views]
    if name not in known:
        raise UsageError(f"No view {name!r} to repair. {nearest(name, known)}")
    if not isinstance(published.plan.view(name), StreamView):
        raise UsageError(f"View {name!r} is a batch view: publish its rows again with 'headwater materialize {name}'.")
    active = published.active.get(name)
    fill = load_fill(connection, project, name, active.fill) if active is not None else None
    source = source_of(published, active.definition) if active and isinstance(active.definition, StreamView) else None
    if active is None or fill is None or source is None:
        raise HeadwaterError(
            f"View {name!r}: nothing of it is served that could be repaired. Fill it with 'headwater backfill {name}'."
        )
    assert isinstance(active.definition, StreamView)
    return active.definition, source, fill


def _marked(row: bytes | None) -> bytes:
    return b"0" if row is None else b"1" + row
