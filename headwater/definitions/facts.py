"""What our definitions say beyond Feast's own fields, as plain data that survives Feast's registry.

Apart from the definition classes because views come back from the registry as Feast's own
classes: whoever reads facts does so by the functions here, never by `isinstance`. A view's
facts are JSON in its tag `headwater.facts`; a source's are in its custom options. Nothing is
checked here: `plans/compile.py` does that, and names every mistake at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

FACTS = "headwater.facts"
"""The tag of a Feast view that holds its facts. It is no tag of the user's, and never shown as one."""


class OperatorFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operator of a view as it was written."""

    function: str
    column: Any = None
    over: Any = None
    where: Any = None
    name: Any = None
    hop: Any = None
    scale: Any = None
    n: Any = None
    limit: Any = None
    q: Any = None


class ExpectationFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """One expectation as it was written."""

    kind: str
    column: Any = None
    minimum: Any = None
    maximum: Any = None
    values: Any = None
    mostly: Any = 1.0


class SourceFacts(msgspec.Struct, frozen=True):
    """A StreamSource; `schema` holds the names of Feast types."""

    topic: Any
    event_time: Any
    key: Any
    tolerance: Any
    schema: dict[str, str]
    expect: tuple[ExpectationFacts, ...] = ()
    format: Any = "json"
    envelope: Any = None
    updates: Any = "ignore"


class StreamFacts(msgspec.Struct, frozen=True, tag="stream", tag_field="type"):
    """A StreamView; `source` is the source's name, `entities` are names in the order of the key.

    Feast keeps a view's entities too, but does not notice when only their order changes.
    """

    entities: tuple[str, ...]
    source: Any
    where: Any
    derive: Any
    features: tuple[OperatorFacts, ...]
    freshness: Any = None
    expect: tuple[ExpectationFacts, ...] = ()
    ttl: Any = None


class BatchFacts(msgspec.Struct, frozen=True, tag="batch", tag_field="type"):
    """A BatchView. `schema` (names of Feast types) is None where the query decides."""

    entities: tuple[str, ...]
    sql: Any
    ttl: Any = None
    schema: dict[str, str] | None = None
    freshness: Any = None
    expect: tuple[ExpectationFacts, ...] = ()


ViewFacts = StreamFacts | BatchFacts


def encode_facts(facts: SourceFacts | ViewFacts) -> str:
    """The facts as JSON, columns in the order of the definition. What JSON cannot say is kept as its repr."""
    return msgspec.json.encode(facts, enc_hook=repr).decode()


def decode_source_facts(data: str | bytes) -> SourceFacts:
    """The inverse of `encode_facts` for a source."""
    return _source_facts.decode(data)


def facts_of(view: Any) -> ViewFacts | None:
    """The facts of a Feast view; None for Feast's own views."""
    text = (getattr(view, "tags", None) or {}).get(FACTS)
    return None if text is None else _view_facts.decode(text)


_source_facts, _view_facts = msgspec.json.Decoder(SourceFacts), msgspec.json.Decoder(StreamFacts | BatchFacts)


def user_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that the user wrote: all but ours."""
    return {k: v for k, v in tags.items() if k != FACTS}
