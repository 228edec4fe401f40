"""Compiles a StreamView's facts to the plan's StreamView: keys, derive, where, features, state hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headwater.definitions.facts import OperatorFacts, StreamFacts
from headwater.errors import DefinitionError, nearest
from headwater.expressions.syntax import Expr
from headwater.plans.aggregates import compile_operator, describe
from headwater.plans.expectations import compile_expectations
from headwater.plans.keys import compile_keys
from headwater.plans.plan import Derived, Feature, Field, Source, StreamView, stream_state_hash
from headwater.plans.problems import Problems, repeated


@dataclass
class _Columns:
    """The columns that an expression may name.

    `lengths` are those of vectors. `broken` ones are wrong themselves, which was said already.
    """

    types: dict[str, Any]
    lengths: dict[str, int | None]
    broken: set[str] = field(default_factory=set)


def compile_stream_view(
    name: str,
    facts: StreamFacts,
    entities: Sequence[Any],
    source: Source,
    problems: Problems,
    *,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> StreamView:
    """The view with all that is right in it; what is wrong is noted in `problems`.

    Args:
        entities: Feast entities, in the order of the row's key.
        source: the compiled source of that view.
    """
    place = f"Stream view '{name}'"
    types: dict[str, Any] = {f.name: f.dtype for f in source.fields}
    keys = compile_keys(place, entities, types, f"source '{source.name}'", problems)
    columns = _Columns(types, {f.name: f.length for f in source.fields})
    derived = _derived(place, facts.derive, columns, source, problems)
    where = _condition(f"{place}, where", facts.where, columns, problems)
    features = _features(place, facts.features, columns, keys, problems)
    outputs = {f.name: f.dtype for f in features}
    view = StreamView(
        name=name,
        entities=tuple(e.name for e in entities),
        keys=keys,
        source=source.name,
        where=where,
        derive=derived,
        features=features,
        state_hash="",
        freshness=problems.duration(f"{place}, freshness", facts.freshness),
        owner=owner,
        description=description,
        tags=dict(tags or {}),
        expectations=compile_expectations(place, facts.expect, outputs, "feature", problems),
        where_text=facts.where or "",
        derive_text={k: str(v) for k, v in facts.derive.items()},
        ttl=_ttl(place, facts.ttl, features, problems),
    )
    return msgspec.structs.replace(view, state_hash=stream_state_hash(view, source))


def _ttl(place: str, text: Any, features: Sequence[Feature], problems: Problems) -> int | None:
    if text is None:
        return None
    others = [f.name for f in features if f.function != "latest" or f.window is not None or f.where is not None]
    if others:
        problems.add(
            f"{place}, ttl",
            f"it is for views whose features are all columns, such as features=['country']; '{others[0]}' is none. "
            f"Leave the ttl out, or put such features into a view of their own.",
        )
    return problems.duration(f"{place}, ttl", text)


def _features(
    place: str, operators: Sequence[OperatorFacts], columns: _Columns, keys: Sequence[Field], problems: Problems
) -> tuple[Feature, ...]:
    if not operators:
        problems.add(f"{place}, features", "expected operators such as Count(over=['1h']), got none.")
    features: list[Feature] = []
    for operator in operators:
        at = f"{place}, feature {describe(operator)}"
        where = _condition(f"{at}, where", operator.where, columns, problems)
        if operator.column is None or operator.column not in columns.broken:
            features += compile_operator(at, operator, columns.types, columns.lengths, where, problems)
    names = {k.name.lower() for k in keys}
    for feature in features:
        if feature.name.lower() in names:
            problems.add(f"{place}, feature '{feature.name}'", "it is called like a join key; set another name=.")
    for name in repeated([f.name for f in features]):
        problems.add(
            f"{place}, feature '{name}'", "there are two of that name. Leave one out, or set another name= for it."
        )
    return tuple(features)


def _derived(
    place: str, derive: Mapping[str, Any], columns: _Columns, source: Source, problems: Problems
) -> tuple[Derived, ...]:
    """Derived columns in an order in which each uses only earlier ones; `columns` grows by them."""
    taken = {f.name.lower(): f.name for f in source.fields}
    wanted: dict[str, Any] = {}
    for name, text in derive.items():
        at = f"{place}, derive '{name}'"
        if name.lower() in taken:
            problems.add(at, f"source '{source.name}' has a column '{taken[name.lower()]}' already; take another name.")
            columns.broken.add(name)
        elif problems.name(at, name):
            wanted[name] = text
    for name in repeated(list(wanted)):
        problems.add(f"{place}, derive '{name}'", "the name differs from another in upper and lower case only.")
    order = _ordered(place, wanted, columns, problems)
    return tuple(d for name in order if (d := _derive_one(place, name, wanted[name], columns, problems)))


def _derive_one(place: str, name: str, text: Any, columns: _Columns, problems: Problems) -> Derived | None:
    expr = _expression(f"{place}, derive '{name}'", text, columns, problems)
    if expr is None:
        columns.broken.add(name)
        return None
    columns.types[name] = expr.dtype
    return Derived(name, expr)


def _ordered(place: str, derive: Mapping[str, Any], columns: _Columns, problems: Problems) -> list[str]:
    """The names in an order of use. Those in a cycle, or behind one, are broken and left out."""
    waiting = {name: references(text) & set(derive) for name, text in derive.items()}
    order: list[str] = []
    while ready := [name for name, uses in waiting.items() if uses <= set(order)]:
        order += ready
        for name in ready:
            del waiting[name]
    if waiting:
        cycle = _cycle(waiting)
        problems.add(f"{place}, derive", f"the columns need each other in a cycle: {' -> '.join(cycle)}.")
        columns.broken |= set(waiting)
    return order


def _cycle(uses: Mapping[str, set[str]]) -> list[str]:
    """One cycle, its first name repeated at its end. Each name here uses at least one other of these."""
    path = [min(uses)]
    while path[-1] not in path[:-1]:
        path.append(min(uses[path[-1]] & set(uses)))
    return path[path.index(path[-1]) :]


def references(text: Any) -> set[str]:
    """The names of columns in an expression; none where it cannot be parsed (parsing it will say so)."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        return {column.name for column in sqlglot.parse_one(str(text)).find_all(exp.Column)}
    except SqlglotError:
        return set()


def _expression(at: str, text: Any, columns: _Columns, problems: Problems) -> Expr | None:
    from headwater.expressions.parse import parse

    if not isinstance(text, str) or not text.strip():
        problems.add(at, f"expected an expression, got {text!r}.")
        return None
    if references(text) & columns.broken:
        return None
    try:
        return parse(text, columns.types, place=at)
    except DefinitionError as error:
        problems.note(error)
        return None


def _condition(at: str, text: Any, columns: _Columns, problems: Problems) -> Expr | None:
    if text is None:
        return None
    expr = _expression(at, text, columns, problems)
    if expr is not None and expr.dtype != "bool":
        problems.add(at, f"expected a condition, true or false, but '{text}' is {expr.dtype}.")
        return None
    return expr


def unknown_source(view: str, source: Any, known: Sequence[str]) -> DefinitionError:
    """The error of a view whose source is not in the repository."""
    return DefinitionError(f"Stream view '{view}', source: no StreamSource '{source}'. {nearest(str(source), known)}")
