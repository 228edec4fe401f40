"""Commands whose replies are fetched later: Redis works on them while the next batch is read and decoded.

Apart from connection.py because only the worker writes behind. What the socket takes at once is sent at once, by whoever
posts it; what it does not take is sent by a thread, which a small batch never wakes: handing it a command, and the
interpreter with it, takes longer than Redis takes for its rows. Replies are taken by whoever asks for them. The order
on the wire is that of the calls, so whoever asks something in between waits for what was posted before.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.online.connection import Connection

Piece = bytes | memoryview
_MOST_AHEAD = 32 << 20
"""Bytes that may wait to be sent; past that, `post` waits."""


class Posted:
    """Commands on their way. `replies` waits for them."""

    def __init__(self, posts: Posts, count: int) -> None:
        self.count = count
        self.done_at = 0.0
        self.done = False
        self._posts = posts
        self._replies: list[Any] = []
        self._error: Exception | None = None

    def replies(self) -> list[Any]:
        """The replies, as `Connection.ask` gives them. Raises Unreachable where the connection broke before them.

        `done_at` is then when they were taken (`time.time`).
        """
        self._posts.take(self)
        if self._error is not None:
            raise self._error
        return self._replies

    def finish(self, replies: list[Any], error: Exception | None = None) -> None:
        """Set the outcome; called once."""
        self._replies, self._error, self.done_at, self.done = replies, error, time.time(), True


class Posts:
    """The posted commands of one connection, by one user at a time. After `close` nothing may be posted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unanswered: deque[Posted] = deque()
        # What follows is shared with the thread.
        self._changed = threading.Condition()
        self._unsent: deque[list[Piece]] = deque()
        self._bytes = 0
        self._closed = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def post(self, pieces: Sequence[Piece], count: int) -> Posted:
        """Send `pieces`, which hold `count` commands, behind all that was posted before."""
        posted = Posted(self, count)
        if self._error is not None:
            posted.finish([], self._error)
            return posted
        self._unanswered.append(posted)
        try:
            # Only this user adds: where nothing waits now, nothing will.
            left = list(pieces) if self._unsent else self._connection.send_some(pieces)
        except Exception as error:  # Whatever it is: nobody may wait for ever for replies that will not come.
            self._fail(error)
            return posted
        if left:
            self._leave_to_thread(left)
        return posted

    def take(self, posted: Posted) -> None:
        """Take replies until these are there, or will not come any more."""
        while not posted.done:
            first = self._unanswered[0]
            try:
                replies = self._connection.receive(first.count)
            except Exception as error:
                self._fail(self._error or error)
                return
            self._unanswered.popleft()
            first.finish(replies)

    def finish(self) -> None:
        """Take all replies that have not been taken."""
        if self._unanswered:
            self.take(self._unanswered[-1])

    def close(self) -> None:
        """End the thread. The connection's socket is closed or done with; what has no reply fails."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._unanswered:
            self._fail(self._error or self._connection.closed())

    def _leave_to_thread(self, pieces: list[Piece]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="headwater-posts", daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < _MOST_AHEAD)
            self._unsent.append(pieces)
            self._bytes += sum(map(len, pieces))
            self._changed.notify_all()

    def _run(self) -> None:
        while (pieces := self._next()) is not None:
            try:
                self._connection.send(pieces)
            except Exception as error:
                self._error = error
            with self._changed:
                # Behind an error: whether what was sent was done is unknown; what was not will not be sent.
                for sent in [pieces] if self._error is None else list(self._unsent):
                    self._unsent.popleft()
                    self._bytes -= sum(map(len, sent))
                self._changed.notify_all()

    def _next(self) -> list[Piece] | None:
        """What is to be sent next; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._unsent or self._closed)
            return None if self._closed else self._unsent[0]

    def _fail(self, error: Exception) -> None:
        self._error = error
        while self._unanswered:
            self._unanswered.popleft().finish([], error)
