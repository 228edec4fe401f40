"""The answer to a read: features of n entities, with each row's status, read time and receipt.

Apart from reads.py because everyone who reads (client, server, command line, Feast's plug-in) shapes this
one answer in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from headwater.dtypes import Dtype, element_of, is_counts, is_list
from headwater.errors import UsageError
from headwater.receipts.receipt import Receipt

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FeatureColumn(NamedTuple):
    """One feature of an answer."""

    view: str
    feature: str
    dtype: Dtype


class Shape:
    """What is the same in every answer to one request: the columns and what they are called."""

    def __init__(self, columns: Sequence[FeatureColumn], key_dtypes: Mapping[str, Dtype]) -> None:
        self.columns = tuple(columns)
        self.key_dtypes = dict(key_dtypes)
        self.full_names = [f"{c.view}__{c.feature}" for c in columns]
        self.short_names = [c.feature for c in columns]
        self.times = [i for i, c in enumerate(columns) if element_of(c.dtype) == "timestamp"]
        self._distinct = {full: self._are_distinct(full) for full in (True, False)}

    def _are_distinct(self, full: bool) -> bool:
        names = self.full_names if full else self.short_names
        return len(set(names)) == len(names) and self.key_dtypes.keys().isdisjoint(names)

    def names(self, full: bool) -> list[str]:
        """VIEW__FEATURE, or FEATURE alone. Raises UsageError where two columns would have the same name."""
        names = self.full_names if full else self.short_names
        if self._distinct[full]:
            return names
        seen = dict.fromkeys(self.key_dtypes, "a join key")
        for name, c in zip(names, self.columns, strict=True):
            if name in seen:
                raise UsageError(
                    f"Two columns are called '{name}': {seen[name]} and {c.view}:{c.feature}. "
                    f"Ask for full feature names."
                )
            seen[name] = f"{c.view}:{c.feature}"
        return names


@dataclass(slots=True)
class FeatureRows:
    """Features of n entities, a column each, in the order asked for.

    Attributes:
        shape: names and types of the columns.
        entities: join key -> n values as they were given, checked (timestamps as int microseconds).
        values: for each column n Python values, None for null; timestamps as int microseconds.
        statuses: view -> n statuses: "PRESENT", "NOT_FOUND" or "OUTSIDE_MAX_AGE".
        as_of: view -> the n effective read times, microseconds since the epoch.
        newest: view -> the newest event time of each row, None where there is none.
        receipts: view -> n receipts; empty unless receipts were asked for.
    """

    shape: Shape
    entities: dict[str, list[Any]]
    values: list[list[Any]]
    statuses: dict[str, list[str]]
    as_of: dict[str, list[int]]
    newest: dict[str, list[int | None]]
    receipts: dict[str, list[Receipt]]

    def __len__(self) -> int:
        return len(next(iter(self.entities.values()), []))

    def to_dict(self, full_feature_names: bool = True) -> dict[str, list[Any]]:
        """Join keys and features as lists of n values; timestamps as datetimes in UTC.

        Features are called VIEW__FEATURE, or FEATURE alone without `full_feature_names` (as in Feast's `to_dict`).

        Raises:
            UsageError: two features would have the same name.
        """
        return self.shaped(to_datetime, full_feature_names)

    def rows(self, full_feature_names: bool = True) -> list[dict[str, Any]]:
        """`to_dict` row by row."""
        columns = self.to_dict(full_feature_names)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def shaped(self, time: Callable[[int], Any], full_feature_names: bool = True) -> dict[str, list[Any]]:
        """`to_dict` with another way to show a timestamp (given its microseconds)."""
        shape = self.shape
        out = dict(self.entities)
        for name in out:
            if shape.key_dtypes.get(name) == "timestamp":
                out[name] = [None if t is None else time(t) for t in out[name]]
        values = self.values
        if shape.times:
            values = list(values)
            for i in shape.times:
                values[i] = [with_times(shape.columns[i].dtype, value, time) for value in values[i]]
        out.update(zip(shape.names(full_feature_names), values, strict=True))
        return out


def with_times(dtype: Dtype, value: Any, time: Callable[[int], Any]) -> Any:
    """A timestamp, a list or counts of them, or None, its times shown by `time` (given their microseconds)."""
    if value is None:
        return None
    if is_counts(dtype):
        return [[time(v), count] for v, count in value]
    return [time(v) for v in value] if is_list(dtype) else time(value)


def counts_text(dtype: Dtype, pairs: list[list[Any]]) -> str:
    """Counts as the text that Feast's type Json holds: [[value, count], …]; times are RFC 3339, bytes base64."""
    import base64

    import orjson

    if element_of(dtype) == "timestamp":
        pairs = with_times(dtype, pairs, rfc_3339)
    return orjson.dumps(pairs, default=lambda data: base64.b64encode(data).decode()).decode()


def to_datetime(micros: int) -> Any:
    """The datetime in UTC; the number itself where it lies outside of the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return micros


def rfc_3339(micros: int) -> str:
    """The time in UTC with six digits of a second, such as "2011-12-09T12:50:00.000000Z"."""
    moment = to_datetime(micros)
    if not isinstance(moment, datetime):
        return f"{micros}us"
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
