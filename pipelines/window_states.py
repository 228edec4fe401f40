"""The window law as Spark SQL: one query that returns the states of every feature for every key.

Apart from the Spark job because it is text and numpy only. Engines return states, never values: exact
sums as two limbs of integers, the last value with its place, the hashes of a distinct count. One function
of the library (`aggregations.statistics.finish`) turns them into values, as it does for rows and history.

All keys are read at one time q, so a window is a constant interval floor(q - W, h) <= t < q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.aggregations.approx_distinct import LIMIT, SCALE
from headwater.aggregations.components import Events, Extreme, States, TextExtreme, Total, Values
from headwater.aggregations.distinct_values import DistinctValues
from headwater.aggregations.hash_sets import HashSet
from headwater.aggregations.last_n import LastN
from headwater.aggregations.latest import Earliest, Latest, Newest
from headwater.aggregations.numbers import LOW
from headwater.aggregations.quantiles import BITS, Buckets, buckets_of
from headwater.aggregations.squares import Squares
from headwater.aggregations.statistics import components_of, finish
from headwater.aggregations.value_counts import ValueCounts
from headwater.columns import Column
from headwater.dtypes import Dtype
from headwater.expressions.sql import normalised_sql, quoted_name, to_sql
from headwater.expressions.syntax import Expr
from headwater.plans.plan import Feature, Source, StreamView
from headwater.windows.law import window_start
from pipelines.spark_states import Component, decoded

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class StateQuery:
    """`sql` returns the join keys and one column a state; `names` says which column is whose."""

    sql: str
    names: dict[tuple[Component, int | None, int | None], str]


def state_query(view: StreamView, source: Source, table: str, at: int) -> StateQuery:
    """The query for a view at `at` (microseconds) over `table`: the source's columns, `_partition`, `_offset`."""
    dtypes = {f.name: f.dtype for f in source.fields} | {d.name: d.expr.dtype for d in view.derive}
    writer = _Writer(view, dtypes, at)
    names: dict[tuple[Component, int | None, int | None], str] = {}
    for feature in view.features:
        for component in components_of(feature):
            place = (_known(component), feature.window, feature.hop)
            if place not in names:
                names[place] = f"_s{len(names)}"
                writer.add(names[place], *place)
    return StateQuery(writer.sql(_base(view, source, table, at)), names)


def finish_states(view: StreamView, query: StateQuery, states: pa.Table) -> list[Column]:
    """The join keys and the values of the features, from the table that the query gave.

    Raises:
        ReadError: an integer sum needs more than 64 bits.
    """
    keys = [Column.from_arrow(k.dtype, states[k.name]) for k in view.keys]
    found = {name: decoded(component, states[name]) for (component, _, _), name in query.names.items()}
    return keys + [_finished(f, query, found) for f in view.features]


def _finished(feature: Feature, query: StateQuery, states: dict[str, States]) -> Column:
    names = [query.names[(_known(c), feature.window, feature.hop)] for c in components_of(feature)]
    return finish(feature, [states[name] for name in names])


def _known(component: Any) -> Component:
    assert isinstance(component, Component), f"no SQL for the component {component!r}"
    return component


def _base(view: StreamView, source: Source, table: str, at: int) -> str:
    """The events that count, with derived columns: normalised on the way in, keys not null, before `at`."""
    columns = ", ".join(f"{normalised_sql(_q(f.name), f.dtype, 'spark')} AS {_q(f.name)}" for f in source.fields)
    time = f"UNIX_MICROS({_q(source.event_time)}) AS _t"
    sql = f"SELECT {columns}, CAST(_partition AS BIGINT) AS _p, _offset AS _o, {time} FROM {table}"
    for derived in view.derive:
        sql = f"SELECT *, {to_sql(derived.expr, 'spark')} AS {_q(derived.name)} FROM ({sql})"
    conditions = [f"_t < {_int64(at)}", *(f"{_q(k.name)} IS NOT NULL" for k in view.keys)]
    if view.where is not None:
        conditions.append(f"({to_sql(view.where, 'spark')})")
    return f"SELECT * FROM ({sql}) WHERE {' AND '.join(conditions)}"


