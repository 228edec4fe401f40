"""Keys that exist: found in Redis by a bounded scan, and read back from their text."""

from __future__ import annotations

import struct
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.online.connection import Connection
from headwater.online.keys import entity_key, row_prefix
from headwater.online.published import Active
from headwater.plans.plan import BatchView, Field
from marketplace.examples import find_examples, parse_entity_key
from marketplace.facts import ExampleRow


@given(st.tuples(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(alphabet="|\\a")))
def test_an_entity_key_reads_back_as_the_values_it_was_made_of(values: tuple[object, ...]) -> None:
    fields = [Field("a", "string"), Field("b", "int64"), Field("c", "bool"), Field("d", "string")]
    assert tuple(parse_entity_key(entity_key(values), fields).values()) == values
    assert parse_entity_key(entity_key(values[:1]), fields[:1]) == {"a": values[0]}


@pytest.mark.redis
def test_rows_of_one_fill_are_found_among_others(redis_url: str) -> None:
    project = f"t[{uuid.uuid4().hex[:6]}]*"
    view: Any = BatchView(
        "orders", ("customer", "country"), (Field("customer_id", "int64"), Field("country", "string")), "SELECT 1",
        None, (), "ab" * 8,
    )  # fmt: skip
    row = struct.pack("<QQQq", 1, 2, 3, 1_700_000_000_000_000)
    connection = Connection(redis_url)
    for fill, values in (("new", (17850, "United|Kingdom")), ("old", (1, "France"))):
        connection.command("SET", row_prefix(project, "orders", view.state_hash, fill) + entity_key(values), row)
    connection.close()
    found = find_examples(redis_url, project, Active("new", view), 5)
    assert found == (ExampleRow({"customer_id": 17850, "country": "United|Kingdom"}, 1_700_000_000_000_000),)
    assert find_examples(redis_url, project, Active("none", view), 5) == ()
