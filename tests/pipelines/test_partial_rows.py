"""Partial rows: however events are cut into parts, merging the parts gives the bytes that single events give."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from headwater.online.connection import Connection
from pipelines import feeds, partial_rows
from pipelines.consumers import TopicBatch
from pipelines.feeds import Refused, ViewFeed
from pipelines.partial_feeds import PartialFeed
from pipelines.partial_rows import Part, ViewWork, Work, reduce_records
from tests.history.log_factory import HOUR, make_feature
from tests.pipelines.stream_world import DAY, FEATURES, NOON, Stream, random_events, view_of

pytestmark = pytest.mark.redis

MANY = (
    *FEATURES,
    make_feature("var", "price", 30 * DAY, DAY, name="price_var_30d"),
    make_feature("min", "product", name="product_min_1h"),
    make_feature("approx_distinct", "product", 30 * DAY, DAY, name="products_30d"),
    make_feature("first", "price", window=None, name="price_first"),
    make_feature("latest", "product", window=None, name="product"),
    make_feature("latest", "quantity", name="quantity_1h"),
)


class Parts:
    """Brings a stream's fill forward by parts, as a driver does with what its executors made."""

    def __init__(self, stream: Stream, partitions: list[int] | None = None) -> None:
        self.stream = stream
        self.feed = PartialFeed(Connection(stream.redis_url), stream.project, stream.view, stream.fill)
        self.feed.begin(stream.log if partitions is None else partitions)
        self.made_again = 0

    def work(self) -> Work:
        return Work(self.stream.source, (ViewWork(self.stream.view, dict(self.feed.positions)),))

    def reduce(self, work: Work, partition: int, first: int, end: int) -> list[Part]:
        """The part of a range of offsets, in two batches."""
        middle = (first + end) // 2
        ranges = [range(first, middle), range(middle, end)]
        return list(reduce_records(work, [self.batch(partition, r) for r in ranges]))

    def batch(self, partition: int, offsets: range) -> TopicBatch:
        values = [json.dumps(self.stream.log[partition][o]).encode() for o in offsets]
        n = len(values)
        return TopicBatch(
            values, np.full(n, partition), np.array(offsets, np.int64), np.full(n, NOON), np.empty(0, np.int8),
            {partition: offsets.stop} if n else {},
        )  # fmt: skip

    def apply(self, partition: int, *cuts: int) -> None:
        """Bring a partition from its position to the last cut, one part for each range between cuts."""
        ranges = list(zip([self.feed.positions[partition], *cuts[:-1]], cuts, strict=True))

        def parts(work: Work) -> list[Part]:
            return [part for a, b in ranges for part in self.reduce(work, partition, a, b)]

        made = parts(self.work())
        after = self.feed.overlaps([part.views[0] for part in made])
        if after:
            self.made_again += 1
            [view] = self.work().views
            made = parts(replace(self.work(), views=(replace(view, after=after),)))
        self.feed.merge([part.views[0] for part in made], {partition: cuts[-1]})


def twin(stream: Stream) -> Stream:
    """The same events and plan, in rows of their own."""
    other = Stream(stream.redis_url, partitions=len(stream.log), view=msgspec.structs.replace(stream.view))
    other.source, other.view, other.log = stream.source, stream.view, stream.log
    other.fill = msgspec.structs.replace(stream.fill)
    other.begin_fill()
    return other


@pytest.mark.parametrize("keys", [("customer",), ("product", "customer")])
def test_parts_of_any_cut_give_the_bytes_of_single_events(redis_url: str, keys: tuple[str, ...]) -> None:
    by_events = Stream(redis_url, partitions=2, view=view_of(features=MANY, keys=keys, where="quantity > 0"))
    for p in by_events.log:
        by_events.append(p, random_events(400, seed=p))
    by_parts, pick = twin(by_events), random.Random(5)
    feed, parts = by_events.feed(), Parts(by_parts)
    for end in (90, 250, 400):
        for p in (1, 0):
            by_events.apply(feed, p, end)
            parts.apply(p, *sorted(pick.sample(range(parts.feed.positions[p] + 1, end), 3)), end)
    assert by_parts.rows() == by_events.rows()
    assert by_parts.positions() == by_events.positions()
    by_parts.assert_equal_to_the_slow_loop(lambda e: e["quantity"] > 0)


