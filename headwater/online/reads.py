"""Reading features online: the steps of a read, and the reader that takes them over a blocking connection.

The steps are a generator that yields what to send and is given the replies, so that the blocking reader
here and the asyncio server (serving/asgi.py) take the same ones::

    1  no plan known yet: GET the published plan
    2  resolve the features asked for (cached); one that is unknown may be new: look whether the plan is
    3  one round trip: the plan's id, the fills' records, and all rows of all views and keys
    4  another id than the plan's, or a record is missing: load the plan, resolve and read again, once
    5  decode, at each row's effective time

A plan or a fill that is missing is an error (Unavailable), never zeros.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any

import hiredis
import msgspec

from headwater.errors import Unavailable, UnknownName, UsageError
from headwater.online.connection import Connection
from headwater.online.entities import time_of
from headwater.online.feature_rows import FeatureRows
from headwater.online.keys import plan_id_key, plan_key
from headwater.online.published import PublishedPlan, decode_published
from headwater.online.read_plan import Entities, ReadPlan, resolve

Steps = Generator[tuple[bytes, int], list[Any], FeatureRows]
Time = int | str | datetime

_MOST_PLANS = 1_000


class FeatureReads:
    """The steps of reads in one project. Holds the plan and the resolved requests, no connection."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.published: PublishedPlan | None = None
        self._plans: dict[tuple[tuple[str, ...], str | None], ReadPlan] = {}

    def steps(
        self,
        entities: Entities,
        *,
        features: Sequence[str] = (),
        service: str | None = None,
        as_of: int | Sequence[int],
        receipts: bool = False,
    ) -> Steps:
        """Yields (encoded commands, how many); wants their replies; returns the answer.

        Raises:
            UsageError: a wrong request; UnknownName: a name that the plan does not have.
            Unavailable: no plan, or no complete fill.
            ReadError: a row that cannot be read.
        """
        if self.published is None:  # 1
            yield from self.load()
        plan = yield from self._plan(tuple(features), service)  # 2
        for _ in range(2):
            prepared = plan.prepare(entities)
            replies = yield prepared.raw, prepared.count  # 3
            if plan.is_current(replies):
                return plan.answer(prepared, replies, as_of, receipts)  # 5
            yield from self.load()  # 4
            plan = yield from self._plan(tuple(features), service)
        raise Unavailable(
            f"The features are unavailable: in project '{self.project}' the plan changed twice during one read, or "
            f"Redis lost the record of a fill. Try again; if it stays so, run: headwater apply"
        )

    def load(self) -> Generator[tuple[bytes, int], list[Any], None]:
        """The step that loads the published plan; what was resolved by another is forgotten."""
        (reply,) = yield hiredis.pack_command((b"GET", plan_key(self.project))), 1
        if isinstance(reply, Exception):
            raise reply
        before, self.published = self.published, None if reply is None else _decoded(self.project, reply)
        if self.published is None or before is None or before.id != self.published.id:
            self._plans.clear()
        if self.published is None:
            raise Unavailable(f"No plan is published for project '{self.project}'. Publish it with: headwater apply")

    def _plan(
        self, features: tuple[str, ...], service: str | None
    ) -> Generator[tuple[bytes, int], list[Any], ReadPlan]:
        plan = self._plans.get((features, service))
        if plan is not None:
            return plan
        assert self.published is not None
        try:
            plan = resolve(self.published, features, service)
        except (UnknownName, Unavailable):
            (current,) = yield hiredis.pack_command((b"GET", plan_id_key(self.project))), 1
            if current == self.published.id.encode():
                raise
            yield from self.load()
            plan = resolve(self.published, features, service)
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[features, service] = plan
        return plan


def _decoded(project: str, data: bytes) -> PublishedPlan:
    try:
        return decode_published(data)
    except msgspec.DecodeError as error:
        raise Unavailable(
            f"The plan of project '{project}' in Redis is not one of this version: {error}. Run: headwater apply"
        ) from error


class FeatureReader:
    """Reads features over one blocking connection. One user at a time, as the connection."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._ask = connection.ask
        self.reads = FeatureReads(project)

    def read(
        self,
        entities: Entities,
        *,
        features: Sequence[str] = (),
        service: str | None = None,
        as_of: int | Sequence[int],
        receipts: bool = False,
    ) -> FeatureRows:
        """The features of the entities at `as_of` (microseconds, one for all or one a row).

        Raises: as `FeatureReads.steps`; Unreachable where Redis does not answer.
        """
        steps = self.reads.steps(entities, features=features, service=service, as_of=as_of, receipts=receipts)
        rows: FeatureRows = self._drive(steps)
        return rows

    def published(self) -> PublishedPlan:
        """The plan as it is published now. Raises Unavailable where there is none."""
        self._drive(self.reads.load())
        assert self.reads.published is not None
        return self.reads.published

    def _drive(self, steps: Generator[tuple[bytes, int], list[Any], Any]) -> Any:
        try:
            raw, count = next(steps)
            while True:
                raw, count = steps.send(self._ask(raw, count))
        except StopIteration as done:
            return done.value


def read_times(as_of: Time | Sequence[Time] | None, now: int) -> int | list[int]:
    """`as_of` as microseconds: None is `now`, texts are RFC 3339, datetimes without a zone are UTC; one or one a row.

    Raises:
        UsageError: not a time.
    """
    if as_of is None:
        return now
    if isinstance(as_of, int | str | datetime):
        return _read_time(as_of)
    return [_read_time(t) for t in as_of]


def _read_time(value: Time) -> int:
    try:
        return time_of(value)
    except ValueError:
        raise UsageError(
            f"as_of: expected an RFC 3339 time such as 2011-12-09T12:50:00Z or microseconds, got {value!r}."
        ) from None
