"""Values worth trying: what a view's columns, windows and conditions make likely to go wrong.

Each pool begins with the plainest values, since a failing case is shrunk towards the front.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan, nextafter
from typing import Any

from headwater.dtypes import element_of, is_list
from headwater.durations import DAY, HOUR, MINUTE
from headwater.events.select import refs, source_columns
from headwater.expressions.syntax import Call, Expr, Literal
from headwater.plans.plan import Field, Source, StreamView
from headwater.testing.cases import Case, Record
from headwater.testing.naive_loop import NaiveLoop

BASES = (1_709_251_200_000_000, 0)
"""Midnights from which times are counted: 2024-03-01, and 1970, before which times are negative."""
TRIES, ROWS = 1000, 32
"""How many rows are looked at, and how many that count are kept."""
LATE = 400 * DAY
"""Behind every event's own time, so that none is ahead of the broker's."""

Reach = tuple[int, int]
"""A window and its hop, both in microseconds."""

_PLAIN: dict[str, tuple[Any, ...]] = {
    "int64": (1, 0, 2, -1, None, 3, 7, 10, -5, 100),
    "float64": (1.0, 0.5, 0.1, 0.2, 0.3, None, 0.0, 2.55, -1.5, 19.99, 3.0),
    "string": ("a", "b", "", None, "c", "🫖", "10", "9"),
    "bool": (True, False, None),
    "bytes": (b"a", b"b", b"", None, b"\x00\xff"),
}  # fmt: skip
_EDGES: dict[str, tuple[Any, ...]] = {
    "int64": (2**63 - 1, -(2**63), 2**62, 2**53 + 1, 3_037_000_500, 2**31, -(2**31) - 1, 2**63),
    "float64": (
        nan, inf, -inf, -0.0, 0.0000005, -0.0000005, 0.49999999999999994, 9.2e12, -9.3e12, 1e300, -1e300, 5e-324,
        4503599627370497.5, 1e15,
    ),
    "string": ("é", "e\u0301", "🫖🧁", "A", " ", "\u0000", "\\", '"', "it's", "%", "\uffff", "𐀀", "null", "x" * 300),
    "bool": (),
    "bytes": (b"\x00", b"null", b"\xff" * 300),
}  # fmt: skip
LISTS = (1, 0, 2, 300)
"""How long lists are; those of vectors are their length, and one more."""


@dataclass(frozen=True)
class Pools:
    """What a view's events are drawn from.

    Attributes:
        rows: values of all columns that the view or admission looks at, plain ones with which an event counts.
        plain, edges: what else such a column may hold; `plain` and then `edges` is all of it.
        times: event times around one window, as offsets from a base, for each window of the view.
    """

    rows: tuple[dict[str, Any], ...]
    plain: dict[str, tuple[Any, ...]]
    edges: dict[str, tuple[Any, ...]]
    times: dict[Reach, tuple[int, ...]]


def pools_of(view: StreamView, source: Source) -> Pools:
    """The pools of a view: its own literals, windows and hops beside the usual suspects."""
    wanted = source_columns(view) | {e.column for e in source.expectations}
    fields = [f for f in source.fields if f.name in wanted and f.name != source.event_time]
    near = _near_literals(view, source)
    reaches = dict.fromkeys((f.window, f.hop) for f in view.features if f.window and f.hop)
    if view.ttl is not None:
        # A ttl is a window whose beginning is no tile's.
        reaches[(view.ttl, 1)] = None
    times = {(window, hop): _times(window, hop) for window, hop in reaches or {(DAY, HOUR): None}}
    moments = times_of(next(iter(times.values())))
    keys = {k.name for k in view.keys}
    plain, edges = {}, {}
    for f in fields:
        suspects = tuple(near.get(f.name, ()))
        usual, odd = _suspects(f, moments)
        # Few keys: events must meet in one row.
        few = usual[: 3 if len(keys) == 1 else 2]
        plain[f.name] = (*few, None) if f.name in keys else _each_once((*usual[:2], *suspects, *usual[2:]))
        edges[f.name] = odd[:2] if f.name in keys else odd
    return Pools(_rows_that_count(view, source, plain), plain, edges, times)


def _suspects(f: Field, moments: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Plain and odd values of a column."""
    element = element_of(f.dtype)
    usual = moments[:8] if element == "timestamp" else _PLAIN[element]
    odd = moments if element == "timestamp" else _EDGES[element]
    if not is_list(f.dtype):
        return usual, odd
    lengths = LISTS if f.length is None else (f.length,)
    values = [v for v in usual if v is not None]
    plain = [_cycled(values, start, length) for length in lengths for start in range(2)]
    edges = [[v, *_cycled(values, 0, (f.length or 2) - 1)] for v in (*odd, None)]
    return (*plain[:2], None, *plain[2:]), (*edges, _cycled(values, 0, (f.length or 2) + 1))


