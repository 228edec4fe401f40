"""The blocking Redis connection, on a real server and on sockets that misbehave."""

import socket
import threading

import pytest

from headwater.errors import Unreachable, UsageError
from headwater.online.connection import CommandError, Connection, RedisAddress, connect_ready

pytestmark = pytest.mark.redis


def test_a_url_is_parsed_with_user_password_and_database():
    assert RedisAddress.parse("redis://me:p%40ss@db.example:7000/3") == RedisAddress(
        "db.example", 7000, None, "me", "p@ss", 3
    )
    assert RedisAddress.parse("unix:///tmp/redis.sock?db=2") == RedisAddress(path="/tmp/redis.sock", database=2)
    assert RedisAddress.parse("redis://localhost").port == 6379


@pytest.mark.parametrize("url", ["http://localhost", "redis://h:port", "redis://h:1/x", "localhost:6379"])
def test_a_url_that_is_none_is_wrong_use(url):
    with pytest.raises(UsageError, match="Redis URL"):
        RedisAddress.parse(url)


def test_a_wrong_url_never_shows_its_password():
    with pytest.raises(UsageError) as caught:
        RedisAddress.parse("http://me:secret@localhost")
    assert "secret" not in str(caught.value)


def test_commands_answer_bytes_ints_lists_and_none(redis_url):
    with Connection(redis_url) as connection:
        assert connection.command("SET", "connection-test", b"\x00\xff") == b"OK"
        assert connection.command("GET", "connection-test") == b"\x00\xff"
        assert connection.command("MGET", "connection-test", "connection-none") == [b"\x00\xff", None]
        assert connection.command("DEL", "connection-test") == 1


def test_a_refused_command_raises_alone_and_stands_in_place_in_a_pipeline(redis_url):
    with Connection(redis_url) as connection:
        with pytest.raises(CommandError, match="unknown command"):
            connection.command("NOSUCH")
        replies = connection.pipeline([("ECHO", "a"), ("NOSUCH",), ("ECHO", "b")])
        assert replies[0] == b"a"
        assert replies[2] == b"b"
        assert isinstance(replies[1], CommandError)


def test_a_large_value_comes_back_whole(redis_url):
    value = bytes(range(256)) * 20_000
    with Connection(redis_url) as connection:
        connection.command("SET", "connection-large", value)
        assert connection.command("GET", "connection-large") == value
        connection.command("DEL", "connection-large")


def test_nobody_listening_is_unreachable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
        Connection(f"redis://127.0.0.1:{port}/0")


def test_a_killed_connection_is_an_error_and_never_a_silent_reconnect(redis_url):
    with Connection(redis_url) as victim, Connection(redis_url) as killer:
        killer.command("CLIENT", "KILL", "ID", victim.command("CLIENT", "ID"))
        with pytest.raises(Unreachable):
            victim.command("PING")
        with pytest.raises(Unreachable, match="reconnect first"):
            victim.command("PING")
        assert victim.generation == 0
        victim.reconnect()
        assert victim.generation == 1
        assert victim.command("PING") == b"PONG"


def _server(answers):
    """A socket that answers each chunk it receives with the next of `answers` (None: says nothing)."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        peer, _ = listener.accept()
        with peer:
            for answer in answers:
                if peer.recv(65536) and answer is not None:
                    peer.sendall(answer)
            peer.recv(65536)

    threading.Thread(target=run, daemon=True).start()
    return listener


def test_a_server_that_hangs_is_unreachable_within_the_timeout():
    with _server([b"+PONG\r\n", None]) as listener:
        connection = Connection(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout=0.1)
        with pytest.raises(Unreachable, match=r"no reply within 0\.1 s"):
            connection.command("GET", "x")
        assert not connection.connected


def test_a_server_that_is_loading_is_unreachable():
    with (
        _server([b"-LOADING Redis is loading the dataset in memory\r\n"]) as listener,
        pytest.raises(Unreachable, match="LOADING"),
    ):
        Connection(f"redis://127.0.0.1:{listener.getsockname()[1]}")


def test_one_thread_sends_while_another_receives(redis_url):
    with Connection(redis_url) as connection:
        raw = b"*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n" * 1000
        sender = threading.Thread(target=lambda: [connection.send([raw]) for _ in range(20)])
        sender.start()
        replies = connection.receive(20_000)
        sender.join()
    assert replies == [b"x"] * 20_000


def test_a_server_that_would_evict_rows_or_keeps_nothing_is_warned_of(redis_url):
    connection, _ = connect_ready(redis_url)
    with connection:
        before = [connection.command("CONFIG", "GET", name)[1] for name in ("maxmemory-policy", "appendonly", "save")]
        try:
            connection.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "appendonly", "no", "save", "")
            second, warnings = connect_ready(redis_url)
            second.close()
        finally:
            connection.command(
                "CONFIG", "SET", "maxmemory-policy", before[0], "appendonly", before[1], "save", before[2]
            )
    assert len(warnings) == 2
    assert "maxmemory-policy allkeys-lru" in warnings[0]
    assert "appendonly yes" in warnings[1]
