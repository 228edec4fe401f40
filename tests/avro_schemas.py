"""Avro schemas of tests as plain data, and values in the wire format, written by fastavro."""

from __future__ import annotations

import io
import struct
from typing import Any

from fastavro import parse_schema, schemaless_writer

AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}


def record(*fields: Any, name: str = "Order") -> dict[str, Any]:
    """A record of fields as the specification writes them."""
    return {"type": "record", "name": name, "fields": list(fields)}


def framed(schema_id: int, schema: Any, value: Any) -> bytes:
    """A value behind its schema's id."""
    out = io.BytesIO()
    out.write(struct.pack(">bI", 0, schema_id))
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


def one(schema: Any, value: Any) -> bytes:
    """The value's bytes alone."""
    return framed(0, schema, value)[5:]
