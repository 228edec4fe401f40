"""Keeps the latest facts, so that a page never waits long for a server that is away.

Apart from the reading because it is about time alone: one thread reads; pages take what is there, wait a
little where there is nothing or where it is old, and then show the older facts with their time.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import replace

from marketplace.display import milliseconds
from marketplace.facts import FactReader, Facts

_STALE = "Reading newer facts takes long: what is shown was measured"


class LatestFacts:
    """Facts at most `max_age` seconds old, or the latest there are after waiting `patience` seconds.

    Those older than `old` seconds say so, as a problem.
    """

    def __init__(self, reader: FactReader, *, max_age: float = 2.0, patience: float = 3.0, old: float = 10.0) -> None:
        self.reader = reader
        self._old = old
        self._max_age = max_age
        self._patience = patience
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="facts")
        self._lock = threading.Lock()
        self._running: Future[Facts] | None = None
        self._facts: Facts | None = None
        self._read_at = float("-inf")

    def start(self) -> None:
        """Begin reading without waiting for it."""
        self._refresh()

    def get(self, patience: float | None = None) -> Facts | None:
        """The latest facts; None where the first reading takes longer than `patience` (seconds; by default its own).

        Raises whatever the reading itself raised, which is a defect of the reader.
        """
        if self._facts is not None and time.monotonic() - self._read_at < self._max_age:
            return self._facts
        try:
            return self._refresh().result(timeout=self._patience if patience is None else patience)
        except TookTooLong:
            return self._aged()

    def close(self) -> None:
        """Stop the reading thread once it is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _aged(self) -> Facts | None:
        """The facts there are, with their age where they may be wrong by now: a server may have gone since."""
        facts, age = self._facts, time.monotonic() - self._read_at
        if facts is None or age < self._old:
            return facts
        return replace(facts, problems=(*facts.problems, f"{_STALE} {milliseconds(age * 1000)} ago."))

    def _refresh(self) -> Future[Facts]:
        with self._lock:
            if self._running is None or self._running.done():
                self._running = self._pool.submit(self._read)
            return self._running

    def _read(self) -> Facts:
        facts = self.reader.read()
        self._facts, self._read_at = facts, time.monotonic()
        return facts
