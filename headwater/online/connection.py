"""A blocking connection to Redis: one socket, hiredis parsing, replies as bytes, nothing hidden.

Apart from redis-py because of stream.md's rule 1: a silent reconnect would hide that Redis was rolled
back. Here a lost connection is always an error, the caller reconnects, and `generation` says how often
that happened, so that cached rows and positions of an earlier generation are never trusted. It is also
the cheapest path to an answer: a command is one write and, mostly, one read.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from headwater.errors import HeadwaterError, Unreachable, UsageError
from headwater.online.posts import Piece, Posted, Posts

_BUFFER = 4 << 20
_TRANSIENT = ("LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "BUSY ", "OOM ", "MISCONF ")
"""Answers of a server that is there but cannot serve yet (the last two: its memory or its disk is full): the
same to a caller as one that is away."""


class CommandError(HeadwaterError):
    """Redis understood the connection but answered a command with an error; its text is the message."""


@dataclass(frozen=True)
class RedisAddress:
    """A parsed redis:// or unix:// URL. `path` is set for Unix sockets, host and port else."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    user: str | None = None
    password: str | None = None
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Parse redis://[USER[:PASSWORD]@]HOST[:PORT][/DB] or unix://[USER[:PASSWORD]@]/PATH[?db=DB].

        Raises:
            UsageError: another scheme, or a port or database that is no number.
        """
        parts = urlsplit(url)
        try:
            user = unquote(parts.username) if parts.username else None
            password = unquote(parts.password) if parts.password else None
            if parts.scheme == "redis":
                database = int(parts.path.strip("/") or 0)
                return cls(parts.hostname or "127.0.0.1", parts.port or 6379, None, user, password, database)
            if parts.scheme == "unix" and parts.path:
                database = int(parse_qs(parts.query).get("db", ["0"])[0])
                return cls(path=unquote(parts.path), user=user, password=password, database=database)
        except ValueError as error:
            raise UsageError(f"Redis URL {_masked(url)!r}: {error}.") from error
        raise UsageError(
            f"Redis URL {_masked(url)!r}: expected redis://[USER:PASSWORD@]HOST:PORT/DB or unix:///PATH?db=DB."
        )

    def handshake(self) -> list[tuple[str | int, ...]]:
        """The commands that a new connection begins with."""
        commands: list[tuple[str | int, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"{self.host}:{self.port}"


class Connection:
    """One connection, connected by its constructor. One user at a time: it holds no lock.

    After any Unreachable the connection is closed; what was sent may or may not have been done.
    `reconnect()` is always explicit and raises `generation` by one.

    Args:
        url: see `RedisAddress.parse`.
        timeout: seconds that a reply or a write may take.
        connect_timeout: seconds that connecting may take.

    Raises:
        Unreachable: nobody answers there, or the server is still loading.
        CommandError: the password or the database was refused.
    """

    def __init__(self, url: str, *, timeout: float = 20.0, connect_timeout: float = 5.0) -> None:
        self.url = url
        self.address = RedisAddress.parse(url)
        self.generation = 0
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._socket: socket.socket | None = None
        self._transient: str | None = None
        self._space = bytearray(1 << 18)
        self._posts: Posts | None = None
        self._open()

    @property
    def connected(self) -> bool:
        """Whether a socket is open (it may still turn out to be dead)."""
        return self._socket is not None

    def command(self, *args: str | bytes | int | float) -> Any:
        """Send one command and return its reply (bytes, int, list or None). Raises CommandError, Unreachable."""
        reply = self.ask(hiredis.pack_command(args), 1)[0]
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[str | bytes | int | float]]) -> list[Any]:
        """Send all commands in one write; their replies in order, a CommandError in place of a refused one's."""
        return self.ask(b"".join([hiredis.pack_command(tuple(c)) for c in commands]), len(commands))

    def ask(self, raw: bytes, count: int) -> list[Any]:
        """Send `raw`, which holds `count` encoded commands, and return their replies as `pipeline` does."""
        if self._posts is not None:
            self._posts.finish()
        self.send([raw])
        return self.receive(count)

    def post(self, pieces: Sequence[Piece], count: int) -> Posted:
        """Send `pieces`, which hold `count` encoded commands, without waiting; the replies are asked of the result.

        The wire keeps the order of the calls: a later `ask` is sent when all that was posted has its replies.
        """
        if self._posts is None:
            self._posts = Posts(self)
        return self._posts.post(pieces, count)

    def send(self, pieces: Sequence[Piece]) -> None:
        """Write encoded commands without waiting for replies; `receive` takes those later, in order."""
        try:
            sock = self._alive()
            for piece in _behind(pieces, sock.sendmsg(pieces)):
                sock.sendall(piece)
        except OSError as error:
            raise self._lost(error) from error

    def send_some(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Write as much as there is room for at once; what is left."""
        try:
            return _behind(pieces, self._alive().sendmsg(pieces, (), socket.MSG_DONTWAIT))
        except BlockingIOError:
            return list(pieces)
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, count: int) -> list[Any]:
        """The next `count` replies. Raises Unreachable where the connection breaks or the server cannot serve."""
        replies: list[Any] = []
        gets, sock, space = self._reader.gets, self._alive(), self._space
        try:
            while True:
                while (reply := gets()) is not False:
                    replies.append(reply)
                    if len(replies) == count:
                        return replies if self._transient is None else self._not_serving()
                size = sock.recv_into(space)
                if size == 0:
                    raise ConnectionResetError("the server closed the connection")
                self._reader.feed(space, 0, size)
        except (OSError, hiredis.ProtocolError) as error:
            raise self._lost(error) from error

    def reconnect(self) -> None:
        """Connect anew; raises `generation`. All that was cached over the old connection may be wrong now."""
        self.close()
        self._open()
        self.generation += 1

    def close(self) -> None:
        """Close the socket; may be called twice. What was posted and has no reply fails."""
        posts, self._posts = self._posts, None
        if posts is not None:
            self._shut_down()
            posts.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def closed(self) -> Unreachable:
        """What whoever waits is told where the connection was closed."""
        return Unreachable(f"The connection to Redis at {self.address} was closed.")

    def _shut_down(self) -> None:
        # A thread that waits in a system call of this socket does not notice that it is closed, but this.
        sock = self._socket
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A client in a notebook, or in Feast's hands, is never closed by anybody.
        if getattr(self, "_socket", None) is not None:
            self.close()

    def _open(self) -> None:
        self._reader = hiredis.Reader(replyError=self._error)
        self._transient = None
        try:
            self._socket = _connect(self.address, self._connect_timeout, self._timeout)
        except OSError as error:
            raise Unreachable(f"Redis at {self.address} does not answer: {error.strerror or error}.") from error
        handshake = self.address.handshake()
        for reply in self.pipeline([*handshake, ("PING",)]):
            if isinstance(reply, CommandError):
                self.close()
                raise CommandError(f"Redis at {self.address} refused the connection: {reply}")

    def _alive(self) -> socket.socket:
        if self._socket is None:
            raise Unreachable(f"The connection to Redis at {self.address} is closed; reconnect first.")
        return self._socket

    def _lost(self, error: Exception) -> Unreachable:
        # A late reply would answer the next command, so a connection that failed once is never used again.
        self._drop()
        what = f"no reply within {self._timeout:g} s" if isinstance(error, BlockingIOError) else str(error)
        return Unreachable(f"Lost the connection to Redis at {self.address}: {what}.")

    def _drop(self) -> None:
        # Not `close`: the thread of what is posted may be the one that failed, or be sending.
        self._shut_down()
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _error(self, text: str) -> Exception:
        if text.startswith(_TRANSIENT):
            self._transient = text
        return CommandError(text)

    def _not_serving(self) -> list[Any]:
        self._drop()
        raise Unreachable(f"Redis at {self.address} cannot serve now: {self._transient}")


def _behind(pieces: Sequence[Piece], sent: int) -> list[Piece]:
    """What is left of pieces when so many of their bytes are sent."""
    left: list[Piece] = []
    for piece in pieces:
        if sent < len(piece):
            left.append(memoryview(piece)[sent:])
        sent = max(sent - len(piece), 0)
    return left


def connect_ready(url: str, *, timeout: float = 20.0) -> tuple[Connection, list[str]]:
    """A connection, and what `readiness_warnings` says of its server."""
    connection = Connection(url, timeout=timeout)
    return connection, readiness_warnings(connection)


def readiness_warnings(connection: Connection) -> list[str]:
    """What may be lost with this server's settings (stream.md, 8); empty where they are right."""
    at = connection.address
    facts = dict(
        line.split(":", 1)
        for line in connection.command("INFO").decode().splitlines()
        if ":" in line and not line.startswith("#")
    )
    warnings = []
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"Redis at {at} has maxmemory-policy {policy}: when memory is full it deletes rows without a word. "
            f"Set maxmemory-policy noeviction."
        )
    if facts.get("aof_enabled", "0") == "0" and not _saves(connection):
        warnings.append(
            f"Redis at {at} keeps nothing on disk (no append-only file, no snapshots): a restart loses all rows "
            f"and positions, and every view must be filled again. Set appendonly yes."
        )
    return warnings


def _saves(connection: Connection) -> bool:
    reply = connection.pipeline([("CONFIG", "GET", "save")])[0]
    # Managed Redis often forbids CONFIG; its operator looks after persistence.
    return isinstance(reply, CommandError) or bool(reply and reply[1])


def _connect(address: RedisAddress, connect_timeout: float, timeout: float) -> socket.socket:
    if address.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(connect_timeout)
            sock.connect(address.path)
        except OSError:
            sock.close()
            raise
    else:
        sock = socket.create_connection((address.host, address.port), connect_timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Timeouts of the kernel instead of Python's: those cost a poll() before every read and write.
    sock.settimeout(None)
    limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return sock


def _masked(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else url
