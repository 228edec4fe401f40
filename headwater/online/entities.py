"""Entity values at the border: what a caller gives becomes join keys of the right type, and key text.

Apart from keys.py, which spells keys of values that are right already: here stands every way in which
a value can be wrong, with its message. A null join key is not wrong; it has no row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from headwater.dtypes import Dtype
from headwater.errors import UsageError, nearest
from headwater.events.timestamps import parse_timestamp
from headwater.online.keys import entity_key, entity_text, key_parts
from headwater.plans.plan import Field, StreamView

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_entity(text: str, keys: Mapping[str, Dtype]) -> dict[str, Any]:
    """One entity of a command line, such as "customer_id=17850" or "stock_code=85123A,country=France".

    A comma that is not followed by KEY= belongs to the value before it.

    Args:
        keys: the join keys that may be named, with their types.

    Raises:
        UsageError: not of that form, an unknown join key, or a value that its type cannot hold.
    """
    entity: dict[str, Any] = {}
    pieces: list[str] = []
    for piece in text.split(","):
        if pieces and "=" not in piece:
            pieces[-1] += "," + piece
        else:
            pieces.append(piece)
    for piece in pieces:
        name, sign, value = piece.partition("=")
        if not sign:
            raise UsageError(f"Entity {text!r}: expected KEY=VALUE[,KEY=VALUE], such as customer_id=17850.")
        if name not in keys:
            raise UsageError(f"Entity {text!r}: no join key '{name}'. {nearest(name, keys)}")
        if name in entity:
            raise UsageError(f"Entity {text!r}: '{name}' is given twice. For several entities repeat --entity.")
        entity[name] = _parsed(name, keys[name], value)
    return entity


def join_key_column(name: str, dtype: Dtype, values: Sequence[Any]) -> list[Any]:
    """The values of one join key, checked and as plain Python values (None for null; timestamps as int us).

    Takes numpy scalars and datetimes (without a zone: UTC) as well; NaN is null.

    Raises:
        UsageError: a value that is not of the join key's type.
    """
    values = list(values) if not isinstance(values, np.ndarray) else values.tolist()
    kinds = set(map(type, values))
    if dtype == "int64" and kinds == {int}:
        if min(values) >= -(2**63) and max(values) < 2**63:
            return values
    elif dtype == "string" and kinds == {str}:
        return values
    check = _CHECKS[dtype]
    return [_checked(name, dtype, check, value) for value in values]


def key_texts(columns: Sequence[list[Any]]) -> list[bytes | None]:
    """The entity key of each row of checked columns (in the order of the view's keys); None where one is null."""
    if len(columns) == 1:
        column = columns[0]
        kinds = set(map(type, column))
        if kinds == {int}:
            return [b"%d" % value for value in column]
        if kinds == {str}:
            return [value.encode() for value in column]
        return [None if value is None else entity_key((value,)) for value in column]
    return [None if None in row else entity_key(row) for row in zip(*columns, strict=True)]


def parse_key(key: bytes, fields: Sequence[Field]) -> tuple[Any, ...]:
    """The join key values that an entity key was made of; the opposite of `entity_key`.

    Raises:
        UsageError: a part that is no value of its join key's type.
    """
    parts = [key] if len(fields) == 1 else key_parts(key)
    pairs = zip(fields, parts, strict=False)
    return tuple(
        part if f.dtype == "bytes" else _parsed(f.name, f.dtype, part.decode("utf-8", "replace")) for f, part in pairs
    )


def _parsed(name: str, dtype: Dtype, text: str) -> Any:
    try:
        if dtype == "string":
            return text
        if dtype == "int64":
            return _int64(int(text))
        if dtype == "float64":
            return _float64(float(text))
        if dtype == "bool":
            return {"true": True, "false": False}[text.lower()]
        if dtype == "timestamp":
            return time_of(int(text) if text.lstrip("-").isdigit() else text)
        return text.encode()
    except (ValueError, KeyError):
        raise _wrong(name, dtype, text) from None


def _checked(name: str, dtype: Dtype, check: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else int(value.astype("M8[us]").astype(np.int64))
    elif isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        return check(value)
    except ValueError:
        raise _wrong(name, dtype, value) from None


def _int64(value: Any) -> int:
    # pandas turns integers with nulls into doubles, so a whole double is taken for the integer it was.
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _float64(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value) + 0.0


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    value.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def time_of(value: Any) -> int:
    """Microseconds of an RFC 3339 text, a datetime (without a zone: UTC) or an integer; else ValueError."""
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        span = moment - _EPOCH
        return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    micros = parse_timestamp(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if micros is None:
        raise ValueError
    return micros


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise ValueError
    return value


_CHECKS: dict[Dtype, Callable[[Any], Any]] = {
    "int64": _int64, "float64": _float64, "string": _string, "bool": _bool, "timestamp": time_of, "bytes": _bytes,
}  # fmt: skip


def _wrong(name: str, dtype: Dtype, value: Any) -> UsageError:
    expected = {
        "int64": "a whole number of 64 bits", "float64": "a finite number", "string": "text", "bool": "true or false",
        "timestamp": "an RFC 3339 time or microseconds since the epoch", "bytes": "bytes",
    }[dtype]  # fmt: skip
    return UsageError(f"Join key '{name}' is of type {dtype}: expected {expected}, got {value!r}.")


def repair_command(view: StreamView, key: bytes) -> str:
    """The command that rebuilds the row of an entity key."""
    text = entity_text(key, [k.name for k in view.keys])
    quoted = text if text.replace("=", "").replace("_", "").isalnum() else "'" + text.replace("'", "'\\''") + "'"
    return f"headwater repair {view.name} --entity {quoted}"