def test_a_table_that_is_full_begins_another_part(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_rows, "TABLE_BYTES", 1)
    stream = Stream(redis_url, partitions=1)
    stream.append(0, random_events(100))
    parts = Parts(stream)
    made = parts.reduce(parts.work(), 0, 0, 100)
    assert [(part.first, part.next) for part in made] == [(0, 50), (50, 100)]
    parts.apply(0, 100)
    stream.assert_equal_to_the_slow_loop()


def test_nulls_are_counted_once_though_a_part_is_made_twice(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=1)
    stream.append(0, [{"customer": None, "ts": NOON, "quantity": 1}, {"customer": 1, "ts": NOON, "price": 1e300}])
    parts = Parts(stream)
    parts.reduce(parts.work(), 0, 0, 2)
    parts.apply(0, 2)
    counted = stream.connection.command("HGETALL", f"hw:count:{stream.project}:spend:f1")
    assert counted == [b"null_keys", b"1", b"scaled_nulls", b"1"]


def test_after_a_batch_that_broke_off_rows_take_only_what_they_lack(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker broke off in [0, 200): some rows have its events, others none; the next cuts are others."""
    stream = Stream(redis_url, partitions=1)
    stream.append(0, random_events(400))
    monkeypatch.setattr(feeds, "ROWS_A_SCRIPT", 3)
    break_off(stream, 0, 200, scripts=4)
    assert 0 < len(stream.rows()) < 20
    parts = Parts(stream)
    assert parts.feed.positions == {0: 0}
    for end in (50, 130, 300, 400):
        parts.apply(0, end - 20, end)
    # At 50 and 130 the rows lie ahead; the batch of 130 to 300 ends behind what they have and begins before it.
    assert parts.made_again == 1
    stream.assert_equal_to_the_slow_loop()


def break_off(stream: Stream, partition: int, end: int, scripts: int) -> None:
    """A worker that dies when Redis has taken this many scripts of a batch."""
    feed = stream.feed(connection=Connection(stream.redis_url))
    request, sent = ViewFeed._request, []

    def cut(self, chunk, i, moving, counts):
        sent.append(i)
        # From here on nothing is a position that Redis knows.
        return request(self, chunk, i if i < scripts else i + 1_000, moving, counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ViewFeed, "_request", cut)
        with pytest.raises(Refused):
            stream.apply(feed, partition, end)
    assert len(sent) > scripts
    assert stream.positions()[partition].endswith(b"/%d" % scripts)


def test_parts_and_events_write_the_same_rows_and_nothing_is_lost(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=2, view=view_of(keys=("product",)))
    for p in (0, 1):
        stream.append(p, random_events(600, seed=p))
    parts, feed = Parts(stream, [0]), stream.feed([1], Connection(redis_url))
    for end in range(60, 601, 60):
        parts.apply(0, end - 20, end)
        stream.apply(feed, 1, end)
    assert min(parts.feed.conflicts, feed.conflicts) > 20
    stream.assert_equal_to_the_slow_loop()


def test_parts_of_an_old_position_are_refused_and_write_nothing(redis_url: str) -> None:
    stream = Stream(redis_url, partitions=1)
    stream.append(0, random_events(200))
    parts, owner = Parts(stream), stream.feed(connection=Connection(redis_url))
    stream.apply(owner, 0, 120)
    before = stream.rows()
    with pytest.raises(Refused):
        parts.apply(0, 150)
    assert (stream.rows(), stream.positions()) == (before, [b"120"])
    parts.feed.begin([0])
    parts.apply(0, 200)
    stream.assert_equal_to_the_slow_loop()


def test_late_events_of_a_part_fall_out_of_the_window_that_the_row_has_reached(redis_url: str) -> None:
    #   part 2 (late)    part 1
    #   |                |       the row's window of 1 h is over part 1's hour when part 2 comes
    stream = Stream(redis_url, partitions=1)
    stream.append(0, [{"customer": 7, "ts": NOON + 90 * HOUR, "price": 2.0, "quantity": 1}])
    stream.append(0, [{"customer": 7, "ts": NOON + i, "price": 1.0, "quantity": 1} for i in range(5)])
    by_events = twin(stream)
    parts = Parts(stream)
    parts.apply(0, 1)
    parts.apply(0, 6)
    by_events.apply(by_events.feed(), 0, 6)
    assert stream.rows() == by_events.rows()
