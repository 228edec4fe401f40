"""The values at a campaign's end against a reference program that lies outside this tree (benchmarks/reference_program.py).

What counts is what the naive loop admits of the records that the topics hold, so the product has no part in it.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from benchmarks.reference_program import ReferenceProgram, plain, spec_of
from headwater.plans.plan import Source, StreamView
from headwater.serving.client import Client
from headwater.testing.naive_loop import admitted
from tests.campaign.events import PRODUCTS
from tests.campaign.world import CampaignWorld

TYPES = {
    "int64": pl.Int64, "float64": pl.Float64, "string": pl.String, "bool": pl.Boolean, "bytes": pl.Binary,
    "timestamp": pl.Datetime("us", "UTC"),
}  # fmt: skip


def differences(world: CampaignWorld, program: str) -> tuple[int, int]:
    """(values compared, values that differ) of every row of every view, read now and just behind its newest event."""
    reference = ReferenceProgram(program)
    compared = differ = 0
    for view in world.plan.stream_views():
        source = world.plan.source(view.source)
        known = world.flow.records[source.topic]
        asked, ours = _read(world, view, sorted(known))
        values, different = reference.compare(
            spec_of(view, source), _events(source, known), asked, ours,
            lambda text, view=view: world.said(f"{view.name} {text}"),  # type: ignore[misc]
        )  # fmt: skip
        compared, differ = compared + values, differ + different
    return compared, differ


def _events(source: Source, known: dict[int, list[Any]]) -> pl.DataFrame:
    """What is admitted of a topic's records, with its partition and offset."""
    rows = []
    for record in (r for records in known.values() for r in records):
        event = admitted(record, source)
        if event is not None:
            rows.append(event | {"_partition": record.partition, "_offset": record.offset})
    schema = {f.name: TYPES[f.dtype] for f in source.fields} | {"_partition": pl.Int64, "_offset": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _read(world: CampaignWorld, view: StreamView, customers: list[int]) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """The questions, and what is online at their times."""
    keys = [
        (c, *rest) for c in customers for rest in ([(f"p{i}",) for i in range(PRODUCTS)] if view.keys[1:] else [()])
    ]
    entities = {k.name: [key[i] for key in keys] for i, k in enumerate(view.keys)}
    tables, ours = [], []
    with Client(redis=world.redis_url, project=world.project) as client:
        for as_of in (None, 0):
            rows = client.get([view.name], entities=entities, as_of=as_of)
            at = pl.Series("at", rows.as_of[view.name], pl.Int64).cast(TYPES["timestamp"])
            tables.append(pl.DataFrame(entities).with_columns(at))
            names = [column.feature for column in rows.shape.columns]
            ours += [dict(zip(names, map(plain, row), strict=True)) for row in zip(*rows.values, strict=True)]
    return pl.concat(tables), ours
