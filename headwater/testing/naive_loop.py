"""The window law as a slow loop: what every path of the product is compared with.

Written from the law and not from the code. It keeps no tiles, uses no numpy, and shares nothing with
decoding, admission, `where` and `derive`, windows, aggregations, rows or history, so that it cannot have
their bugs. All of it is plain Python over every event, for every question.

    value(q) = aggregate of the events with floor(q - W, h) <= event_time < q

An operator is one function of `OPERATORS`: it takes the values of the window that are not null (an operator
without a column: a null for each event; latest: nulls too), in the order of (event time, partition, offset), and the feature.
"""

from __future__ import annotations

import collections
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from headwater.dtypes import is_list
from headwater.plans.plan import Expectation, Feature, Field, Source, StreamView
from headwater.testing.cases import BROKEN, Key, Record
from headwater.testing.naive_expressions import holds, tidy_double, value_of

PAST_64_BITS = "an error: past 64 bits"
"""The answer of an integer sum that an int64 cannot hold: what the product makes an error of the read."""

Event = Mapping[str, Any]
Placed = tuple[int, int, int, Event]
"""Event time, partition, offset, and the event's columns, derived ones included."""


class NaiveLoop:
    """The answers of one view over the records of a topic, in any order."""

    def __init__(self, view: StreamView, source: Source, records: Sequence[Record]) -> None:
        self.view = view
        self._events: dict[Key, list[Placed]] = {}
        for record in records:
            event = admitted(record, source)
            if event is None:
                continue
            for derived in view.derive:
                event[derived.name] = value_of(derived.expr, event)
            key = tuple(event[k.name] for k in view.keys)
            if None not in key and holds(view.where, event):
                placed = (event[source.event_time], record.partition, record.offset, event)
                self._events.setdefault(key, []).append(placed)
        self._entering = {
            (key, f.name): _entering(f, sorted(events, key=lambda e: e[:3]))
            for key, events in self._events.items()
            for f in view.features
        }

    def newest(self, key: Key) -> int | None:
        """The newest event time of a key; None where no event counts."""
        return max((time for time, *_ in self._events.get(key, ())), default=None)

    def answer(self, key: Key, at: int) -> dict[str, Any]:
        """Every feature of a key, read at `at` (microseconds)."""
        return {f.name: self._feature(f, key, at) for f in self.view.features}

    def _feature(self, feature: Feature, key: Key, at: int) -> Any:
        entering = self._entering.get((key, feature.name), ())
        oldest = -math.inf if self.view.ttl is None else at - self.view.ttl
        values = [value for time, value in entering if time >= oldest and in_window(time, at, feature)]
        return OPERATORS[feature.function](values, feature)


def _entering(feature: Feature, events: Sequence[Placed]) -> list[tuple[int, Any]]:
    """Time and value of the events that a feature looks at, wherever its window is; nulls only where it sees them."""
    chosen = [(time, event) for time, _, _, event in events if holds(feature.where, event)]
    if feature.column is None:
        return [(time, None) for time, _ in chosen]
    values = [(time, event[feature.column]) for time, event in chosen]
    return values if feature.function == "latest" else [(time, value) for time, value in values if value is not None]


def in_window(time: int, at: int, feature: Feature) -> bool:
    """Whether a window read at `at` holds an event of that time."""
    if feature.window is None or feature.hop is None:
        return time < at
    return (at - feature.window) // feature.hop * feature.hop <= time < at


def admitted(record: Record, source: Source) -> dict[str, Any] | None:
    """The columns of a record, None where it is a dead letter or in quarantine."""
    if not all(_is_whole(record.values.get(f.name), f) for f in source.fields if is_list(f.dtype)):
        return None
    event = {f.name: _read(record.values.get(f.name)) for f in source.fields}
    time = event[source.event_time]
    whole = [event[f.name] for f in source.fields if f.dtype == "int64"]
    fits = all(v is None or -(2**63) <= v < 2**63 for v in whole)
    if record.form in BROKEN or not fits or time is None or time > record.broker_time + source.tolerance:
        return None
    dtypes = {f.name: f.dtype for f in source.fields}
    meets = (_meets(e, event[e.column], dtypes[e.column]) for e in source.expectations if e.mostly >= 1)
    return event if all(meets) else None


def _is_whole(items: list[Any] | None, f: Field) -> bool:
    """Whether a list is of its vector's length, and each of its elements is a value."""
    if items is None:
        return True
    values = [None if item is None else _read(item) for item in items]
    fits = all(type(v) is not int or -(2**63) <= v < 2**63 for v in values)
    return None not in values and fits and f.length in (None, len(items))


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(v) for v in value]
    return tidy_double(value) if isinstance(value, float) else value


def _meets(expectation: Expectation, value: Any, dtype: str) -> bool:
    if expectation.kind == "not_null":
        return value is not None
    if value is None:
        return True
    if expectation.kind == "in_set":
        return value in expectation.values
    low, high = (
        float(b) if b is not None and dtype == "float64" else b for b in (expectation.minimum, expectation.maximum)
    )
    return (low is None or value >= low) and (high is None or value <= high)


