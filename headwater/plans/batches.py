"""Compiles a BatchView's facts to the plan's BatchView: keys and features from its query's result."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headwater.definitions.facts import BatchFacts
from headwater.dtypes import from_feast, shown, vector_length
from headwater.errors import DefinitionError, nearest
from headwater.plans.expectations import compile_expectations
from headwater.plans.keys import compile_keys
from headwater.plans.plan import BatchView, Field, Source, batch_state_hash
from headwater.plans.problems import Problems, repeated
from headwater.plans.queries import describe_query

_STAMP = "event_timestamp"
"""The column that a snapshot gets with its time; a query may return it, and it is no feature."""


def compile_batch_view(
    name: str,
    facts: BatchFacts,
    entities: Sequence[Any],
    sources: Sequence[Source],
    problems: Problems,
    *,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> BatchView:
    """The view with all that is right in it; what is wrong is noted in `problems`."""
    place = f"Batch view '{name}'"
    result = _result(f"{place}, sql", facts.sql, sources, problems)
    keys: tuple[Field, ...] = ()
    features: tuple[Field, ...] = ()
    if result is not None:
        keys = compile_keys(place, entities, {f.name: f.dtype for f in result}, "the query's result", problems)
        features = _features(place, facts, result, {e.join_key for e in entities}, problems)
    outputs = {f.name: f.dtype for f in features}
    view = BatchView(
        name=name,
        entities=tuple(e.name for e in entities),
        keys=keys,
        sql=inspect.cleandoc(str(facts.sql)),
        ttl=problems.duration(f"{place}, ttl", facts.ttl),
        features=features,
        state_hash="",
        freshness=problems.duration(f"{place}, freshness", facts.freshness),
        owner=owner,
        description=description,
        tags=dict(tags or {}),
        expectations=() if result is None else compile_expectations(place, facts.expect, outputs, "feature", problems),
    )
    return msgspec.structs.replace(view, state_hash=batch_state_hash(view))


def _result(place: str, sql: Any, sources: Sequence[Source], problems: Problems) -> list[Field] | None:
    try:
        return describe_query(place, sql, sources)
    except DefinitionError as error:
        problems.note(error)
        return None


def _features(
    place: str, facts: BatchFacts, result: Sequence[Field], keys: set[str], problems: Problems
) -> tuple[Field, ...]:
    features = tuple(f for f in result if f.name not in keys and f.name != _STAMP)
    if not features:
        problems.add(f"{place}, sql", "the result has no column beside the join keys, so there is no feature.")
    for name in repeated([f.name for f in result]):
        problems.add(f"{place}, feature '{name}'", "the result has two columns of that name; rename one with AS.")
    for feature in features:
        problems.name(f"{place}, feature '{feature.name}'", feature.name)
    return features if facts.schema is None else _declared(place, facts.schema, features, keys, problems)


def _declared(
    place: str, schema: Mapping[str, str], found: Sequence[Field], keys: set[str], problems: Problems
) -> tuple[Field, ...]:
    """The features of a declared schema, in its order, each found in the result with that type."""
    types = {f.name: f for f in found}
    features = []
    for name, given in schema.items():
        at = f"{place}, schema, '{name}'"
        dtype = from_feast(given)
        if name in keys:
            continue
        if name not in types:
            problems.add(at, f"the query's result has no such column. {nearest(name, types)}")
        elif dtype is None or dtype != types[name].dtype or types[name].length not in (None, vector_length(given)):
            result = shown(types[name].dtype, types[name].length)
            problems.add(at, f"it is declared as {given}, but the query's result is {result}.")
        else:
            features.append(Field(name, dtype, vector_length(given)))
    return tuple(features)
