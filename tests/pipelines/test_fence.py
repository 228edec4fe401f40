"""Rule 1 of the stream path: every write is fenced by the position that it was computed from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import pytest

from headwater.online.connection import Connection
from headwater.online.posts import Posted, Posts
from pipelines import feeds
from pipelines.feeds import PositionsLost, Refused
from tests.pipelines.stream_world import Stream, random_events

pytestmark = pytest.mark.redis


@pytest.fixture
def stream(redis_url: str) -> Stream:
    return Stream(redis_url)


def test_a_zombie_with_an_old_position_is_refused_and_writes_nothing(stream: Stream) -> None:
    stream.append(0, random_events(300))
    zombie, owner = stream.feed(), stream.feed(connection=Connection(stream.redis_url))
    stream.apply(owner, 0, 100)
    stream.apply(owner, 0, 200)
    before = stream.rows()
    with pytest.raises(Refused):
        stream.apply(zombie, 0, 150)
    assert stream.rows() == before
    assert stream.positions()[0] == b"200"
    # Only after it has read the position again does it go on, from there.
    zombie.begin([0])
    stream.apply(zombie, 0)
    stream.assert_equal_to_the_slow_loop()


def test_a_position_of_another_partition_fences_as_well(stream: Stream) -> None:
    stream.append(0, random_events(50))
    stream.append(1, random_events(50, seed=2))
    both, one = stream.feed(), stream.feed([1], Connection(stream.redis_url))
    stream.apply(one, 1, 20)
    before = stream.rows()
    events, _ = stream.batch(0, 0, 50)
    with pytest.raises(Refused):
        both.apply(events, {0: 50, 1: 50})
    assert stream.rows() == before


def test_a_batch_cut_short_in_the_middle_is_begun_again_and_counts_once(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "ROWS_A_SCRIPT", 5)
    stream.append(0, random_events(300))
    broken = stream.feed()
    sent: list[Sequence[bytes | memoryview]] = []
    post = broken.connection.post

    def cut(raw: Sequence[bytes | memoryview], count: int) -> Posted:
        # Only the first two scripts of the batch reach Redis.
        sent.append(raw)
        if len(sent) <= 2:
            return post(raw, count)
        lost = Posted(Posts(broken.connection), count)
        lost.finish([b"OK", b"QUEUED", [b"FENCE"]])
        return lost

    stream.apply(broken, 0, 100)
    monkeypatch.setattr(broken.connection, "post", cut)
    with pytest.raises(Refused):
        stream.apply(broken, 0, 200)
    monkeypatch.undo()
    assert len(sent) == 4
    assert stream.positions()[0].startswith(b"100/")
    assert stream.positions()[0].endswith(b"/2")
    again = stream.feed()
    assert again.positions[0] == 100
    assert stream.positions()[0] == b"100"
    stream.apply(again, 0)
    stream.assert_equal_to_the_slow_loop()


def test_one_refusal_refuses_all_scripts_that_were_sent_ahead(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "ROWS_A_SCRIPT", 5)
    stream.append(0, random_events(200))
    zombie, owner = stream.feed(), stream.feed(connection=Connection(stream.redis_url))
    stream.apply(owner, 0, 100)
    before = stream.rows()
    with pytest.raises(Refused):
        stream.apply(zombie, 0, 200)
    assert stream.rows() == before
    assert stream.connection.command("KEYS", "hw:beside:*") == []


def test_scripts_left_in_an_old_connection_do_not_pass_for_the_new_batch(stream: Stream) -> None:
    stream.append(0, random_events(10))
    feed = stream.feed()
    first = feed._mark
    feed.begin([0])
    assert feed._mark != first


def test_a_missing_position_is_loss_and_never_offset_0(stream: Stream) -> None:
    stream.append(2, random_events(10))
    feed = stream.feed()
    stream.connection.command("DEL", stream.position_key(2))
    with pytest.raises(Refused):
        stream.apply(feed, 2)
    with pytest.raises(PositionsLost, match="no position for partitions 2"):
        feed.begin([1, 2])


@pytest.mark.parametrize("cut_off", [0.2, 0.6, 0.9])
def test_redis_rolled_back_under_a_worker_is_reread_and_loses_nothing(own_redis, cut_off: float) -> None:
    stream = Stream(own_redis.url)
    stream.append(0, random_events(600))
    feed = stream.feed()
    for end in range(30, 301, 30):
        stream.apply(feed, 0, end)
    own_redis.stop()
    [log] = (own_redis.data_dir / "appendonlydir").glob("*.incr.aof")
    kept = log.read_bytes()
    shutil.copy(log, own_redis.folder / "kept.aof")
    log.write_bytes(kept[: int(len(kept) * cut_off)])
    own_redis.restart()
    stream.connection.reconnect()
    assert int(stream.positions()[0].split(b"/")[0]) < 300
    # The worker's next batch goes on from 300: refused, and so nothing of the lost batches is skipped.
    with pytest.raises(Refused):
        stream.apply(feed, 0, 330)
    feed.begin([0])
    assert feed.positions[0] < 300
    for end in range(feed.positions[0] + 50, 601, 50):
        stream.apply(feed, 0, end)
    stream.apply(feed, 0)
    stream.assert_equal_to_the_slow_loop()