def _q(name: str) -> str:
    return quoted_name(name, "spark")


class _Writer:
    """Collects the state columns of a view: aggregates of one GROUP BY, sets of hashes and counts of values of others."""

    def __init__(self, view: StreamView, dtypes: dict[str, Dtype], at: int) -> None:
        self.keys = [_q(k.name) for k in view.keys]
        self.dtypes, self.at = dtypes, at
        # A ttl is a window of its exact length.
        self.fresh = [] if view.ttl is None else [f"_t >= {_int64(max(at - view.ttl, -(2**63)))}"]
        self.computed: dict[str, str] = {}
        self.aggregates: list[str] = []
        self.sets: list[tuple[str, str]] = []
        self.counted: dict[str, list[tuple[str, str, int]]] = {}

    def add(self, name: str, component: Component, window: int | None, hop: int | None) -> None:
        """One more state column."""
        holds = self._holds(component.where, window, hop)
        if isinstance(component, HashSet):
            there = " AND ".join(holds) or "TRUE"
            self.sets.append((name, f"CASE WHEN {there} THEN {self._hash(component.column)} END"))
        elif isinstance(component, ValueCounts):
            # One array holds values of one type.
            kind = "int64" if component.dtype == "timestamp" else component.dtype
            self._count(name, kind, self._plain(component.column), holds, component.most)
        elif isinstance(component, Buckets):
            number = _bucket(self._scaled(component.column, component.scale))
            self._count(name, "int64", number, holds, 1 << BITS)
        else:
            self.aggregates.append(f"{self._aggregate(component, holds)} AS {name}")

    def _count(self, name: str, kind: str, value: str, holds: list[str], limit: int) -> None:
        there = " AND ".join(holds) or "TRUE"
        self.counted.setdefault(kind, []).append((name, f"CASE WHEN {there} THEN {value} END", limit))

    def sql(self, base: str) -> str:
        """The whole query over the events of `base`."""
        keys = ", ".join(self.keys)
        if self.computed:
            extra = ", ".join(f"{sql} AS {name}" for sql, name in self.computed.items())
            base = f"SELECT *, {extra} FROM ({base})"
        tables = {
            "_events": base,
            "_plain": f"SELECT {', '.join([keys, *self.aggregates])} FROM _events GROUP BY {keys}",
        }
        states = []
        if self.sets:
            tables["_hashed"] = self._hash_sets()
            states += [f"_sets[{i}] AS {name}" for i, (name, _) in enumerate(self.sets)]
        for kind, counted in self.counted.items():
            tables[f"_counted_{kind}"] = self._value_counts(f"_counts_{kind}", counted)
            states += [f"_counts_{kind}[{i}] AS {name}" for i, (name, _, _) in enumerate(counted)]
        ctes = ", ".join(f"{name} AS ({sql})" for name, sql in tables.items())
        joins = "".join(f" LEFT JOIN {name} USING ({keys})" for name in list(tables)[2:])
        return f"WITH {ctes} SELECT {', '.join(['*', *states])} FROM _plain{joins}"

    def _holds(self, where: Expr | None, window: int | None, hop: int | None) -> list[str]:
        conditions = self.fresh if window is None else [f"_t >= {_int64(window_start(self.at, window, hop))}"]
        return conditions if where is None else [*conditions, self._once(f"({to_sql(where, 'spark')})")]

    def _once(self, sql: str) -> str:
        """A column that holds the expression: many features look at one, and each copy is compiled again."""
        return self.computed.setdefault(sql, f"_x{len(self.computed)}")

    def _scaled(self, column: str, scale: int) -> str:
        """The integers that enter sums."""
        return self._once(_scaled(_q(column), scale)) if self.dtypes[column] == "float64" else _q(column)

    def _aggregate(self, component: Component, holds: list[str]) -> str:
        match component:
            case Events():
                return _filtered("COUNT(*)", holds)
            case Values():
                scale = component.scale
                value = _q(component.column) if scale is None else self._scaled(component.column, scale)
                return _filtered(f"COUNT({value})", holds)
            case Total():
                value = self._scaled(component.column, component.scale)
                high, low = (
                    _filtered(f"SUM({limb})", holds) for limb in (f"SHIFTRIGHT({value}, 32)", f"{value} & {LOW}L")
                )
                return f"STRUCT({high} AS high, {low} AS low)"
            case Squares():
                parts = _square_parts(self._scaled(component.column, component.scale))
                return f"STRUCT({', '.join(_filtered(f'SUM({sql})', holds) + f' AS {p}' for p, sql in parts.items())})"
            case Extreme() | TextExtreme():
                function = "MAX" if component.greatest else "MIN"
                return _filtered(f"{function}({self._plain(component.column)})", holds)
            case DistinctValues():
                return _filtered(f"COUNT(DISTINCT {self._plain(component.column)})", holds)
            case LastN():
                place = f"STRUCT(_t AS t, _p AS p, _o AS o, {self._plain(component.column)} AS v)"
                newest = f"MAX_BY({place}, STRUCT(_t, _p, _o), {component.most})"
                return _filtered(newest, [*holds, f"{_q(component.column)} IS NOT NULL"])
            case Latest():
                value = self._plain(component.column)
                there = holds if isinstance(component, Newest) else [*holds, f"{_q(component.column)} IS NOT NULL"]
                function = "MIN" if isinstance(component, Earliest) else "MAX"
                return _filtered(f"{function}(STRUCT(_t AS t, _p AS p, _o AS o, {value} AS v))", there)
        raise AssertionError(component)

    def _plain(self, column: str) -> str:
        """A column's value as it stands in a state: timestamps are microseconds."""
        if self.dtypes[column] == "list[timestamp]":
            return f"TRANSFORM({_q(column)}, e -> UNIX_MICROS(e))"
        return f"UNIX_MICROS({_q(column)})" if self.dtypes[column] == "timestamp" else _q(column)

    def _hash_sets(self) -> str:
        """A map of set -> distinct hashes for each key; above the limit only the registers leave the engine."""
        keys = ", ".join(self.keys)
        structs = ", ".join(f"STRUCT({i} AS s, {sql} AS h)" for i, (_, sql) in enumerate(self.sets))
        distinct = f"SELECT DISTINCT * FROM (SELECT {keys}, INLINE(ARRAY({structs})) FROM _events) WHERE h IS NOT NULL"
        top, rest = "CAST(CONV(SUBSTR(h, 1, 3), 16, 10) AS INT)", "CAST(CONV(SUBSTR(h, 4, 13), 16, 10) AS BIGINT)"
        rest = f"(SHIFTLEFT(CAST({top} & 1 AS BIGINT), 52) | {rest})"
        rank = f"54 - CASE WHEN {rest} = 0 THEN 0 ELSE LENGTH(BIN({rest})) END"
        ranked = (
            f"SELECT {keys}, s, SHIFTRIGHT({top}, 1) AS i, MAX({rank}) AS r, COUNT(*) AS n, "
            f"CASE WHEN COUNT(*) <= {LIMIT} THEN COLLECT_LIST(h) END AS h FROM ({distinct}) GROUP BY {keys}, s, i"
        )
        packed = (
            f"SELECT {keys}, s, "
            f"CASE WHEN SUM(n) <= {LIMIT} THEN FLATTEN(COLLECT_LIST(h)) END AS hashes, "
            f"CASE WHEN SUM(n) > {LIMIT} THEN COLLECT_LIST(STRUCT(i, r)) END AS registers "
            f"FROM ({ranked}) GROUP BY {keys}, s"
        )
        entries = "MAP_FROM_ENTRIES(COLLECT_LIST(STRUCT(s, STRUCT(hashes, registers))))"
        return f"SELECT {keys}, {entries} AS _sets FROM ({packed}) GROUP BY {keys}"

    def _value_counts(self, name: str, counted: list[tuple[str, str, int]]) -> str:
        """A map of state -> its (value, count) pairs for each key; null for more than its limit."""
        keys = ", ".join(self.keys)
        structs = ", ".join(f"STRUCT({i} AS _i, {sql} AS _v)" for i, (_, sql, _) in enumerate(counted))
        limits = " ".join(f"WHEN {i} THEN {limit}" for i, (_, _, limit) in enumerate(counted))
        counts = (
            f"SELECT {keys}, _i, _v, COUNT(*) AS _n FROM (SELECT {keys}, INLINE(ARRAY({structs})) FROM _events) "
            f"WHERE _v IS NOT NULL GROUP BY {keys}, _i, _v"
        )
        lists = (
            f"SELECT {keys}, _i, CASE WHEN COUNT(*) <= CASE _i {limits} END "
            f"THEN COLLECT_LIST(STRUCT(_v AS v, _n AS n)) END AS items FROM ({counts}) GROUP BY {keys}, _i"
        )
        entries = "MAP_FROM_ENTRIES(COLLECT_LIST(STRUCT(_i, STRUCT(items))))"
        return f"SELECT {keys}, {entries} AS {name} FROM ({lists}) GROUP BY {keys}"

    def _hash(self, column: str) -> str:
        """The 16 first hex digits of MD5 over the value's text."""
        dtype = self.dtypes[column]
        if dtype == "float64":
            # Doubles that do not fit when scaled are one value together, the text None (approx_distinct.hashes).
            text = f"COALESCE(CAST({self._scaled(column, SCALE)} AS STRING), 'None')"
            value = f"CASE WHEN {_q(column)} IS NOT NULL THEN {text} END"
        elif dtype in ("string", "bytes"):
            value = _q(column)
        else:
            value = f"CAST({self._plain(column)} AS STRING)"
        return f"SUBSTR(MD5({value}), 1, 16)"


