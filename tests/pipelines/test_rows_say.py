"""Rule 3: what a row says of itself depends on its events alone, and how long it stays on the clock alone."""

from __future__ import annotations

import random

import pytest

from headwater.online.connection import Connection
from headwater.rows.codec import decode, read_header
from headwater.rows.layout import layout_of
from headwater.rows.reader import ViewReader
from tests.history.log_factory import HOUR, MINUTE, make_feature
from tests.history.naive import naive_answers, spec_of
from tests.pipelines.stream_world import DAY, NOON, POSITIVE, Stream, random_events, view_of

pytestmark = pytest.mark.redis
WINDOWED = (
    make_feature("count", name="n_1h"),
    make_feature("sum", "price", 3 * HOUR, name="price_3h"),
    make_feature("max", "quantity", 3 * DAY, HOUR, name="quantity_3d"),
)


def line(customer: int | None, at: int, quantity: int = 1) -> dict:
    return {"customer": customer, "ts": at, "quantity": quantity, "price": 1.5}


def partitions(stream: Stream, key: bytes) -> tuple:
    return read_header(stream.rows()[key]).partitions


def test_a_row_names_where_each_partition_was_born_and_what_was_applied_last(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=3, view=view_of(where=POSITIVE[0]))
    # offsets        0              1              2              3 fails `where`        4 has no key
    stream.append(0, [line(2, NOON), line(1, NOON), line(1, NOON), line(1, NOON, 0), line(None, NOON)])
    stream.append(2, [line(1, NOON, 0), line(1, NOON)])
    feed = stream.feed()
    for partition in (0, 2):
        stream.apply(feed, partition)
    assert stream.positions() == [b"5", b"0", b"2"]
    #                                        partition, born, applied
    assert partitions(stream, b"1") == ((0, 1, 2), (2, 1, 1))
    assert partitions(stream, b"2") == ((0, 0, 0),)
    stream.append(0, [line(1, NOON)])
    stream.apply(feed, 0)
    assert partitions(stream, b"1") == ((0, 1, 5), (2, 1, 1))


def test_an_event_too_late_for_any_tile_is_applied_all_the_same_and_changes_no_value(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=1, view=view_of(features=WINDOWED))
    stream.append(0, [line(1, NOON), line(1, NOON - 40 * DAY)])
    feed = stream.feed()
    stream.apply(feed, 0, 1)
    before = decoded(stream, b"1")
    stream.apply(feed, 0, 2)
    assert partitions(stream, b"1") == ((0, 0, 1),)
    after = decoded(stream, b"1")
    assert after.newest.tolist() == before.newest.tolist() == [NOON]
    assert [g.tile.tolist() for g in after.groups] == [g.tile.tolist() for g in before.groups]
    stream.assert_equal_to_the_slow_loop()


def decoded(stream: Stream, key: bytes):
    return decode(layout_of(stream.view), [stream.rows()[key]])


@pytest.mark.parametrize("seed", range(4))
def test_bytes_do_not_depend_on_cuts_nor_on_who_wrote_nor_on_what_was_read_again(redis_url: str, seed: int) -> None:
    #   one feed, one batch a partition        other feeds, other cuts, partitions in turn, one of them restarted
    whole = Stream(redis_url, partitions=2, view=view_of(features=WINDOWED, keys=("product",), where=POSITIVE[0]))
    other = Stream(redis_url, partitions=2)
    other.view = whole.view
    for p in (0, 1):
        events = random_events(300, seed=10 * seed + p)
        whole.append(p, events)
        other.append(p, events)
        feed = whole.feed([p])
        whole.apply(feed, p)
    pick = random.Random(seed)
    feeds = [other.feed([0]), other.feed([1], Connection(redis_url))]
    while any(feed.positions[p] < 300 for p, feed in enumerate(feeds)):
        p = pick.randrange(2)
        other.apply(feeds[p], p, min(300, feeds[p].positions[p] + pick.randrange(1, 70)))
        if pick.random() < 0.2:
            feeds[p].begin([p])
    assert other.rows() == whole.rows()
    whole.assert_equal_to_the_slow_loop(POSITIVE[1])


