"""Protobuf schemas of tests, made without a compiler: files of messages in a few words, their classes, their text.

``proto("Order", at=".google.protobuf.Timestamp", price="optional double", tags="repeated string")``
"""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from headwater.events.protobuf_files import _add

_TYPES = {name.removeprefix("TYPE_").lower(): number for name, number in FieldDescriptorProto.Type.items()}
_LABELS = {"repeated": 3, "required": 2}
_IMPORTS = {
    ".google.protobuf.Timestamp": "google/protobuf/timestamp.proto",
    ".google.type.Date": "google/type/date.proto",
    ".confluent.type.Decimal": "confluent/type/decimal.proto",
}


def message(name: str, /, **fields: str) -> DescriptorProto:
    """A message; a field is a type, or `optional`, `repeated`, `required` or `oneof` (all in one) and a type."""
    made = DescriptorProto(name=name)
    for number, (field, words) in enumerate(fields.items(), 1):
        label, kind = words.split() if " " in words else ("", words)
        added = made.field.add(name=field, number=number, label=_LABELS.get(label, 1))
        if "." in kind:
            added.type_name = kind
            if kind.startswith(".enum."):
                added.type, added.type_name = 14, kind.removeprefix(".enum")
            else:
                added.type = 11
        else:
            added.type = _TYPES[kind]
        if label == "oneof":
            if not made.oneof_decl:
                made.oneof_decl.add(name="one")
            added.oneof_index = 0
    for added in made.field:
        if fields[added.name].startswith("optional "):
            added.proto3_optional, added.oneof_index = True, len(made.oneof_decl)
            made.oneof_decl.add(name=f"_{added.name}")
    return made


def file(*messages: DescriptorProto, syntax: str = "proto3", imports: tuple[str, ...] = ()) -> FileDescriptorProto:
    """A file of the package `shop`; what Google's types need is imported."""
    made = FileDescriptorProto(name="shop.proto", package="shop", syntax=syntax, message_type=messages)
    wanted = {field.type_name for m in messages for field in m.field}
    known = [path for kind, path in _IMPORTS.items() if kind in wanted]
    wrappers = ["google/protobuf/wrappers.proto"] if any(kind.endswith("Value") for kind in wanted) else []
    made.dependency.extend([*known, *wrappers, *imports])
    if syntax == "proto2":
        for m in made.message_type:
            for field in m.field:
                field.ClearField("proto3_optional")
    return made


def proto(name: str = "Order", /, **fields: str) -> FileDescriptorProto:
    """A file of one message."""
    return file(message(name, **fields))


def text_of(made: FileDescriptorProto) -> str:
    """The file as a registry gives it for `format=serialized`."""
    return base64.b64encode(made.SerializeToString()).decode()


def class_of(made: FileDescriptorProto, name: str = "Order") -> Any:
    """The class of one of its messages."""
    pool: Any = descriptor_pool.DescriptorPool()
    _add(pool, made, set())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.{name}"))
