"""Data sources that Feast does not have: a Kafka topic with a schema, and a BatchView's snapshots.

Their class paths (`headwater.definitions.StreamSource`, `headwater.definitions.SnapshotSource`) are
written into registries, and Feast cannot read a registry whose classes are gone: they are permanent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast import ValueType
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto

from headwater.definitions.expectations import expectation_facts
from headwater.definitions.facts import SourceFacts, decode_source_facts, encode_facts
from headwater.dtypes import vector_name

EVENT_TIMESTAMP = "event_timestamp"
"""The time column of a BatchView's snapshots."""


class _OwnSource(DataSource):  # type: ignore[misc]
    """What Feast wants of every source of ours."""

    def source_type(self) -> Any:
        return DataSourceProto.CUSTOM_SOURCE

    def _to_proto_impl(self) -> Any:
        proto = DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            timestamp_field=self.timestamp_field,
            data_source_class_type=f"{type(self).__module__}.{type(self).__name__}",
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )
        proto.custom_options.configuration = self._configuration().encode()
        return proto

    def _configuration(self) -> str:
        return ""

    def _set_timestamps_in_proto(self, data_source_proto: Any) -> None:
        # Feast stamps sources with the time they were constructed; each apply would then be a change.
        return

    def validate(self, config: Any) -> None:
        # Definitions are validated as a whole, by plans/compile.py.
        return

    def get_table_query_string(self) -> str:
        return str(self.name)

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        return value_type_of

    def __eq__(self, other: object) -> bool:
        return (
            type(self) is type(other)
            and bool(super().__eq__(other))
            and self._configuration() == other._configuration()
        )

    __hash__ = DataSource.__hash__


class StreamSource(_OwnSource):
    """A Kafka topic of events.

    Args:
        name: how views and queries name it.
        topic: the Kafka topic; the source's name where it is left out.
        event_time: the column of type UnixTimestamp that says when the event happened.
        schema: column name -> Feast type (Int64, Float64, String, Bool, UnixTimestamp, Bytes, an Array of one of
            them), or Vector(LENGTH).
        key: the column that `headwater produce` keys messages by.
        tolerance: how far past its broker timestamp an event may be dated, such as "1d".
        expect: expectations that hold for each event; what fails is quarantined.
        format: "json", or "avro" or "protobuf" with a schema registry (its address: `schema.registry.url`
            under `headwater` in feature_store.yaml).
        envelope: "debezium" where the topic holds changes of a table: inserted rows are events.
        updates: in an envelope, "count" makes an updated row an event too; by default they are ignored.
    """

    def __init__(
        self,
        name: str,
        *,
        event_time: str = "",
        schema: Mapping[str, Any] | Sequence[Any] = (),
        topic: str | None = None,
        key: str | None = None,
        tolerance: str = "1h",
        expect: Sequence[Any] = (),
        format: str = "json",
        envelope: str | None = None,
        updates: str = "ignore",
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            name=name, timestamp_field=event_time, description=description, tags=dict(tags or {}), owner=owner
        )
        self.facts = SourceFacts(
            topic=name if topic is None else topic,
            event_time=event_time,
            key=key,
            tolerance=tolerance,
            schema=type_names(schema),
            expect=tuple(expectation_facts(e) for e in expect),
            format=format,
            envelope=envelope,
            updates=updates,
        )

    @property
    def topic(self) -> str:
        """The Kafka topic."""
        return str(self.facts.topic)

    @staticmethod
    def from_proto(data_source: Any) -> StreamSource:
        """The source as a registry holds it."""
        source = StreamSource(
            data_source.name,
            event_time=data_source.timestamp_field,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )
        source.facts = decode_source_facts(data_source.custom_options.configuration)
        return source

    def _configuration(self) -> str:
        return encode_facts(self.facts)

    def get_table_column_names_and_types(self, config: Any) -> Iterable[tuple[str, str]]:
        """Columns and the names of their Feast types."""
        return list(self.facts.schema.items())


class SnapshotSource(_OwnSource):
    """The snapshots of a BatchView in the lake; Feast wants every view to have a source."""

    @staticmethod
    def of(view: str) -> SnapshotSource:
        """The source of the BatchView of that name."""
        return SnapshotSource(name=f"{view}_snapshots", timestamp_field=EVENT_TIMESTAMP)

    @staticmethod
    def from_proto(data_source: Any) -> SnapshotSource:
        """The source as a registry holds it."""
        return SnapshotSource(
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    @property
    def view(self) -> str:
        """The view's name."""
        return str(self.name).removesuffix("_snapshots")

    def get_table_column_names_and_types(self, config: Any) -> Iterable[tuple[str, str]]:
        """Columns and the names of their Feast types, worked out from the repository's queries.

        Feast asks during `feast apply` for views without a schema; `headwater apply` never needs it.
        """
        from headwater.definitions.repositories import repository_plan
        from headwater.dtypes import feast_name
        from headwater.repository import load_repository

        view = repository_plan(load_repository(config.repo_path)).view(self.view)
        return [(f.name, feast_name(f.dtype)) for f in (*view.keys, *view.outputs())]


def value_type_of(name: str) -> ValueType:
    """Feast's ValueType for the name of one of its types, such as "Int64"."""
    return feast_type(name).to_value_type()


def feast_type(name: str) -> Any:
    """Feast's type of its name, such as "Int64" or "Array(Int64)"; String where it has none of that name."""
    import feast.types

    if name.startswith("Array("):
        return feast.types.Array(feast_type(name[6:-1].partition(",")[0]))
    return getattr(feast.types, name, feast.types.String)


def type_names(schema: Mapping[str, Any] | Sequence[Any]) -> dict[str, str]:
    """Column -> name of its Feast type, of a mapping or of a list of Feast fields."""
    if isinstance(schema, Mapping):
        return {str(name): str(dtype) for name, dtype in schema.items()}
    return {str(field.name): _type_name(field) for field in schema}


def _type_name(field: Any) -> str:
    length = getattr(field, "vector_length", 0)
    return vector_name(field.dtype.base_type, length) if length else str(field.dtype)


@dataclass(frozen=True)
class Vector:
    """In a schema: lists of exactly `length` values, such as an embedding. `of` is a Feast type.

    Feast's own way to say it works too: `Field(name=…, dtype=Array(Float32), vector_length=384)`.
    """

    length: int
    of: Any = "Float64"

    def __str__(self) -> str:
        return vector_name(self.of, self.length)


# Feast writes a class's module into the registry; this one stays when the file moves.
StreamSource.__module__ = SnapshotSource.__module__ = "headwater.definitions"