def _filtered(aggregate: str, holds: list[str]) -> str:
    return f"{aggregate} FILTER (WHERE {' AND '.join(holds)})" if holds else aggregate


def _scaled(value: str, scale: int) -> str:
    """The integer that enters sums; null where it does not fit (one multiplication, addition and floor)."""
    x = f"({value} * 1e{scale} + 5e-1)"
    fits = f"{x} >= -9.223372036854775808e18 AND {x} < 9.223372036854775808e18"
    return f"CASE WHEN {fits} THEN CAST(FLOOR({x}) AS BIGINT) END"


def _square_parts(value: str) -> dict[str, str]:
    """A square in parts of at most 63 bits, for a = v >> 32 and b = the low half: sums of them lose nothing."""
    a, b = f"SHIFTRIGHT({value}, 32)", f"({value} & {LOW}L)"
    p, q = f"SHIFTRIGHT({b}, 16)", f"({b} & 65535L)"
    parts: dict[str, str] = {}
    for name, product in (("aa", f"({a} * {a})"), ("ab", f"({a} * {b})")):
        parts |= {f"{name}_high": f"SHIFTRIGHT({product}, 32)", f"{name}_low": f"({product} & {LOW}L)"}
    return parts | {"pp": f"({p} * {p})", "pq": f"({p} * {q})", "qq": f"({q} * {q})"}


def _bucket(value: str) -> str:
    """The number of an integer's bucket (quantiles.buckets_of); the least integer has no absolute value."""
    size = f"ABS({value})"
    shift = f"GREATEST(LENGTH(BIN({size})) - 7, 0)"
    number = f"SIGN({value}) * (64L * {shift} + SHIFTRIGHT({size}, {shift}))"
    least = buckets_of(np.array([-(2**63)])).item()
    return f"CASE WHEN {value} = {_int64(-(2**63))} THEN {least}L ELSE CAST({number} AS BIGINT) END"


def _int64(value: int) -> str:
    """A literal; the least integer has none of its own in SQL."""
    return f"{value}L" if value > -(2**63) else "(-9223372036854775807L - 1L)"
