"""Rows of a Parquet file -> Avro events of a source: the inverse of avro.py.

They are written by the newest schema of the topic's subject (TOPIC-value). Where it has none yet, by one made
of the source's own columns, all of which may be null, which is registered. Only what loses nothing is written:
a column for which the schema has no field, or a value that its type cannot hold, is an error.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.dtypes import element_of, is_list
from headwater.errors import UsageError
from headwater.events.avro import described, parse_type, parsed_schema
from headwater.events.avro_types import Blocks, Number, Record, Type, Union
from headwater.events.json_rows import physical
from headwater.events.schemas import Schemas, schema_to_write
from headwater.events.timestamps import format_timestamp
from headwater.plans.plan import Source

if TYPE_CHECKING:
    import polars as pl

_TYPES: dict[str, Any] = {
    "int64": "long", "float64": "double", "string": "string", "bool": "boolean", "bytes": "bytes",
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
}  # fmt: skip
_RANGES = {"int": 2**31, "long": 2**63}
_WRITABLE = {
    "int64": ("int", "long", "float", "double"), "float64": ("float", "double"), "string": ("string", "enum"),
    "bool": ("boolean",), "bytes": ("bytes", "fixed"), "timestamp": ("long", "string"),
}  # fmt: skip
_TIMES = ("", "timestamp-micros", "timestamp-millis", "local-timestamp-micros", "local-timestamp-millis")


_TYPES |= {f"list[{element}]": {"type": "array", "items": kind} for element, kind in _TYPES.items()}


def own_schema(source: Source) -> str:
    """A schema of the source's columns, each of which may be null."""
    fields = [{"name": f.name, "type": ["null", _TYPES[f.dtype]], "default": None} for f in source.fields]
    return msgspec.json.encode({"type": "record", "name": source.name, "fields": fields}).decode()


class AvroRows:
    """Writes rows of one source.

    Raises:
        RegistryUnreachable: the schema registry does not answer.
        UsageError: the subject's newest schema does not fit the source.
    """

    def __init__(self, source: Source, schemas: Schemas) -> None:
        self._source = source
        schema, self._place = schema_to_write(schemas, source, "AVRO", own_schema)
        self._head = struct.pack(">bI", 0, schema.id)
        try:
            top, (self._parsed, _) = parse_type(schema), parsed_schema(schema, defaults=True)
        except ValueError as error:
            raise UsageError(f"{self._place} cannot be used: {error}.") from error
        if not isinstance(top, Record):
            raise UsageError(f"{self._place} is no record but {described(top)}; 'headwater produce' cannot write it.")
        self._fields = dict(top.fields)
        self._prepared: dict[str, Callable[[Sequence[Any]], list[Any]]] = {}

    def __call__(self, frame: pl.DataFrame) -> list[bytes]:
        """The events of some rows, in the wire format; the frame comes from `json_rows.typed`.

        Raises:
            UsageError: a column or a value that the schema cannot hold.
        """
        from fastavro import schemaless_writer

        columns = [self._column(name, frame[name]) for name in frame.columns]
        # Fields that the file does not have are null, unless the schema has a default for them.
        absent = {f["name"]: None for f in self._parsed["fields"] if "default" not in f}
        events = []
        for i, items in enumerate(zip(*columns, strict=True)):
            out = io.BytesIO()
            out.write(self._head)
            try:
                schemaless_writer(out, self._parsed, absent | dict(zip(frame.columns, items, strict=True)))
            except (ValueError, TypeError, KeyError, OverflowError, struct.error) as error:
                raise UsageError(f"{self._place} cannot hold row {i} of these: {error}") from error
            events.append(out.getvalue())
        return events

    def _column(self, name: str, column: pl.Series) -> list[Any]:
        if name not in self._fields:
            raise UsageError(f"{self._place} has no field {name!r}, which the file has. Register a schema that has it.")
        if name not in self._prepared:
            self._prepared[name] = self._writer(name, self._fields[name], self._source.field(name).dtype)
        return self._prepared[name](physical(column).to_list())

    def _writer(self, name: str, type_: Type, dtype: str) -> Callable[[Sequence[Any]], list[Any]]:
        for one in type_.branches if isinstance(type_, Union) else [type_]:
            if is_list(dtype) and isinstance(one, Blocks) and one.name == "array":
                write = self._writer(name, one.item, element_of(dtype))
                return lambda items: [None if x is None else write(x) for x in items]
            if is_list(dtype):
                continue
            if one.name in _WRITABLE[dtype] and (one.logical in _TIMES or dtype != "timestamp"):
                return lambda items: [None if x is None else self._written(name, one, dtype, x) for x in items]
        raise UsageError(
            f"{self._place}: field {name!r} is {described(type_)}; a column of {dtype} cannot be written to it."
        )

    def _written(self, name: str, type_: Type, dtype: str, item: Any) -> Any:
        if dtype == "timestamp" and type_.name == "string":
            return format_timestamp(item)
        whole, rest = divmod(item, 1000) if type_.logical.endswith("millis") and dtype == "timestamp" else (item, 0)
        limit = _RANGES.get(type_.name)
        if rest or (isinstance(type_, Number) and limit is not None and not -limit <= whole < limit):
            raise UsageError(f"{self._place}: field {name!r} is {described(type_)}, which cannot hold {item}.")
        return whole
