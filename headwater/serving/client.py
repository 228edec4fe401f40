"""The client in process: features from Redis in one round trip, without Feast.

Apart from online/reads.py, which knows no repository and no clock: here an address is found, a lost
connection is made anew once, and "now" is read.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from headwater.errors import Unreachable, UsageError
from headwater.online.connection import Connection
from headwater.online.feature_rows import FeatureRows
from headwater.online.published import PublishedPlan
from headwater.online.read_plan import Entities
from headwater.online.reads import FeatureReader, Time, read_times
from headwater.repository import load_repository

T = TypeVar("T")


class Client:
    """Reads features online.

    >>> client = Client(".")                                              # a feature repository
    >>> client = Client(redis="redis://127.0.0.1:6379/0", project="shop")  # or an address
    >>> client.get(features=["customer_spend"], entities={"customer_id": [17850]}).to_dict()

    May be used by several threads, which take turns. Connects at the first read.

    Raises:
        UsageError: no repository there.
        Unreachable: no Redis was started for the repository, and none is named.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str] | None = None,
        *,
        redis: str | None = None,
        project: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        if redis is None or project is None:
            if redis is not None and repository is None:
                raise UsageError("Client(redis=…) needs the project's name as well: Client(redis=…, project='shop').")
            found = load_repository(repository)
            redis, project = redis or found.need_redis(), project or found.project
        self.redis, self.project = redis, project
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._reader: FeatureReader | None = None

    def get(
        self,
        features: Sequence[str] = (),
        *,
        service: str | None = None,
        entities: Entities,
        as_of: Time | Sequence[Time] | None = None,
        receipts: bool = False,
    ) -> FeatureRows:
        """The features of the entities.

        Args:
            features: "VIEW:FEATURE", or "VIEW" for all of its features.
            service: a feature service instead.
            entities: {join key: [values]}, or a list of {join key: value}.
            as_of: the time to read at (default: now); RFC 3339 text, datetime or microseconds; one, or one a row.
            receipts: also give what proves each row.

        Raises:
            UsageError: a wrong request (UnknownName: a name that the plan does not have).
            Unavailable: no plan is published, or a view is not filled yet.
            ReadError: a row that cannot be read, or a value past its type.
            Unreachable: Redis does not answer.
        """
        if isinstance(features, str):
            features = [features]
        times = read_times(as_of, time.time_ns() // 1_000)
        return self._with_reader(
            lambda reader: reader.read(entities, features=features, service=service, as_of=times, receipts=receipts)
        )

    def published(self) -> PublishedPlan:
        """The plan as it is published now. Raises Unavailable where there is none, Unreachable."""
        return self._with_reader(FeatureReader.published)

    def close(self) -> None:
        """Close the connection; a later read opens another."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._reader = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_reader(self, read: Callable[[FeatureReader], T]) -> T:
        with self._lock:
            if self._reader is not None:
                try:
                    return read(self._reader)
                except Unreachable:
                    pass  # A read changes nothing, so one that was cut off is asked again, once, on a new connection.
            return read(self._connect())

    def _connect(self) -> FeatureReader:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._reader = None
        self._connection = Connection(self.redis, timeout=self._timeout)
        self._reader = FeatureReader(self._connection, self.project)
        return self._reader
