"""Commands whose replies are fetched later: a thread sends them and takes the replies while others work.

Apart from connection.py because only the worker writes behind: while Redis takes a batch's rows, the next batch
is read and decoded. The order on the wire is that of the calls, so whoever asks something in between waits for
what was posted before.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.online.connection import Connection

_MOST_AHEAD = 32 << 20
"""Bytes that may wait to be sent; past that, `post` waits."""


class Posted:
    """Commands on their way. `replies` waits for them."""

    def __init__(self, pieces: Sequence[bytes | memoryview], count: int) -> None:
        self.pieces, self.count = pieces, count
        self.size = sum(map(len, pieces))
        self.done_at = 0.0
        self._done = threading.Event()
        self._replies: list[Any] = []
        self._error: Exception | None = None

    def replies(self) -> list[Any]:
        """The replies, as `Connection.ask` gives them. Raises Unreachable where the connection broke before them.

        `done_at` is then when they came (`time.time`).
        """
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._replies

    def finish(self, replies: list[Any], error: Exception | None = None) -> None:
        """Set the outcome; called once."""
        self._replies, self._error, self.done_at = replies, error, time.time()
        self._done.set()


class Posts:
    """The posted commands of one connection. Its thread ends with `close`, after which nothing may be posted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._waiting: deque[Posted] = deque()
        self._sent: deque[Posted] = deque()
        self._bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="headwater-posts", daemon=True)
        self._thread.start()

    def post(self, pieces: Sequence[bytes | memoryview], count: int) -> Posted:
        """Send `pieces`, which hold `count` commands, behind all that was posted before."""
        posted = Posted(pieces, count)
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < _MOST_AHEAD)
            self._waiting.append(posted)
            self._bytes += posted.size
            self._changed.notify_all()
        return posted

    def finish(self) -> None:
        """Wait until every reply has come, or will not come any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._sent)

    def close(self) -> None:
        """End the thread. The connection's socket is closed or done with."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (step := self._next()) is not None:
            posted, is_sent = step
            try:
                if is_sent:
                    self._answered(posted, self._connection.receive(posted.count))
                else:
                    self._connection.send(posted.pieces)
                    self._moved(posted)
            except Exception as error:  # Whatever it is: nobody may wait for ever for replies that will not come.
                self._fail(error)

    def _next(self) -> tuple[Posted, bool] | None:
        """What is to be sent, else what is sent and has no reply yet; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._sent or self._closed)
            if self._waiting:
                return self._waiting[0], False
            return (self._sent[0], True) if self._sent else None

    def _moved(self, posted: Posted) -> None:
        with self._changed:
            self._sent.append(self._waiting.popleft())
            self._bytes -= posted.size
            posted.pieces = ()
            self._changed.notify_all()

    def _answered(self, posted: Posted, replies: list[Any]) -> None:
        posted.finish(replies)
        with self._changed:
            self._sent.popleft()
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        """Whether what was sent was done is unknown; what was not will not be sent."""
        with self._changed:
            for posted in (*self._sent, *self._waiting):
                posted.finish([], error)
            self._sent.clear()
            self._waiting.clear()
            self._bytes = 0
            self._changed.notify_all()
