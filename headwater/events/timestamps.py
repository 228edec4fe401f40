"""Timestamps of JSON events: RFC 3339 texts and integers -> int64 microseconds since the epoch, UTC.

A file of its own because it is the hot half of decoding: the usual widths are read many at a time by
their digits, and whatever is not of that kind goes one by one through a regular expression. Both ways
give the same answer for the same text, so an answer never depends on its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from headwater.durations import DAY, SECOND

EPOCH = datetime(1970, 1, 1)
YEAR_1 = -62_135_596_800 * SECOND
"""0001-01-01T00:00:00Z, the first instant that a timestamp may name."""
YEAR_9999_END = 253_402_300_800 * SECOND - 1
"""9999-12-31T23:59:59.999999Z, the last one."""

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))?", re.ASCII
)
_FRACTIONS = {19: 0, 23: 3, 26: 6, 29: 9}

Times = NDArray[np.int64]
Mask = NDArray[np.bool_]


def parse_timestamp(item: str | int) -> int | None:
    """Microseconds since the epoch of one RFC 3339 text (no zone: UTC) or integer; None where it is neither.

    Fractions are floored to microseconds. Instants outside of the years 1 to 9999 are None.
    """
    micros = item if isinstance(item, int) else _micros_of_text(item)
    return micros if micros is not None and YEAR_1 <= micros <= YEAR_9999_END else None


def parse_timestamps(items: Sequence[str | int | None]) -> tuple[Times, Mask, Mask]:
    """Microseconds of many items: values int64[n], where there is one bool[n], where the item is wrong bool[n].

    None is neither a value nor wrong. Values are 0 where there is none.
    """
    try:
        return _parse_texts(items)
    except TypeError:
        # Some items are integers or null, and have no length or do not join.
        return _parse_mixed(items)


def format_timestamp(micros: int) -> str:
    """RFC 3339 in UTC with a Z, as short as exact: '2011-12-09T12:50:00Z', or with six digits of a second."""
    if not YEAR_1 <= micros <= YEAR_9999_END:
        return f"{micros}us"
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
    return moment.isoformat().replace("+00:00", "Z")


def _parse_texts(texts: Sequence[str | int | None]) -> tuple[Times, Mask, Mask]:
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))  # type: ignore[arg-type]
    values, good = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    for length in np.unique(lengths).tolist():
        index = np.flatnonzero(lengths == length)
        same = texts if len(index) == len(texts) else [texts[i] for i in index.tolist()]
        found = _parse_width("".join(same), len(index), length)  # type: ignore[arg-type]
        if found is not None:
            values[index], good[index] = found
    for i in np.flatnonzero(~good).tolist():
        micros = parse_timestamp(texts[i])  # type: ignore[arg-type]
        if micros is not None:
            values[i], good[i] = micros, True
    return values, good, ~good


def _parse_mixed(items: Sequence[str | int | None]) -> tuple[Times, Mask, Mask]:
    parsed = [None if x is None else parse_timestamp(x) for x in items]
    valid = np.fromiter((x is not None for x in parsed), np.bool_, len(parsed))
    given = np.fromiter((x is not None for x in items), np.bool_, len(parsed))
    return np.array([x or 0 for x in parsed], np.int64), valid, given & ~valid


def _parse_width(joined: str, count: int, width: int) -> tuple[Times, Mask] | None:
    """All texts of one usual width, with or without Z, by their digits; False in the mask where a text is unusual."""
    zoned = width in (20, 24, 27, 30)
    body = width - zoned
    if body not in _FRACTIONS or not joined.isascii():
        return None
    chars = np.ascontiguousarray(np.frombuffer(joined.encode("ascii"), np.uint8).reshape(count, width).T)
    digits = chars - np.uint8(48)
    good = _shape_is_right(chars, digits, body, zoned)
    values = np.zeros(count, np.int64)
    days, day_good = _days(digits)
    hour, minute, second = (_number(digits, at, 2) for at in (11, 14, 17))
    good &= day_good & (hour < 24) & (minute < 60) & (second < 60)
    values = days * DAY + ((hour * 60 + minute) * 60 + second) * SECOND
    if fraction := _FRACTIONS[body]:
        values += _number(digits, 20, min(fraction, 6)) * (1000 if fraction == 3 else 1)
    return np.where(good, values, 0), good


def _shape_is_right(chars: NDArray[np.uint8], digits: NDArray[np.uint8], body: int, zoned: bool) -> Mask:
    marks = {4: b"-", 7: b"-", 13: b":", 16: b":"} | ({19: b"."} if body > 19 else {}) | ({body: b"Z"} if zoned else {})
    numbers = [i for i in range(body) if i not in marks and i != 10]
    good: Mask = (digits[numbers] < 10).all(axis=0) & ((chars[10] == ord("T")) | (chars[10] == ord(" ")))
    for at, mark in marks.items():
        good &= chars[at] == mark[0]
    return good


def _days(digits: NDArray[np.uint8]) -> tuple[Times, Mask]:
    """Days since the epoch of year, month and day, and where they name a day of the calendar."""
    year, month, day = _number(digits, 0, 4), _number(digits, 5, 2), _number(digits, 8, 2)
    good = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    first = months.astype("datetime64[D]").astype(np.int64)
    if (day > 28).any():
        following = (months + 1).astype("datetime64[D]").astype(np.int64)
        good &= day <= following - first
    return first + day - 1, good


def _number(digits: NDArray[np.uint8], start: int, width: int) -> Times:
    value: Times = digits[start].astype(np.int64)
    for i in range(start + 1, start + width):
        value = value * 10 + digits[i]
    return value


def _micros_of_text(text: str) -> int | None:
    match = _RFC_3339.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime(*(int(match[i]) for i in range(1, 7)))  # type: ignore[arg-type]
    except ValueError:
        return None
    offset = _offset(match[9], match[10], match[11])
    if offset is None:
        return None
    fraction = int((match[7] or "0").ljust(6, "0")[:6])
    return (moment - EPOCH) // timedelta(seconds=1) * SECOND + fraction - offset


def _offset(sign: str | None, hours: str | None, minutes: str | None) -> int | None:
    """Microseconds that local time is ahead of UTC; None where the zone names no time of a day."""
    if sign is None or hours is None or minutes is None:
        return 0
    if int(hours) > 23 or int(minutes) > 59:
        return None
    offset = (int(hours) * 60 + int(minutes)) * 60 * SECOND
    return -offset if sign == "-" else offset
