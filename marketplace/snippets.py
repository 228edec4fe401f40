"""The two programs that a page shows: one makes a training set, one reads online. Both are complete.

Every name and value enters as a Python literal, so whatever a definition is called, the program is what it
looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headwater.plans.plan import Field

_PLACEHOLDERS: dict[str, object] = {
    "int64": 1, "float64": 1.0, "string": "example", "bool": True, "timestamp": 0, "bytes": b"example",
}  # fmt: skip


@dataclass(frozen=True)
class EntityRows:
    """Rows to ask for. `found` is False where they are placeholders, because no row could be found."""

    rows: tuple[Mapping[str, object], ...]
    at: int
    found: bool


def placeholder_rows(keys: Iterable[Field], at: int) -> EntityRows:
    """One row of values of the right types that need not exist. `at`: microseconds since the epoch."""
    return EntityRows(({k.name: _PLACEHOLDERS[k.dtype] for k in keys},), at, False)


def training_snippet(repository: str, features: Sequence[str], service: str | None, entities: EntityRows) -> str:
    """A program that prints a training set, by Feast's SDK."""
    columns = [
        f"    {_literal(name)}: [{', '.join(_literal(row[name]) for row in entities.rows)}],"
        for name in (entities.rows[0] if entities.rows else ())
    ]
    wanted = f"store.get_feature_service({_literal(service)})" if service else _listed(features, 4)
    return "\n".join([
        "import pandas as pd",
        "from feast import FeatureStore",
        "",
        f"store = FeatureStore(repo_path={_literal(repository)})",
        "entity_df = pd.DataFrame({",
        *columns,
        f'    "event_timestamp": pd.to_datetime([{_literal(_iso(entities.at))}] * {len(entities.rows)}, utc=True),',
        "})",
        "training = store.get_historical_features(",
        "    entity_df=entity_df,",
        f"    features={wanted},",
        "    full_feature_names=True,",
        ").to_df()",
        "print(training.T.to_string())",
        "",
    ])  # fmt: skip


def serving_snippet(repository: str, features: Sequence[str], service: str | None, entities: EntityRows) -> str:
    """A program that reads the same features online, by the light client."""
    wanted = f"service={_literal(service)}" if service else f"features={_listed(features, 4)}"
    return "\n".join([
        "import headwater",
        "",
        f"client = headwater.Client({_literal(repository)})",
        "answer = client.get(",
        f"    {wanted},",
        f"    entities=[{', '.join(_mapping(row) for row in entities.rows)}],",
        ")",
        "for row in answer.rows():",
        "    print(row)",
        "",
    ])  # fmt: skip


def _listed(items: Sequence[str], indent: int) -> str:
    pad = " " * indent
    return "[\n" + "".join(f"{pad}    {_literal(item)},\n" for item in items) + f"{pad}]"


def _mapping(row: Mapping[str, object]) -> str:
    return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in row.items()) + "}"


def _literal(value: object) -> str:
    """A Python literal; text in double quotes, as formatters write it, where nothing needs escaping."""
    written = repr(value)
    plain = isinstance(value, str) and written == f"'{value}'" and '"' not in value
    return f'"{value}"' if plain else written


def _iso(micros: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).isoformat()
