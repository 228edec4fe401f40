"""A worker that meets a row which it cannot read ends, and says which row it is."""

from __future__ import annotations

import re

import pytest

from headwater.errors import ReadError
from headwater.online.keys import row_prefix
from tests.pipelines.stream_world import NOON, Stream, view_of

pytestmark = pytest.mark.redis


@pytest.mark.parametrize(
    ("keys", "key", "said"),
    [
        (("customer",), b"7", "View 'spend': the row of customer=7 cannot be read: "),
        (("customer", "product"), b"7|a b", "View 'spend': the row of customer=7,product=a b cannot be read: "),
    ],
)
def test_the_error_names_the_view_the_entity_and_the_repair(redis_url: str, keys, key: bytes, said: str) -> None:
    stream = Stream(redis_url, partitions=1, view=view_of(keys=keys))
    events = [{"customer": c, "product": "a b", "ts": NOON, "price": 1.0, "quantity": 1} for c in (5, 6, 7, 8)]
    stream.append(0, events)
    stream.apply(stream.feed(), 0)
    name = row_prefix(stream.project, "spend", stream.view.state_hash, stream.fill.id) + key
    row = stream.connection.command("GET", name)
    stream.connection.command("SET", name, row[:-8])
    stream.append(0, events)
    with pytest.raises(ReadError, match=re.escape(said)) as raised:
        stream.apply(stream.feed(), 0)
    assert "Run 'headwater repair spend --entity " in str(raised.value)
    assert stream.positions() == [b"4"]
    stream.connection.command("SET", name, row)
    stream.apply(stream.feed(), 0)
    stream.assert_equal_to_the_slow_loop()
