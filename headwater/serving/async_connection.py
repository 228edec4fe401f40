"""Redis over asyncio: one connection for all requests, pipelined by itself.

Apart from online/connection.py because here many requests wait at once: what they send within one turn of
the event loop goes out in one write, and replies come back in order. A lost connection fails all who wait;
the next who asks connects anew, which is safe for reads and only for those.
"""

from __future__ import annotations

import asyncio
import collections
from typing import Any

import hiredis

from headwater.errors import Unreachable
from headwater.online.connection import CommandError, RedisAddress


class AsyncConnection:
    """Connects when first asked. For reads alone: a request that a lost connection cut off is asked again, once."""

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        self.address = RedisAddress.parse(url)
        self._timeout = timeout
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, raw: bytes, count: int) -> list[Any]:
        """The replies to `count` encoded commands; a CommandError in place of a refused one's.

        Raises:
            Unreachable: Redis does not answer, or not within the timeout.
        """
        wire = self._wire
        if wire is not None and wire.open:
            try:
                return await self._asked(wire, raw, count)
            except Unreachable:
                if wire.open:
                    raise
        return await self._asked(await self._connected(), raw, count)

    def close(self) -> None:
        """Close the connection; a later request opens another."""
        if self._wire is not None:
            self._wire.abort("the server is stopping")
            self._wire = None

    async def _connected(self) -> _Wire:
        async with self._connecting:
            if self._wire is None or not self._wire.open:
                self._wire = await self._connect()
            return self._wire

    async def _connect(self) -> _Wire:
        loop, at = asyncio.get_running_loop(), self.address
        try:
            async with asyncio.timeout(self._timeout):
                if at.path:
                    _, wire = await loop.create_unix_connection(lambda: _Wire(at), at.path)
                else:
                    _, wire = await loop.create_connection(lambda: _Wire(at), at.host, at.port)
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"Redis at {at} does not answer: {error or 'no connection in time'}.") from error
        for command in [*at.handshake(), ("PING",)]:
            (reply,) = await self._asked(wire, hiredis.pack_command(command), 1)
            if isinstance(reply, CommandError):
                wire.abort(str(reply))
                raise Unreachable(f"Redis at {at} refused the connection: {reply}")
        return wire

    async def _asked(self, wire: _Wire, raw: bytes, count: int) -> list[Any]:
        try:
            async with asyncio.timeout(self._timeout):
                return await wire.ask(raw, count)
        except TimeoutError:
            # A late reply would answer somebody else's question.
            wire.abort(f"no reply within {self._timeout:g} s")
            raise Unreachable(f"Redis at {self.address} gave no reply within {self._timeout:g} s.") from None


class _Waiting:
    """One request in flight: how many replies it still wants."""

    __slots__ = ("future", "left", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], left: int) -> None:
        self.future, self.left, self.replies = future, left, list[Any]()


class _Wire(asyncio.Protocol):
    """One socket."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._reader = hiredis.Reader(replyError=CommandError)
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                first = waiting[0]
                first.replies.append(reply)
                first.left -= 1
                if not first.left:
                    waiting.popleft()
                    # Done already: cancelled, because the client of this request has gone.
                    if not first.future.done():
                        first.future.set_result(first.replies)
        except hiredis.ProtocolError as error:
            self.abort(str(error))

    def ask(self, raw: bytes, count: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._transport is None:
            future.set_exception(Unreachable(f"Lost the connection to Redis at {self._address}."))
            return future
        self._waiting.append(_Waiting(future, count))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(raw)
        return future

    def abort(self, why: str) -> None:
        transport = self._transport
        self._fail(why)
        if transport is not None:
            transport.abort()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    def _fail(self, why: str) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, collections.deque()
        for each in waiting:
            if not each.future.done():
                each.future.set_exception(Unreachable(f"Lost the connection to Redis at {self._address}: {why}."))
