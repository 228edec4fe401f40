"""Compiles the entities of a view to its join keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from headwater.dtypes import Dtype, is_list
from headwater.errors import nearest
from headwater.plans.plan import Field
from headwater.plans.problems import Problems

_VALUE_TYPES = {
    "INT32": "int64", "INT64": "int64", "STRING": "string", "BOOL": "bool",
    "UNIX_TIMESTAMP": "timestamp", "BYTES": "bytes",
}  # fmt: skip


def compile_keys(
    place: str, entities: Sequence[Any], columns: Mapping[str, str], where: str, problems: Problems
) -> tuple[Field, ...]:
    """A field for each Feast entity whose join key is a column; `where` says of what in messages."""
    keys: list[Field] = []
    for entity in entities:
        name, at = entity.join_key, f"{place}, entity '{entity.name}'"
        dtype = columns.get(name)
        if dtype is None:
            problems.add(at, f"its join key '{name}' is no column of {where}. {nearest(name, columns)}")
        elif _right_type(at, entity, dtype, where, problems):
            keys.append(Field(name, cast(Dtype, dtype)))
    return tuple(keys)


def _right_type(at: str, entity: Any, dtype: str, where: str, problems: Problems) -> bool:
    given = entity.value_type.name
    if given != "UNKNOWN" and given not in _VALUE_TYPES:
        known = ", ".join(_VALUE_TYPES)
        problems.add(at, f"expected a value type of a join key ({known}), got {given}.")
    elif is_list(dtype):
        problems.add(at, f"its join key '{entity.join_key}' is {dtype} in {where}; a key is one value.")
    elif dtype == "float64":
        problems.add(at, f"its join key '{entity.join_key}' is float64 in {where}; a key cannot be a double.")
    elif given != "UNKNOWN" and _VALUE_TYPES[given] != dtype:
        problems.add(at, f"its join key '{entity.join_key}' is {_VALUE_TYPES[given]}, but {dtype} in {where}.")
    else:
        return True
    return False