def _cycled(values: Sequence[Any], start: int, length: int) -> list[Any]:
    return [values[(start + i) % len(values)] for i in range(length)]


def times_of(offsets: Iterable[int]) -> tuple[int, ...]:
    """Values of columns that hold times, which do not follow a case's base."""
    return tuple(BASES[0] + offset for offset in offsets)


def read_times(time: int, reach: Reach) -> tuple[int, ...]:
    """The reads at which an event of that time comes into a window or goes out of it, and those beside them."""
    window, hop = reach
    gone = (time // hop + 1) * hop + window
    return (time + 1, time, gone, gone - 1, time + window, time + window + 1)


def _times(window: int, hop: int) -> tuple[int, ...]:
    """Offsets of event times: ties, neighbours, both sides of every boundary, and far too late."""
    near = (0, -1, 1, -hop, -hop - 1, -hop + 1, hop - 1, hop)
    far = (-window, -window - 1, -window + 1, -window - hop, -window - hop - 1, -window + hop)
    return _each_once((*near, *far, -MINUTE, -HOUR, -2 * window, -LATE))


def _rows_that_count(
    view: StreamView, source: Source, plain: Mapping[str, tuple[Any, ...]]
) -> tuple[dict[str, Any], ...]:
    """Rows of plain values that admission and the view take, the plainest first; any row where none is found."""
    pick = random.Random(0)
    drawn = [dict.fromkeys(plain, 0)]
    drawn += [{name: pick.randrange(len(values)) for name, values in plain.items()} for _ in range(TRIES)]
    drawn.sort(key=lambda row: sum(row.values()))
    rows = [{name: plain[name][i] for name, i in row.items()} for row in drawn]
    found = [row for row in rows if _counts(view, source, row)] or rows
    step = max(len(found) // ROWS, 1)
    return tuple(found[::step][:ROWS])


def _counts(view: StreamView, source: Source, values: Mapping[str, Any]) -> bool:
    record = Record(0, 0, BASES[0] + LATE, {**values, source.event_time: BASES[0]})
    keys = Case((record,), (), ()).keys([k.name for k in view.keys])
    return bool(keys) and NaiveLoop(view, source, [record]).newest(keys[0]) is not None


def _near_literals(view: StreamView, source: Source) -> dict[str, list[Any]]:
    """Values at and beside the constants that conditions and expectations hold a column against."""
    found: dict[str, list[Any]] = {}
    dtypes: Mapping[str, str] = {f.name: f.dtype for f in source.fields}
    conditions = [view.where, *(f.where for f in view.features), *(d.expr for d in view.derive)]
    made_of = {d.name: refs(d.expr) for d in view.derive}
    for expr in conditions:
        nodes = list(_nodes(expr)) if expr is not None else []
        constants = [n for n in nodes if isinstance(n, Literal) and n.value is not None]
        for name in sorted(_source_columns(refs(expr), made_of) & set(dtypes)):
            found.setdefault(name, []).extend(v for c in constants for v in _beside(c.value, c.dtype, dtypes[name]))
    for e in source.expectations:
        constants_of = (e.minimum, e.maximum, *e.values)
        found.setdefault(e.column, []).extend(
            v for c in constants_of for v in _beside(c, dtypes[e.column], dtypes[e.column])
        )
    return {name: list(_each_once(values)) for name, values in found.items()}


def _source_columns(names: set[str], made_of: Mapping[str, set[str]]) -> set[str]:
    """The columns, and those that derived ones among them are made of."""
    return names.union(*(_source_columns(made_of[name], made_of) for name in names if name in made_of))


def _nodes(expr: Expr) -> Iterator[Expr]:
    yield expr
    if isinstance(expr, Call):
        for arg in expr.args:
            yield from _nodes(arg)


def _beside(constant: Any, dtype: str, wanted: str) -> list[Any]:
    """A constant of one type as values of a column's type, with its neighbours; nothing where it cannot be one."""
    numbers = ("int64", "float64")
    if constant is None or (dtype != wanted and not (dtype in numbers and wanted in numbers)):
        return []
    if wanted == "int64":
        whole = int(float(constant)) if isinstance(constant, str | float) else int(constant)
        return [v for v in (whole, whole - 1, whole + 1) if -(2**63) <= v < 2**63]
    if wanted == "float64":
        x = float(constant)
        return [x, nextafter(x, -inf), nextafter(x, inf)]
    if wanted == "string":
        text = str(constant)
        return [text, *({text.replace("%", "").replace("_", "x"), text.replace("%", "a")} - {text}), text + "x"]
    return [constant, *([constant - 1, constant + 1] if wanted == "timestamp" else [])]


def _each_once(values: Iterable[Any]) -> tuple[Any, ...]:
    """In order; 1, 1.0 and True are three values, NaN is one."""
    return tuple({repr(v): v for v in values}.values())