def test_tiles_that_no_window_can_see_any_more_are_pruned_at_every_write(redis_url: str) -> None:
    #            1h of 5 min                            |<---- 13 tiles at most ---->|
    #   ...........................................NOON |                            | NOON + 6h
    stream = Stream(redis_url, partitions=1, view=view_of(features=WINDOWED))
    stream.append(0, [line(1, NOON + i * 7 * MINUTE) for i in range(50)])
    stream.append(0, [line(1, NOON + 6 * HOUR), line(1, NOON)])
    feed = stream.feed()
    for end in range(1, 53):
        stream.apply(feed, 0, end)
        row, newest = decoded(stream, b"1"), max(e["ts"] for e in stream.log[0][:end])
        assert row.newest.tolist() == [newest]
        events = {e["ts"] for e in stream.log[0][:end]}
        for group, longest, hop in zip(row.groups, (3 * HOUR, 3 * DAY), (5 * MINUTE, HOUR), strict=True):
            first = (newest + 1 - longest) // hop
            assert group.tile.tolist() == sorted({t // hop for t in events if t // hop >= first})
    stream.assert_equal_to_the_slow_loop()


def test_rows_read_again_after_a_conflict_are_pruned_alike(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=2, view=view_of(features=WINDOWED))
    stream.append(0, [line(1, NOON), line(1, NOON + 9 * HOUR)])
    stream.append(1, [line(1, NOON + MINUTE), line(1, NOON + 2 * MINUTE)])
    slow, fast = stream.feed([1]), stream.feed([0], Connection(redis_url))
    stream.apply(slow, 1, 1)
    stream.apply(fast, 0)
    # What the first feed has cached ends at NOON; the row in Redis is nine hours further.
    stream.apply(slow, 1)
    assert slow.conflicts == 1
    assert decoded(stream, b"1").groups[0].tile.tolist() == [(NOON + 9 * HOUR) // (5 * MINUTE)]
    assert partitions(stream, b"1") == ((0, 0, 1), (1, 0, 1))
    stream.assert_equal_to_the_slow_loop()


@pytest.mark.parametrize("as_of", [NOON - DAY, NOON, NOON + 1, NOON + HOUR])
def test_a_read_happens_just_after_the_newest_event_or_at_the_time_asked_for(redis_url: str, as_of: int) -> None:
    stream = Stream(redis_url, partitions=1, view=view_of(features=WINDOWED))
    stream.append(0, [line(1, NOON - HOUR), line(1, NOON), line(1, NOON - 2 * HOUR)])
    stream.apply(stream.feed(), 0)
    [expected] = naive_answers(stream.log[0], spec_of(stream.view, "ts"), [((1,), max(as_of, NOON + 1))])
    # Few rows and many are read in two ways.
    for copies in (1, 300):
        read = ViewReader(stream.view).read([stream.rows()[b"1"]] * copies, as_of)
        assert read.effective == [max(as_of, NOON + 1)] * copies
        assert read.values == {name: [value] * copies for name, value in expected.items()}
    # The window is open at its end: at NOON itself the newest event would not count.
    assert naive_answers(stream.log[0], spec_of(stream.view, "ts"), [((1,), NOON)])[0] != expected or as_of > NOON + 1


def clock(stream: Stream) -> int:
    seconds, micros = stream.connection.command("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def expires_at(stream: Stream, key: bytes) -> int:
    prefix = f"hw:row:{stream.project}:spend:{stream.view.state_hash}:f1:".encode()
    return stream.connection.command("PEXPIRETIME", prefix + key)


def test_a_row_expires_by_the_clock_of_its_last_write_whatever_the_time_of_its_events(redis_url: str) -> None:
    # Longest window with its hop, the topic's retention (1 day), and a week.
    stays = (3 * DAY + HOUR + DAY + 7 * DAY) // 1000
    stream = Stream(redis_url, partitions=1, view=view_of(features=WINDOWED))
    stream.append(0, [line(1, NOON), line(2, NOON - 90 * DAY), line(1, NOON - 2 * HOUR)])
    feed = stream.feed()
    before = clock(stream)
    stream.apply(feed, 0, 2)
    between = clock(stream)
    for key in (b"1", b"2"):
        assert before + stays <= expires_at(stream, key) <= between + stays
    stream.apply(feed, 0)
    assert between + stays <= expires_at(stream, b"1") <= clock(stream) + stays
    assert expires_at(stream, b"2") <= between + stays


@pytest.mark.parametrize(
    ("features", "retention_ms"),
    [
        ((*WINDOWED, make_feature("count", window=None, name="n")), DAY // 1000),
        (WINDOWED, -1),
        (WINDOWED, 2**63 - 1),
    ],
    ids=["lifetime", "a topic that keeps everything", "and one that says so with a large number"],
)
def test_lifetime_rows_and_those_of_topics_that_keep_everything_stay(redis_url: str, features, retention_ms) -> None:
    stream = Stream(redis_url, partitions=1, view=view_of(features=features), retention_ms=retention_ms)
    stream.append(0, [line(1, NOON)])
    stream.apply(stream.feed(), 0)
    assert expires_at(stream, b"1") == -1


def test_a_row_that_expired_begins_anew_and_says_where(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=1, view=view_of(features=WINDOWED))
    stream.append(0, [line(1, NOON), line(1, NOON + MINUTE), line(1, NOON + 2 * MINUTE)])
    feed = stream.feed()
    stream.apply(feed, 0, 2)
    prefix = f"hw:row:{stream.project}:spend:{stream.view.state_hash}:f1:".encode()
    stream.connection.command("PEXPIRE", prefix + b"1", 0)
    feed.begin([0])
    stream.apply(feed, 0)
    assert partitions(stream, b"1") == ((0, 2, 2),)
