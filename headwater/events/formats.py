"""The formats of events: which decoder a source's events go through.

JSON needs no schema registry (decode.py). Avro and Protobuf come in Confluent's wire format: a byte 0, the
schema's id in 4 bytes, the most significant first, then (Protobuf) which message of the schema it is, then
the value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from headwater.errors import MissingExtra, UsageError
from headwater.events.assembly import Assembly
from headwater.events.cursor import Cursor, Ints, Rows, pick
from headwater.events.debezium import TOMBSTONE, DebeziumDecoder, wrapped
from headwater.events.decode import Decoded, Decoder
from headwater.events.payloads import Payloads
from headwater.events.schemas import Schema, Schemas
from headwater.plans.plan import Source

if TYPE_CHECKING:
    import polars as pl

_KINDS = {"avro": "AVRO", "protobuf": "PROTOBUF"}
_PACKAGES = {"avro": "fastavro", "protobuf": "google.protobuf"}


class EventDecoder(Protocol):
    """Decodes the events of one source. What becomes of an event does not depend on the others."""

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """The columns of all values that fit, and the reasons of all that do not.

        Raises:
            RegistryUnreachable: a schema is not known yet, and the registry does not answer.
        """
        ...


class SchemaReader(Protocol):
    """Reads the events of one schema. At first, positions are behind the schema's id."""

    def read(self, cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        """Put the events' values into the columns; events that do not fit die in the cursor."""
        ...


def decoder_of(source: Source, schemas: Schemas | None, columns: Collection[str] | None = None) -> EventDecoder:
    """The decoder of a source's format. `columns`: those that are needed, so that others may be left out; None for all.

    Raises:
        UsageError: the format needs a schema registry, and there is none.
        MissingExtra: the format's package is not installed.
    """
    if source.format == "json":
        return Decoder(source, columns) if source.envelope is None else DebeziumDecoder(source, columns)
    _need_package(source.format)
    # Without an address this says so, before anything is read.
    schemas = schemas or Schemas()
    assert schemas.url
    return RegistryDecoder(source, schemas, _maker(source.format))


def encoder_of(source: Source, schemas: Schemas) -> Callable[[pl.DataFrame], list[bytes]]:
    """Writes rows as events of a source's format; the frames come from `json_rows.typed`.

    Raises:
        UsageError, MissingExtra: as `decoder_of`, or the newest schema of the topic does not fit the source.
        RegistryUnreachable: the schema registry does not answer.
    """
    if source.format == "json":
        from headwater.events.json_rows import json_rows

        return json_rows if source.envelope is None else lambda frame: wrapped(json_rows(frame))
    if source.envelope is not None:
        raise UsageError(
            f"Source {source.name!r}: 'headwater produce' writes no envelopes in {source.format.capitalize()}. "
            f"Send such events with Debezium itself, or with a producer of your own."
        )
    _need_package(source.format)
    if source.format == "avro":
        from headwater.events.avro_rows import AvroRows

        return AvroRows(source, schemas)
    from headwater.events.protobuf_rows import ProtobufRows

    return ProtobufRows(source, schemas)


class RegistryDecoder:
    """Decodes events that name their schema."""

    def __init__(self, source: Source, schemas: Schemas, make: Callable[[Source, Schema], SchemaReader]) -> None:
        self._source, self._schemas, self._make = source, schemas, make
        self._readers: dict[int, SchemaReader | str] = {}

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        values = Payloads.of(values)
        cursor = Cursor(values)
        columns = Assembly(self._source.fields, len(values))
        if self._source.envelope is not None:
            cursor.ignore(np.flatnonzero(values.null), TOMBSTONE)
        if len(values):
            ids = self._ids(cursor, values)
            alive = cursor.alive(slice(None))
            found = np.unique(ids[alive]).tolist()
            for schema_id in found:
                only = len(found) == 1 and bool(alive.all())
                self._read(
                    schema_id, cursor, slice(None) if only else np.flatnonzero(alive & (ids == schema_id)), columns
                )
        return columns.decoded(cursor.reasons, cursor.ignored)

    def _read(self, schema_id: int, cursor: Cursor, rows: Rows, columns: Assembly) -> None:
        reader = self._reader(schema_id)
        cursor.place = f"schema {schema_id}: "
        if isinstance(reader, str):
            cursor.fail(rows, reader)
        else:
            reader.read(cursor, rows, columns)

    def _reader(self, schema_id: int) -> SchemaReader | str:
        """The schema's reader, or why its events cannot be read."""
        if (known := self._readers.get(schema_id)) is not None:
            return known
        schema = self._schemas.get(schema_id)
        if schema is None:
            return "the schema registry has no schema of that id"
        wanted = _KINDS[self._source.format]
        reader: SchemaReader | str
        try:
            reader = self._make(self._source, schema) if schema.kind == wanted else (
                f"expected a schema of type {wanted}, got {schema.kind}")  # fmt: skip
        except ValueError as error:
            reader = str(error)
        self._readers[schema_id] = reader
        return reader

    def _ids(self, cursor: Cursor, values: Sequence[bytes | None]) -> Ints:
        all_rows = slice(None)
        size = cursor.end - cursor.at
        empty, short = size == 0, size < 5
        if empty.any():
            cursor.fail(pick(all_rows, empty), lambda i: _empty(values[int(np.flatnonzero(empty)[i])]))
        if short.any():
            cursor.fail(pick(all_rows, short), "no schema id: the value has less than 5 bytes")
        head = cursor.word(all_rows, 5)
        unmarked = (head & np.uint64(0xFF)) != 0
        if unmarked.any():
            first = head[unmarked] & np.uint64(0xFF)
            cursor.fail(
                pick(all_rows, unmarked),
                lambda i: f"no schema id: expected the first byte to be 0, got 0x{first[i]:02x}",
            )
        return (head >> np.uint64(8)).astype("<u4").byteswap().astype(np.int64)


def _empty(value: bytes | None) -> str:
    return "empty value: expected a schema's id and a record" + (" (a tombstone)" if value is None else "")


def _maker(name: str) -> Callable[[Source, Schema], SchemaReader]:
    if name == "avro":
        from headwater.events.avro import AvroReader

        return AvroReader
    from headwater.events.protobuf import ProtobufReader

    return ProtobufReader


def _need_package(name: str) -> None:
    from importlib.util import find_spec

    for package in ("confluent_kafka.schema_registry", "httpx", _PACKAGES[name]):
        try:
            missing = find_spec(package) is None
        except ModuleNotFoundError:
            missing = True
        if missing:
            raise MissingExtra(package, name, f"Reading {name.capitalize()} events")
