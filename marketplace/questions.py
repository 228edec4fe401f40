"""Which features and which entities a snippet asks for."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.durations import SECOND
from headwater.plans.plan import Field, Service, View
from marketplace.facts import ExampleRow, FactReader, Facts
from marketplace.snippets import EntityRows, placeholder_rows

SHOWN = 2
"""How many entities a snippet asks for."""


def view_features(view: View) -> list[str]:
    """All features of a view as "VIEW:FEATURE"."""
    return [f"{view.name}:{f.name}" for f in view.outputs()]


def service_features(service: Service) -> list[str]:
    """All features of a service as "VIEW:FEATURE"."""
    return [f"{view}:{name}" for view, names in service.features for name in names]


def entity_rows(facts: Facts, reader: FactReader, views: Sequence[View]) -> EntityRows:
    """Rows that exist and have every join key of the views, one second after the newest event of any.

    A key that the views' own rows cannot give comes from another view that has it; where none has, all
    rows are placeholders.
    """
    wanted = tuple({k.name: k for v in views for k in v.keys}.values())
    rows: list[dict[str, object]] = [{} for _ in range(SHOWN)]
    newest: list[int] = []
    for view in (*views, *(v for v in facts.all_views() if v not in views)):
        if not _lacking(rows, view.keys, wanted):
            continue
        found = reader.examples(view, SHOWN)
        newest += _fill(rows, found, wanted)
    whole = [{k.name: row[k.name] for k in wanted} for row in rows if len(row) == len(wanted)]
    if not whole:
        return placeholder_rows(wanted, facts.measured_at)
    return EntityRows(tuple(whole), max(newest, default=facts.measured_at) + SECOND, True)


def _lacking(rows: Sequence[dict[str, object]], keys: Sequence[Field], wanted: Sequence[Field]) -> bool:
    """Whether a view with these keys can give something that the first row does not have yet."""
    names = {k.name for k in wanted}
    return any(k.name in names and k.name not in rows[0] for k in keys)


def _fill(rows: list[dict[str, object]], found: Sequence[ExampleRow], wanted: Sequence[Field]) -> list[int]:
    """Adds what the rows lack; the newest times of the rows that were found."""
    names = {k.name for k in wanted}
    for row, example in zip(rows, found, strict=False):
        for name in names & set(example.keys):
            row.setdefault(name, example.keys[name])
    return [e.newest for e in found if e.newest is not None]
