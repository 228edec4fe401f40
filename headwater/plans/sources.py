"""Compiles a StreamSource's facts to the plan's Source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from headwater.definitions.facts import SourceFacts
from headwater.dtypes import _FEAST as FEAST_TYPES
from headwater.dtypes import SCALARS, from_feast, vector_length
from headwater.errors import nearest
from headwater.plans.expectations import compile_expectations
from headwater.plans.plan import Envelope, Field, Format, Source, Updates
from headwater.plans.problems import Problems, repeated

FORMATS: tuple[str, ...] = get_args(Format)
ENVELOPES: tuple[str, ...] = get_args(Envelope)
UPDATES: tuple[str, ...] = get_args(Updates)
MOST_ELEMENTS = 65_536
"""How long a vector may be at most."""
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def compile_source(
    name: str,
    facts: SourceFacts,
    problems: Problems,
    *,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> Source:
    """The source with all that is right in it; what is wrong is noted in `problems`."""
    place = f"Stream source '{name}'"
    fields = _fields(place, facts.schema, problems)
    columns = {f.name: f.dtype for f in fields}
    problems.name(f"{place}, name", name)
    if not isinstance(facts.topic, str) or not _TOPIC.fullmatch(facts.topic) or facts.topic in (".", ".."):
        problems.add(f"{place}, topic", f"expected a Kafka topic's name, got {facts.topic!r}.")
    elif facts.topic.endswith(".dead-letters"):
        problems.add(f"{place}, topic", f"'{facts.topic}' is where dead letters go; read another topic.")
    _event_time(place, facts, columns, problems)
    if facts.key is not None and facts.key not in facts.schema:
        problems.add(f"{place}, key", f"no column {facts.key!r} in the schema. {nearest(str(facts.key), facts.schema)}")
    elif columns.get(str(facts.key), "string") not in SCALARS:
        problems.add(f"{place}, key", f"'{facts.key}' is {columns[str(facts.key)]}; a key is one value.")
    return Source(
        name=name,
        topic=str(facts.topic),
        event_time=str(facts.event_time),
        key=facts.key,
        tolerance=problems.duration(f"{place}, tolerance", facts.tolerance or "") or 0,
        fields=fields,
        expectations=compile_expectations(place, facts.expect, columns, "column", problems),
        description=description,
        owner=owner,
        tags=dict(tags or {}),
        format=_format(place, facts.format, problems),
        envelope=_envelope(place, facts, problems),
        updates="count" if facts.updates == "count" else "ignore",
    )


def _format(place: str, name: object, problems: Problems) -> Format:
    if name not in FORMATS:
        problems.add(f"{place}, format", f"expected one of {', '.join(FORMATS)}, got {name!r}.")
        return "json"
    return name  # type: ignore[return-value]


def _envelope(place: str, facts: SourceFacts, problems: Problems) -> Envelope | None:
    if facts.updates not in UPDATES:
        problems.add(f"{place}, updates", f"expected one of {', '.join(UPDATES)}, got {facts.updates!r}.")
    if facts.envelope is None:
        if facts.updates == "count":
            problems.add(f"{place}, updates", "only events in an envelope are updates: set envelope='debezium'.")
        return None
    if facts.envelope not in ENVELOPES:
        problems.add(f"{place}, envelope", f"expected one of {', '.join(ENVELOPES)}, got {facts.envelope!r}.")
        return None
    if facts.format == "protobuf":
        problems.add(f"{place}, envelope", "envelopes are read in JSON and Avro, and the format is protobuf.")
    return facts.envelope  # type: ignore[no-any-return]


def _fields(place: str, schema: Mapping[str, str], problems: Problems) -> tuple[Field, ...]:
    if not schema:
        problems.add(f"{place}, schema", "expected a mapping of column -> Feast type, got none.")
    for name in repeated(list(schema)):
        problems.add(f"{place}, schema", f"column '{name}' differs from another in upper and lower case only.")
    fields = []
    for name, dtype in schema.items():
        ours = from_feast(dtype)
        if ours is None:
            known = ", ".join(FEAST_TYPES)
            problems.add(
                f"{place}, column '{name}'",
                f"expected one of Feast's types {known}, an Array of one of them, or Vector(LENGTH), got {dtype}.",
            )
        elif problems.name(f"{place}, column '{name}'", name):
            fields.append(Field(name, ours, _length(f"{place}, column '{name}'", dtype, problems)))
    return tuple(fields)


def _length(place: str, dtype: str, problems: Problems) -> int | None:
    length = vector_length(dtype)
    if length is not None and not 1 <= length <= MOST_ELEMENTS:
        problems.add(place, f"expected a length from 1 to {MOST_ELEMENTS:,}, got {length}.")
    return length


def _event_time(place: str, facts: SourceFacts, columns: Mapping[str, str], problems: Problems) -> None:
    name = facts.event_time
    if not name or name not in facts.schema:
        known = nearest(str(name), facts.schema)
        problems.add(f"{place}, event_time", f"expected a column of the schema, got {name!r}. {known}")
    elif columns.get(name, "timestamp") != "timestamp":
        problems.add(f"{place}, event_time", f"expected a column of type UnixTimestamp, '{name}' is {columns[name]}.")
