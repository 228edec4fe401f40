"""From the types of Avro and Protobuf to a source's columns: which can be read as which, and how.

A kind is what a schema says of a value: "integer", "double", "boolean", "text", "binary", "decimal", and the
integers that mean something: "date" (days), "millis", "micros", "nanos" (since the epoch), "time" (of a day).
Where the pair of kind and column type is not in the table, the schema does not fit the source. Where it is,
a single value may still not fit (a decimal with a fraction in an integer): that is a failure of that event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.dtypes import Dtype
from headwater.durations import DAY
from headwater.events.timestamps import YEAR_1, YEAR_9999_END, parse_timestamps

Mask = NDArray[np.bool_]
_MOST_DIGITS = 1_000
"""Behind the point of a decimal, or zeros before it: nobody means more, and they would take for ever."""


class Decimals(NamedTuple):
    """Decimal numbers: `unscaled` integers of any size, each to be divided by 10**scale."""

    unscaled: Sequence[int]
    scale: Sequence[int]


class Converted(NamedTuple):
    """Values of a column; `bad` is None where all of them fit."""

    values: Any
    bad: Mask | None = None
    reason: Callable[[int], str] = lambda i: ""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How values of one kind are read into a column. `convert` takes an array, a list or `Decimals`."""

    kind: str
    dtype: Dtype
    convert: Callable[[Any], Converted]


def conversion(kind: str, dtype: Dtype) -> Conversion | None:
    """The conversion of a kind to a column's type, None where there is none."""
    convert = _TABLE.get((kind, dtype))
    return None if convert is None else Conversion(kind, dtype, convert)


def _same(values: Any) -> Converted:
    return Converted(values)


def _integers(values: Any) -> Converted:
    """Python's integers may be past 64 bits (Protobuf's uint64)."""
    try:
        return Converted(np.asarray(values, np.int64))
    except OverflowError:
        bad = np.fromiter((not -(2**63) <= v < 2**63 for v in values), np.bool_, len(values))
        fitting = np.array([0 if b else v for v, b in zip(values, bad.tolist(), strict=True)], np.int64)
        return Converted(fitting, bad, lambda i: f"{values[i]} does not fit 64 bits")


def _doubles(values: Any) -> Converted:
    return Converted(np.asarray(values, np.float64))


def _instants(unit: int, per: int = 1) -> Callable[[Any], Converted]:
    """Times of a unit that is `unit` microseconds, or of which `per` make one (their rest is cut off)."""

    def convert(values: Any) -> Converted:
        whole, too_large, _ = _integers(values)
        number = whole // per if per > 1 else whole
        bad = (number < -(-YEAR_1 // unit)) | (number > YEAR_9999_END // unit)
        if too_large is not None:
            bad |= too_large
        if not bad.any():
            return Converted(number * unit)
        return Converted(
            np.where(bad, 0, number) * unit, bad, lambda i: f"{values[i]} is no time of the years 1 to 9999"
        )

    return convert


def _parsed(texts: Sequence[str]) -> Converted:
    times, valid, _ = parse_timestamps(texts)
    return Converted(times, ~valid, lambda i: f"{ascii(texts[i])[:60]} is not an RFC 3339 timestamp")


def _encoded(texts: Sequence[str]) -> Converted:
    return Converted([t.encode() for t in texts])


def _decoded(values: Sequence[bytes]) -> Converted:
    texts, bad = [], np.zeros(len(values), np.bool_)
    for i, value in enumerate(values):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError:
            texts.append("")
            bad[i] = True
    return Converted(texts, bad, lambda i: "bytes that are not UTF-8, for a column of texts")


def _one_by_one(convert: Callable[[int, int], Any], fill: Any, what: str) -> Callable[[Decimals], Converted]:
    """Decimals, each through a function that gives None where the column cannot hold it exactly."""

    def all_of_them(values: Decimals) -> Converted:
        found = [convert(u, s) if abs(s) <= _MOST_DIGITS else None for u, s in zip(*values, strict=True)]
        bad = np.fromiter((x is None for x in found), np.bool_, len(found))
        filled = [fill if x is None else x for x in found]
        return Converted(
            filled, bad, lambda i: f"the decimal {decimal_text(values.unscaled[i], values.scale[i])[:60]} {what}"
        )

    return all_of_them


def _whole(unscaled: int, scale: int) -> int | None:
    number, rest = divmod(unscaled, 10**scale) if scale >= 0 else (unscaled * 10**-scale, 0)
    return number if rest == 0 and -(2**63) <= number < 2**63 else None


def _nearest_double(unscaled: int, scale: int) -> float | None:
    """The nearest double, where the decimal is still the nearest one of its scale to it, so that nothing is lost."""
    try:
        number = unscaled / 10**scale if scale >= 0 else float(unscaled * 10**-scale)
    except OverflowError:
        return None
    if abs(unscaled) < 2**52 and scale <= 300:
        return number
    top, bottom = number.as_integer_ratio()
    top, bottom = (top * 10**scale, bottom) if scale >= 0 else (top, bottom * 10**-scale)
    return number if 2 * abs(top - unscaled * bottom) < bottom else None


def decimal_text(unscaled: int, scale: int) -> str:
    """The number in digits, with as many behind the point as its scale says."""
    if scale < -_MOST_DIGITS:
        return f"{unscaled}e{-scale}"
    if scale <= 0:
        return str(unscaled * 10**-scale)
    if scale > _MOST_DIGITS:
        return f"{unscaled}e-{scale}"
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    return f"{'-' if unscaled < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


_micros = _instants(1)
_TABLE: dict[tuple[str, str], Callable[[Any], Converted]] = {
    ("integer", "int64"): _integers, ("integer", "float64"): _doubles, ("integer", "timestamp"): _micros,
    ("double", "float64"): _doubles, ("boolean", "bool"): _same,
    ("text", "string"): _same, ("text", "bytes"): _encoded, ("text", "timestamp"): _parsed,
    ("binary", "bytes"): _same, ("binary", "string"): _decoded,
    ("name", "string"): _same,
    ("millis", "timestamp"): _instants(1000), ("micros", "timestamp"): _micros,
    ("nanos", "timestamp"): _instants(1, 1000), ("date", "timestamp"): _instants(DAY),
    **{(kind, "int64"): _integers for kind in ("millis", "micros", "nanos", "date", "time")},
    ("decimal", "int64"): _one_by_one(_whole, 0, "is no integer of 64 bits"),
    ("decimal", "float64"): _one_by_one(_nearest_double, 0.0, "has more digits than a double can hold"),
    ("decimal", "string"): _one_by_one(decimal_text, "", "has too many digits"),
}  # fmt: skip
