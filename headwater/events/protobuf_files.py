"""The files of a Protobuf schema: from the registry's serialised descriptors to message classes.

A schema imports files that the registry names as its references, and such as come with Protobuf itself, which
are taken from the packages that carry them.
"""

from __future__ import annotations

import base64
import binascii
import re
from importlib import import_module
from typing import Any

from headwater.errors import RegistryUnreachable
from headwater.events.schemas import Schema

_CONFLUENT = {
    "confluent/meta.proto": "confluent_kafka.schema_registry.confluent.meta_pb2",
    "confluent/type/decimal.proto": "confluent_kafka.schema_registry.confluent.types.decimal_pb2",
    "confluent/types/decimal.proto": "confluent_kafka.schema_registry.confluent.types.decimal_pb2",
}
_GOOGLE = re.compile(r"(google/(?:protobuf|type|api)/[a-z_]+)\.proto")


def parsed_file(schema: Schema) -> tuple[Any, Any]:
    """A pool with all files of a schema, and the descriptor of its own.

    Raises:
        ValueError: an imported file is nowhere, or the files do not fit together.
        RegistryUnreachable: the registry gave something else than serialised files.
    """
    from google.protobuf.descriptor_pool import DescriptorPool

    pool: Any = DescriptorPool()
    added: set[str] = set()
    files = [_deserialised(schema, name, text) for name, text in schema.references]
    try:
        for file in (*files, own := _deserialised(schema, f"schema-{schema.id}.proto", schema.text)):
            _add(pool, file, added)
        return pool, pool.FindFileByName(own.name)
    except (TypeError, KeyError, ModuleNotFoundError) as error:
        raise ValueError(f"its files do not make a schema ({error})") from error


def message_class(pool: Any, file: Any, path: tuple[int, ...]) -> Any:
    """The class of a message by its path: which one of the file, which one within that, …; None where there is none."""
    from google.protobuf.message_factory import GetMessageClass

    types = list(file.message_types_by_name.values())
    found: Any = None
    for index in path:
        if not 0 <= index < len(types):
            return None
        found = types[index]
        types = list(found.nested_types)
    return None if found is None else GetMessageClass(found)


def _deserialised(schema: Schema, name: str, text: str) -> Any:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.message import DecodeError

    try:
        file: Any = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError) as error:
        raise RegistryUnreachable(
            f"The schema registry gave schema {schema.id} as something else than a serialised descriptor, though it was "
            f"asked for 'format=serialized', which it may not know: {text[:40]!r}."
        ) from error
    file.name = name
    return file


def _add(pool: Any, file: Any, added: set[str]) -> None:
    for name in file.dependency:
        if name not in added and (known := _that_comes_along(name)) is not None:
            _add(pool, known, added)
    if file.name not in added:
        pool.AddSerializedFile(file.SerializeToString())
        added.add(file.name)


def _that_comes_along(name: str) -> Any:
    """A file of Google's or Confluent's, None for one that is neither."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    google = _GOOGLE.fullmatch(name)
    module = f"{google[1].replace('/', '.')}_pb2" if google else _CONFLUENT.get(name)
    if module is None:
        return None
    file: Any = FileDescriptorProto.FromString(import_module(module).DESCRIPTOR.serialized_pb)
    file.name = name
    return file
