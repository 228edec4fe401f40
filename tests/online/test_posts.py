"""Commands that are answered later, on a real server: sent at once, or by a thread where the socket is full."""

import threading
from itertools import pairwise

import pytest

from headwater.errors import Unreachable
from headwater.online import posts
from headwater.online.connection import CommandError, Connection

pytestmark = pytest.mark.redis


WAITS = b"*3\r\n$5\r\nBLPOP\r\n$13\r\nposts-nothing\r\n$1\r\n0\r\n"
"""A command that is never answered, nor what comes behind it."""


def echo(text: str) -> bytes:
    return b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (len(text), text.encode())


def test_replies_belong_to_what_was_posted_and_come_in_order(redis_url: str) -> None:
    with Connection(redis_url) as connection:
        posted = [connection.post([echo(f"a{i}") + echo(f"b{i}")], 2) for i in range(500)]
        assert [p.replies() for p in reversed(posted)] == [[b"a%d" % i, b"b%d" % i] for i in reversed(range(500))]
        assert all(p.done_at <= q.done_at for p, q in pairwise(posted))


def test_a_command_in_between_sees_all_that_was_posted_before(redis_url: str) -> None:
    with Connection(redis_url) as connection:
        connection.command("DEL", "posts-test")
        for i in range(1, 51):
            posted = connection.post([b"*2\r\n$4\r\nINCR\r\n$10\r\nposts-test\r\n"], 1)
            if i % 10 == 0:
                assert connection.command("GET", "posts-test") == b"%d" % i
                assert posted.replies() == [i]
        connection.command("DEL", "posts-test")


def test_a_refused_command_stands_in_its_place(redis_url: str) -> None:
    with Connection(redis_url) as connection:
        first, second = connection.post([b"*1\r\n$6\r\nNOSUCH\r\n"], 1), connection.post([echo("b")], 1)
        assert isinstance(first.replies()[0], CommandError)
        assert second.replies() == [b"b"]


def test_more_than_may_wait_is_sent_all_the_same(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "_MOST_AHEAD", 10_000)
    with Connection(redis_url) as connection:
        texts = [f"{i}" * 5_000 for i in range(20)]
        posted = [connection.post([echo(text)], 1) for text in texts]
        assert [p.replies() for p in posted] == [[text.encode()] for text in texts]


def test_a_server_that_dies_fails_all_that_has_no_reply_and_a_new_connection_posts_again(own_redis) -> None:
    with Connection(own_redis.url) as connection:
        answered = connection.post([echo("before")], 1)
        assert answered.replies() == [b"before"]
        lost = [connection.post([WAITS], 1)]
        lost += [connection.post([echo("x" * 1_000_000)], 1) for _ in range(40)]
        own_redis.kill()
        for posted in lost:
            with pytest.raises(Unreachable):
                posted.replies()
        assert not connection.connected
        with pytest.raises(Unreachable):
            connection.post([echo("y")], 1).replies()
        own_redis.restart()
        connection.reconnect()
        assert connection.post([echo("again")], 1).replies() == [b"again"]
        assert answered.replies() == [b"before"]


def _senders() -> set[threading.Thread]:
    """The running threads that send what a socket did not take: other threads of the session come and go."""
    return {thread for thread in threading.enumerate() if thread.name == "headwater-posts"}


def test_what_the_socket_takes_at_once_needs_no_thread(redis_url: str) -> None:
    before = _senders()
    with Connection(redis_url) as connection:
        posted = [connection.post([echo(f"{i}")], 1) for i in range(100)]
        assert [p.replies() for p in posted] == [[b"%d" % i] for i in range(100)]
        assert _senders() <= before


def test_closing_ends_the_thread_and_fails_what_waits(own_redis) -> None:
    before = _senders()
    connection = Connection(own_redis.url)
    waits = connection.post([WAITS], 1)
    for _ in range(40):
        connection.post([echo("x" * 1_000_000)], 1)
    assert len(_senders() - before) == 1
    connection.close()
    assert _senders() <= before
    with pytest.raises(Unreachable):
        waits.replies()
