"""Rows of a Parquet file -> Protobuf events of a source: the inverse of protobuf.py.

They are written as the first message of the newest schema of the topic's subject (TOPIC-value). Where it has
none yet, as one made of the source's own columns, all of them `optional`, which is registered. Only what loses
nothing is written: a column for which the message has no field, or a value that its type cannot hold, is an error.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headwater.dtypes import element_of, is_list
from headwater.errors import UsageError
from headwater.events.json_rows import physical
from headwater.events.protobuf import described, is_repeated
from headwater.events.protobuf_files import message_class, parsed_file
from headwater.events.schemas import Schemas, schema_to_write
from headwater.events.timestamps import format_timestamp
from headwater.plans.plan import Source

if TYPE_CHECKING:
    import polars as pl

_TIMESTAMP = "google.protobuf.Timestamp"
_TYPES = {"int64": 3, "float64": 1, "string": 9, "bool": 8, "bytes": 12, "timestamp": 11}
"""The numbers of FieldDescriptorProto.Type."""
_WHOLE = (3, 4, 5, 6, 7, 13, 15, 16, 17, 18)
_WRITABLE: dict[str, tuple[int, ...]] = {
    "int64": _WHOLE, "float64": (1, 2), "string": (9,), "bool": (8,), "bytes": (12,), "timestamp": (3, 6, 16, 18, 9),
}  # fmt: skip


def own_schema(source: Source) -> str:
    """A file with a message of the source's columns, each of which may be absent; serialised, in base64."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file: Any = FileDescriptorProto(name=f"{source.name}.proto", syntax="proto3")
    message = file.message_type.add(name=source.name)
    for number, f in enumerate(source.fields, 1):
        added = message.field.add(name=f.name, number=number, type=_TYPES[element_of(f.dtype)], label=1)
        if element_of(f.dtype) == "timestamp":
            added.type_name = f".{_TIMESTAMP}"
        if is_list(f.dtype):
            added.label = 3
        elif f.dtype != "timestamp":
            # A message can be absent as it is.
            added.proto3_optional, added.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{f.name}")
    if any(element_of(f.dtype) == "timestamp" for f in source.fields):
        file.dependency.append("google/protobuf/timestamp.proto")
    return base64.b64encode(file.SerializeToString()).decode()


class ProtobufRows:
    """Writes rows of one source.

    Raises:
        RegistryUnreachable: the schema registry does not answer.
        UsageError: the subject's newest schema does not fit the source.
    """

    def __init__(self, source: Source, schemas: Schemas) -> None:
        self._source = source
        schema, self._place = schema_to_write(schemas, source, "PROTOBUF", own_schema)
        # Which message: of all paths, that of the first one is written as a single 0.
        self._head = struct.pack(">bI", 0, schema.id) + b"\0"
        try:
            self._made = message_class(*parsed_file(schema), (0,))
        except ValueError as error:
            raise UsageError(f"{self._place} cannot be used: {error}.") from error
        if self._made is None:
            raise UsageError(f"{self._place} has no message.")
        self._writers: dict[str, Callable[[Any], Any]] = {}

    def __call__(self, frame: pl.DataFrame) -> list[bytes]:
        """The events of some rows, in the wire format; the frame comes from `json_rows.typed`.

        Raises:
            UsageError: a column or a value that the message cannot hold.
        """
        columns = [self._column(name, frame[name]) for name in frame.columns]
        events = []
        for i, items in enumerate(zip(*columns, strict=True)):
            values = {n: x for n, x in zip(frame.columns, items, strict=True) if x is not None}
            try:
                events.append(self._head + self._made(**values).SerializeToString())
            except (ValueError, TypeError) as error:
                raise UsageError(f"{self._place} cannot hold row {i} of these: {error}") from error
        return events

    def _column(self, name: str, column: pl.Series) -> Sequence[Any]:
        if name not in self._writers:
            self._writers[name] = self._writer(name)
        column = physical(column)
        write, field = self._writers[name], self._made.DESCRIPTOR.fields_by_name[name]
        if column.null_count() and not field.has_presence:
            raise UsageError(
                f"{self._place}: field {name!r} cannot be absent, so a null would become "
                f"{[] if is_repeated(field) else field.default_value!r}. "
                + ("Fill it in the file." if is_repeated(field) else "Register a schema in which it is optional.")
            )
        return [None if x is None else write(x) for x in column.to_list()]

    def _writer(self, name: str) -> Callable[[Any], Any]:
        dtype = self._source.field(name).dtype
        field = self._made.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            raise UsageError(f"{self._place} has no field {name!r}, which the file has. Register a schema that has it.")
        if is_list(dtype) == is_repeated(field) and described(field) != "map":
            write = _value_writer(field, element_of(dtype))
            if write is not None:
                return (lambda items: list(map(write, items))) if is_list(dtype) else write
        raise UsageError(
            f"{self._place}: field {name!r} is {described(field)}; a column of {dtype} cannot be written to it."
        )


def _value_writer(field: Any, dtype: str) -> Callable[[Any], Any] | None:
    """From a value of a column, or an element of its lists, to one of the field; None where there is no way."""
    if dtype == "timestamp" and field.message_type is not None and field.message_type.full_name == _TIMESTAMP:
        return lambda micros: {"seconds": micros // 1_000_000, "nanos": micros % 1_000_000 * 1000}
    if field.type not in _WRITABLE[dtype]:
        return None
    return format_timestamp if dtype == "timestamp" and field.type == 9 else lambda item: item
