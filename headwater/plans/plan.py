"""The compiled definitions: what workers, servers and the check run, without Feast.

A plan is plain data (msgspec structs, JSON in Redis). Durations are microseconds,
expressions are trees, names are resolved. `plans/compile.py` makes it of Feast objects,
`online/plan_store.py` publishes and loads it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, Union

import msgspec

from headwater.dtypes import Dtype
from headwater.expressions.syntax import Expr

Format = Literal["json", "avro", "protobuf"]
"""How the events of a topic are written."""
Envelope = Literal["debezium"]
"""What a topic's events come in, where they do not come alone."""
Updates = Literal["ignore", "count"]
"""Whether an updated row in an envelope is an event."""
CODEC_VERSION = 2
"""Version of the row's bytes (rows/codec.py); part of every state hash."""


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named, typed column of a source, a join key or a feature. `length`: how many values its lists have, if fixed."""

    name: str
    dtype: Dtype
    length: int | None = None


class Expectation(msgspec.Struct, frozen=True):
    """What should hold of a column: kind is "between", "not_null" or "in_set".

    `mostly` below 1 reports and never withholds an event (stream.md, 4).
    """

    kind: str
    column: str
    minimum: float | int | None = None
    maximum: float | int | None = None
    values: tuple[str | int | float | bool, ...] = ()
    mostly: float = 1.0

    @property
    def withholds(self) -> bool:
        """Whether, on a source, it quarantines single events."""
        return self.mostly >= 1.0


class Source(msgspec.Struct, frozen=True):
    """A Kafka topic of events. `tolerance`: microseconds an event may lie past its broker time.

    `format`: "json", or "avro" or "protobuf" with a schema registry. `envelope`, `updates`: see events/debezium.py.
    """

    name: str
    topic: str
    event_time: str
    key: str | None
    tolerance: int
    fields: tuple[Field, ...]
    expectations: tuple[Expectation, ...] = ()
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}
    format: Format = "json"
    envelope: Envelope | None = None
    updates: Updates = "ignore"

    def field(self, name: str) -> Field:
        """The field of that name (KeyError where there is none)."""
        return {f.name: f for f in self.fields}[name]


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One windowed aggregate. `window` and `hop` are microseconds, both None for the lifetime window.

    `n`: how many values last_n and top_k give. `limit`: how many values distinct and top_k tell apart.
    `q`: which quantile, 0 to 1. `length`: how many values each list has, if that is fixed.
    """

    name: str
    function: str
    column: str | None
    column_dtype: Dtype | None
    window: int | None
    hop: int | None
    where: Expr | None
    scale: int
    dtype: Dtype
    n: int | None = None
    limit: int | None = None
    q: float | None = None
    length: int | None = None


class Derived(msgspec.Struct, frozen=True):
    """A derived column, evaluated in the order of the view's `derive`."""

    name: str
    expr: Expr


class StreamView(msgspec.Struct, frozen=True, tag="stream", tag_field="type"):
    """Windowed aggregates over one source, by one or several join keys.

    `ttl`: microseconds that a key's newest event is served, None for ever. It is judged when values are read, so it
    is no part of the state hash.
    """

    name: str
    entities: tuple[str, ...]
    keys: tuple[Field, ...]
    source: str
    where: Expr | None
    derive: tuple[Derived, ...]
    features: tuple[Feature, ...]
    state_hash: str
    freshness: int | None = None
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}
    expectations: tuple[Expectation, ...] = ()
    where_text: str = ""
    derive_text: dict[str, str] = {}
    ttl: int | None = None

    def hops(self) -> dict[int, int]:
        """Hop -> the longest window kept at that hop, both microseconds, hops rising; no lifetime."""
        longest: dict[int, int] = {}
        for f in self.features:
            if f.hop is not None and f.window is not None:
                longest[f.hop] = max(longest.get(f.hop, 0), f.window)
        return dict(sorted(longest.items()))

    def outputs(self) -> tuple[Field, ...]:
        """The features as named, typed columns."""
        return tuple(Field(f.name, f.dtype, f.length) for f in self.features)


class BatchView(msgspec.Struct, frozen=True, tag="batch", tag_field="type"):
    """The result of a SQL query over lake tables, a snapshot a run. `ttl`: microseconds, None for ever."""

    name: str
    entities: tuple[str, ...]
    keys: tuple[Field, ...]
    sql: str
    ttl: int | None
    features: tuple[Field, ...]
    state_hash: str
    freshness: int | None = None
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}
    expectations: tuple[Expectation, ...] = ()

    def outputs(self) -> tuple[Field, ...]:
        """The features as named, typed columns."""
        return self.features


View = Union[StreamView, BatchView]  # noqa: UP007


class Service(msgspec.Struct, frozen=True):
    """A feature service: (view, its feature names) in order."""

    name: str
    features: tuple[tuple[str, tuple[str, ...]], ...]
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}


class Plan(msgspec.Struct, frozen=True):
    """All compiled definitions of a project."""

    project: str
    sources: tuple[Source, ...] = ()
    views: tuple[View, ...] = ()
    services: tuple[Service, ...] = ()

    def view(self, name: str) -> View:
        """The view of that name (KeyError where there is none)."""
        return {v.name: v for v in self.views}[name]

    def source(self, name: str) -> Source:
        """The source of that name (KeyError where there is none)."""
        return {s.name: s for s in self.sources}[name]

    def service(self, name: str) -> Service:
        """The service of that name (KeyError where there is none)."""
        return {s.name: s for s in self.services}[name]

    def stream_views(self) -> tuple[StreamView, ...]:
        """The views that workers feed."""
        return tuple(v for v in self.views if isinstance(v, StreamView))

    def batch_views(self) -> tuple[BatchView, ...]:
        """The views that `materialize` computes."""
        return tuple(v for v in self.views if isinstance(v, BatchView))


def encode_plan(plan: Plan) -> bytes:
    """The plan as JSON, the same bytes for equal plans."""
    return msgspec.json.encode(plan, order="deterministic")


def decode_plan(data: bytes) -> Plan:
    """The inverse of `encode_plan`."""
    return _plan.decode(data)


# Made while the module is imported, as all decoders are: msgspec prepares a type when it is first decoded, and two
# threads that do so at once end the process (msgspec 0.22: a segmentation fault).
_plan = msgspec.json.Decoder(Plan)


def hash_of(facts: Any) -> str:
    """16 hex digits over the canonical JSON of plain data: the state hash of a view.

    For a StreamView the facts are all that changes a value's meaning: codec version, the source's
    topic, format (but JSON), envelope, event time, tolerance, schema and withholding expectations, and the view's keys, where,
    derive and features. For a BatchView: keys, SQL, features. Never owner, tags or descriptions.
    """
    return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()[:16]


def stream_state_hash(view: StreamView, source: Source) -> str:
    """The state hash of a windowed view over its source (`view.state_hash` itself is not looked at)."""
    withholding = tuple(e for e in source.expectations if e.withholds)
    form = () if source.format == "json" else (source.format,)
    if source.envelope is not None:
        form = (*form, source.envelope, source.updates)
    return hash_of(
        [CODEC_VERSION, source.topic, source.event_time, source.tolerance, source.fields, withholding,
         view.keys, view.where, view.derive, view.features, *form]
    )  # fmt: skip


def batch_state_hash(view: BatchView) -> str:
    """The state hash of a BatchView (`view.state_hash` itself is not looked at)."""
    return hash_of([CODEC_VERSION, view.keys, view.sql, view.features])