def scaled(value: Any, scale: int) -> int | None:
    """The integer that enters sums: of a double floor(x * 10**scale + 0.5), None where it needs more than 64 bits."""
    if not isinstance(value, float):
        return int(value)
    x = value * 10.0**scale + 0.5
    return math.floor(x) if -(2.0**63) <= x < 2.0**63 else None


def _integers(values: Sequence[Any], feature: Feature) -> tuple[list[int], int]:
    """The integers that enter sums, and by what one of them is divided to be the value."""
    unit = 10**feature.scale if feature.column_dtype == "float64" else 1
    return [i for i in (scaled(v, feature.scale) for v in values) if i is not None], unit


def _count(values: Sequence[Any], feature: Feature) -> int:
    return len(values)


def _sum(values: Sequence[Any], feature: Feature) -> Any:
    integers, unit = _integers(values, feature)
    if not integers:
        return None
    total = sum(integers)
    if feature.column_dtype == "float64":
        return float(Fraction(total, unit))
    return total if -(2**63) <= total < 2**63 else PAST_64_BITS


def _mean(values: Sequence[Any], feature: Feature) -> float | None:
    integers, unit = _integers(values, feature)
    return float(Fraction(sum(integers), unit * len(integers))) if integers else None


def _var(values: Sequence[Any], feature: Feature) -> float | None:
    integers, unit = _integers(values, feature)
    n = len(integers)
    if n < 2:
        return None
    mean = Fraction(sum(integers), n)
    return float(sum((i - mean) ** 2 for i in integers) / (n - 1) / unit**2)


def _stddev(values: Sequence[Any], feature: Feature) -> float | None:
    var = _var(values, feature)
    return None if var is None else math.sqrt(var)


def _min(values: Sequence[Any], feature: Feature) -> Any:
    return min(values, default=None)


def _max(values: Sequence[Any], feature: Feature) -> Any:
    return max(values, default=None)


def _first(values: Sequence[Any], feature: Feature) -> Any:
    return values[0] if values else None


def _last(values: Sequence[Any], feature: Feature) -> Any:
    return values[-1] if values else None


def _last_n(values: Sequence[Any], feature: Feature) -> list[Any]:
    return [*reversed(values)][: feature.n]


def _distinct(values: Sequence[Any], feature: Feature) -> int:
    assert feature.limit is not None
    return min(len(set(values)), feature.limit)


def _top_k(values: Sequence[Any], feature: Feature) -> list[list[Any]] | None:
    assert feature.limit is not None
    counts = collections.Counter(values)
    ranked = sorted(counts, key=lambda v: (-counts[v], v))
    return [[v, counts[v]] for v in ranked[: feature.n]] if len(counts) <= feature.limit else None


def _approx_quantile(values: Sequence[Any], feature: Feature) -> float | None:
    """The nearest rank, and the middle of the integers that have the same sign, length and 7 first binary digits."""
    assert feature.q is not None
    integers, unit = _integers(values, feature)
    if not integers:
        return None
    rank = max(math.ceil(Fraction(repr(feature.q)) * len(integers)), 1)
    chosen = sorted(integers)[rank - 1]
    width = 1 << max(len(f"{abs(chosen):b}") - 7, 0)
    middle = abs(chosen) // width * width + Fraction(width - 1, 2)
    return float((middle if chosen >= 0 else -middle) / unit)


def _approx_distinct(values: Sequence[Any], feature: Feature) -> int:
    """Exact to 256 hashes; above, Ertl's estimator (arXiv:1702.01284, algorithm 6) over 2,048 registers."""
    hashes = {_hash(v) for v in values}
    if len(hashes) <= 256:
        return len(hashes)
    registers = [0] * 2048
    for bits in (f"{h:064b}" for h in hashes):
        rank = (bits[11:] + "1").index("1") + 1
        registers[int(bits[:11], 2)] = max(registers[int(bits[:11], 2)], rank)
    counts = [registers.count(k) for k in range(55)]
    z = 2048 * _tau(1 - counts[54] / 2048)
    for k in range(53, 0, -1):
        z = 0.5 * (z + counts[k])
    z += 2048 * _sigma(counts[0] / 2048)
    return round(0.5 / math.log(2) * 2048 * 2048 / z)


def _hash(value: Any) -> int:
    """The upper 64 bits of MD5 over the value's text; doubles by their integer at scale 6."""
    if isinstance(value, float):
        value = scaled(value, 6)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return int(hashlib.md5(value if isinstance(value, bytes) else text.encode()).hexdigest()[:16], 16)


def _sigma(x: float) -> float:
    total, power, weight = x, x, 1.0
    while True:
        power *= power
        if total + power * weight == total:
            return total
        total, weight = total + power * weight, weight * 2


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    weight, total = 1.0, 1 - x
    while True:
        x, weight = math.sqrt(x), weight * 0.5
        change = (1 - x) ** 2 * weight
        if total - change == total:
            return total / 3
        total -= change


OPERATORS: dict[str, Callable[[Sequence[Any], Feature], Any]] = {
    "count": _count, "sum": _sum, "mean": _mean, "var": _var, "stddev": _stddev, "min": _min, "max": _max,
    "first": _first, "last": _last, "latest": _last, "last_n": _last_n, "distinct": _distinct, "top_k": _top_k,
    "approx_distinct": _approx_distinct, "approx_quantile": _approx_quantile,
}  # fmt: skip
"""What a feature's function makes of its window."""
