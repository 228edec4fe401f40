"""`headwater status`: addresses, and lag, rate and freshness of every view."""

from __future__ import annotations

import json
from typing import Any

import click

from headwater.cli import Context


@click.command(
    "status",
    epilog="Examples:  headwater status    headwater -C feature_repo status --json",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(context: Context, as_json: bool) -> None:
    """Show the addresses in use, and lag and freshness of every view.

    Counters say what left no trace in a value: null_keys, events that are in no row because a join key is null;
    derived_nulls and scaled_nulls, values that do not fit 64 bits when derived, or when scaled for a sum or mean.
    """
    from headwater.online.status import view_statuses

    repository = context.repository()
    statuses = view_statuses(repository)
    if as_json:
        click.echo(json.dumps(_as_json(repository, statuses)))
        return
    click.echo(
        f"Kafka  {repository.kafka.get('bootstrap.servers')}\nRedis  {repository.redis_url}\nLake   {repository.lake}"
    )
    if not statuses:
        click.echo("No plan is published yet. Publish one with 'headwater apply'.")
        return
    rows: list[tuple[str, ...]] = [("view", "state", "lag", "events/s", "freshness p50 / p99", "counters")]
    rows += [_row(s) for s in statuses]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def _as_json(repository: Any, statuses: list[Any]) -> dict[str, Any]:
    views = [
        {"view": s.view, "hash": s.hash, "lag": s.lag, "freshness_ms": s.freshness_ms, "state": s.state,
         "counters": s.counters}
        for s in statuses
    ]  # fmt: skip
    return {
        "bootstrap_servers": repository.kafka.get("bootstrap.servers"),
        "redis_url": repository.redis_url,
        "lake": repository.lake,
        "views": views,
    }


def _row(s: Any) -> tuple[str, ...]:
    fresh = "-" if s.freshness_ms is None else f"{s.freshness_ms:,.1f} / {s.freshness_p99_ms:,.1f} ms"
    rate = "-" if s.events_per_second is None else f"{s.events_per_second:,.0f}"
    counters = ", ".join(f"{k} {v:,}" for k, v in sorted(s.counters.items())) or "-"
    return s.view, s.state, "-" if s.lag is None else f"{s.lag:,}", rate, fresh, counters
