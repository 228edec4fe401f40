"""Rule 2: one way to write a row, so that any number of workers may feed the same rows."""

from __future__ import annotations

import pytest

from headwater.online.connection import Connection
from pipelines.feeds import ViewFeed
from tests.pipelines.stream_world import Stream, random_events, view_of

# Rows that are never read again are refused for ever.
pytestmark = [pytest.mark.redis, pytest.mark.timeout(60)]


def test_two_feeds_of_other_partitions_write_the_same_rows_and_nothing_is_lost(redis_url: str) -> None:
    # The topic is keyed by customer, this view by product: both partitions have events of every row.
    stream = Stream(redis_url, partitions=2, view=view_of(keys=("product",)))
    feeds = []
    for p in (0, 1):
        stream.append(p, random_events(1000, seed=p))
        feeds.append(stream.feed([p], Connection(redis_url)))
    for end in range(50, 1001, 50):
        for p, feed in enumerate(feeds):
            stream.apply(feed, p, end)
    assert min(feed.conflicts for feed in feeds) > 50
    stream.assert_equal_to_the_slow_loop()


def test_a_conflict_in_one_of_several_scripts_counts_everything_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.feeds.ROWS_A_SCRIPT", 4)
    stream = Stream(redis_url, partitions=2, view=view_of(keys=("product", "customer"), where="quantity > 0"))
    feeds = []
    for p in (0, 1):
        events = random_events(900, seed=p, customers=5)
        events[7]["customer"] = None
        events[7]["quantity"] = 1
        stream.append(p, events)
        feeds.append(stream.feed([p], Connection(redis_url)))
    for end in range(90, 901, 90):
        for p, feed in enumerate(feeds):
            stream.apply(feed, p, end)
    assert sum(feed.conflicts for feed in feeds) > 50
    stream.assert_equal_to_the_slow_loop(lambda e: e["quantity"] > 0)
    counted = stream.connection.command("HGETALL", f"hw:count:{stream.project}:spend:f1")
    assert counted == [b"null_keys", b"2"]
    # Neither moved to a row nor left where it was set.
    assert stream.connection.command("KEYS", "hw:beside:*") == []


def test_a_server_that_forgot_the_script_learns_it_again_and_no_value_stays_beside(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.feeds.ROWS_A_SCRIPT", 4)
    stream = Stream(redis_url, partitions=1)
    stream.append(0, random_events(200))
    feed = stream.feed()
    stream.apply(feed, 0, 100)
    stream.connection.command("SCRIPT", "FLUSH")
    stream.apply(feed, 0, 200)
    stream.assert_equal_to_the_slow_loop()
    assert stream.connection.command("KEYS", "hw:beside:*") == []


def test_a_row_that_expired_or_was_deleted_under_the_cache_is_read_again(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=1)
    stream.append(0, random_events(40, customers=1))
    feed = stream.feed()
    stream.apply(feed, 0, 20)
    [key] = stream.rows()
    prefix = f"hw:row:{stream.project}:spend:{stream.view.state_hash}:f1:".encode()
    stream.connection.command("DEL", prefix + key)
    stream.apply(feed, 0, 40)
    assert feed.conflicts == 1
    # Not what the cache had: only what the row in Redis, which was none, and this batch make.
    stream.log[0] = stream.log[0][20:]
    stream.assert_equal_to_the_slow_loop()


def test_a_partition_that_was_added_later_starts_at_0_and_shares_the_rows(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=2)
    for p in (0, 1):
        stream.append(p, random_events(100, seed=p))
    feed = stream.feed()
    stream.apply(feed, 0)
    stream.apply(feed, 1)
    stream.append(2, random_events(100, seed=2))
    other: ViewFeed = stream.feed([2], Connection(redis_url))
    assert other.positions == {2: 0}
    stream.apply(other, 2)
    stream.append(0, random_events(100, seed=3))
    stream.apply(feed, 0)
    assert feed.conflicts > 0
    stream.assert_equal_to_the_slow_loop()


@pytest.mark.parametrize(
    ("most", "scripts"), [(80_000, [556, 556, 550, 338, 500]), (None, [1_000, 1_000, 500]), (1, [1] * 2_500)]
)
def test_a_script_writes_a_thousand_rows_at_most_and_what_fits_a_cache(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, most: int | None, scripts: list[int]
) -> None:
    if most is not None:
        monkeypatch.setattr("pipelines.feeds.BYTES_A_SCRIPT", most)
    stream = Stream(redis_url, partitions=1, view=view_of(keys=("product",)))
    events = random_events(2_500)
    for i, event in enumerate(events):
        event["product"] = f"p{1000 + i}"
    stream.append(0, events)
    feed, sent = stream.feed(), []
    request = feed._request
    monkeypatch.setattr(
        feed,
        "_request",
        lambda chunk, *rest: (sent.append((len(chunk.rows), len(chunk.commands))), request(chunk, *rest))[1],
    )
    stream.apply(feed, 0)
    assert [rows for rows, _ in sent] == scripts
    assert all(rows == 1 or size <= (most or 160_000) for rows, size in sent)
    assert len(stream.rows()) == 2_500
