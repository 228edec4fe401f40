"""`headwater status`: addresses, and lag, rate and freshness of every view."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import Context
from headwater.errors import HeadwaterError
from headwater.events.timestamps import format_timestamp

if TYPE_CHECKING:
    from headwater.online.status import ViewStatus
    from headwater.receipts.results import ViewCheck
    from headwater.repository import Repository

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

EXAMPLES = """\b
Examples:
  headwater status
  headwater -C shop status --json
"""


@click.command(
    "status",
    epilog=EXAMPLES,
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(context: Context, as_json: bool) -> None:
    """Show the addresses in use, and lag, freshness and the last check of every view.

    Counters say what left no trace in a value: null_keys, events that are in no row because a join key is null;
    derived_nulls and scaled_nulls, values that do not fit 64 bits when derived, or when scaled for a sum or mean.
    Rate and freshness are of the last second in which a worker wrote the view; "measured" says how long ago that is.
    """
    from headwater.online.status import view_statuses

    repository = context.repository()
    statuses = view_statuses(repository)
    checks = _checks(repository)
    if as_json:
        click.echo(json.dumps(_as_json(repository, statuses, checks)))
        return
    click.echo(
        f"Kafka  {repository.kafka.get('bootstrap.servers')}\nRedis  {repository.redis_url}\nLake   {repository.lake}"
    )
    if not statuses:
        click.echo("No plan is published yet. Publish one with 'headwater apply'.")
        return
    rows: list[tuple[str, ...]] = [
        ("view", "state", "lag", "events/s", "freshness p50 / p99", "measured", "last check", "counters")
    ]
    rows += [_row(s, checks if isinstance(checks, str) else checks.get(s.view)) for s in statuses]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def _check_json(checks: dict[str, ViewCheck] | str, view: str) -> dict[str, Any] | None:
    found = None if isinstance(checks, str) else checks.get(view)
    if found is None:
        return None
    return {"at": format_timestamp(found.checked_at), "compared": found.compared, "equal": found.compared_equal,
            "defects": found.defects, "differences": found.differences}  # fmt: skip


def _as_json(repository: Repository, statuses: list[ViewStatus], checks: dict[str, ViewCheck] | str) -> dict[str, Any]:
    views = [
        {"view": s.view, "hash": s.hash, "lag": s.lag, "freshness_ms": s.freshness_ms,
         "freshness_p99_ms": s.freshness_p99_ms, "events_per_second": s.events_per_second,
         "measured_at": None if s.measured_at is None else format_timestamp(s.measured_at), "state": s.state,
         "known_from": s.known_from, "last_check": _check_json(checks, s.view), "counters": s.counters}
        for s in statuses
    ]  # fmt: skip
    return {
        "bootstrap_servers": repository.kafka.get("bootstrap.servers"),
        "redis_url": repository.redis_url,
        "lake": repository.lake,
        "views": views,
    }


def _checks(repository: Repository) -> dict[str, ViewCheck] | str:
    """The last check of each view, or why it is unknown."""
    try:
        from headwater.lake.lake import Lake

        return Lake(repository.lake).latest_checks()
    except ModuleNotFoundError:
        return "unknown: needs headwater[lake]"
    except HeadwaterError:
        return "unknown: the lake cannot be read"


def _check(check: ViewCheck | str | None) -> str:
    if check is None or isinstance(check, str):
        return check or "never"
    ago = _ago(check.checked_at)
    if check.defects:
        return f"{check.defects:,} {'defect' if check.defects == 1 else 'defects'}, {ago}"
    return f"{check.compared_equal:,} of {check.compared:,} equal, {ago}"


def _ago(micros: int) -> str:
    seconds = max(time.time_ns() // 1000 - micros, 0) // 1_000_000
    return next((f"{seconds // n} {unit} ago" for n, unit in _UNITS if seconds >= n), "just now")


def _row(s: ViewStatus, check: ViewCheck | str | None) -> tuple[str, ...]:
    fresh = "-" if s.freshness_ms is None else f"{s.freshness_ms:,.1f} / {s.freshness_p99_ms:,.1f} ms"
    rate = "-" if s.events_per_second is None else f"{s.events_per_second:,.0f}"
    counters = ", ".join(f"{k} {v:,}" for k, v in sorted(s.counters.items())) or "-"
    measured = "-" if s.measured_at is None else _ago(s.measured_at)
    state = s.state if s.known_from is None else f"{s.state}, from {s.known_from}"
    return s.view, state, "-" if s.lag is None else f"{s.lag:,}", rate, fresh, measured, _check(check), counters
