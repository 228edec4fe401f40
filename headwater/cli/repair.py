"""`headwater repair`: rows computed again from the lake, while workers run."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from headwater.cli import Context
from headwater.cli.rooms import load
from headwater.errors import DefectsFound, UsageError


@click.command(
    "repair",
    epilog="Examples:  headwater repair customer_spend --entity customer_id=17850    "
    "headwater repair customer_spend --from-check",
)
@click.argument("view")
@click.option(
    "--entity", "entities", metavar="KEY=VALUE[,KEY=VALUE]", multiple=True, help="Whose row; may be repeated."
)
@click.option("--from-check", is_flag=True, help="Every row of the view that a check, run now, finds to differ.")
@click.option("--wait", type=click.FloatRange(0), default=60.0, show_default=True,
              help="Seconds that the sink may take to keep the rows' last events.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    context: Context, view: str, entities: tuple[str, ...], from_check: bool, wait: float, as_json: bool
) -> None:
    """Computes rows of a stream view again from the lake, and replaces those that differ.

    Workers may run: their events count once. A sink must run, or have kept everything. Positions that
    lie past events which no row has are set back (--from-check). Exit code 1 where something still differs.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if bool(entities) == from_check:
        raise UsageError("Say which rows: either --entity KEY=VALUE (may be repeated) or --from-check.")
    repository = context.repository()
    pipeline = load("pipelines.repair")
    wanted = None if from_check else _entities(repository, view, entities)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=as_json or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(view)
        done = pipeline.repair(repository, view, wanted, wait=wait, say=lambda text: bar.update(task, description=text))
    click.echo(json.dumps(_as_dict(done)) if as_json else _report(done))
    if done.left:
        one = len(done.left) == 1
        raise DefectsFound(
            f"{'1 row' if one else f'{len(done.left):,} rows'} of {view!r} still differ{'s' if one else ''}."
        )


def _entities(repository: Any, view: str, texts: tuple[str, ...]) -> list[dict[str, Any]]:
    from headwater.online.connection import Connection
    from headwater.online.entities import parse_entity
    from headwater.online.plan_store import load_published

    with Connection(repository.need_redis()) as connection:
        published = load_published(connection, repository.project)
    found = [v for v in published.plan.views if v.name == view] if published else []
    # A view that is not there is named by the repair itself, with the nearest ones.
    keys = {k.name: k.dtype for v in found for k in v.keys}
    return [parse_entity(text, keys) for text in texts] if found else [{}]


def _as_dict(done: Any) -> dict[str, Any]:
    return {
        "view": done.view, "repaired": done.repaired, "taken_away": done.taken_away, "right": done.right,
        "positions": {str(p): offset for p, offset in done.positions.items()},
        "left": [
            {"key": key.decode("utf-8", "backslashreplace"), "cause": d.cause, "detail": d.detail, "action": d.action}
            for key, d in done.left.items()
        ],
    }  # fmt: skip


def _report(done: Any) -> str:
    said = [f"{done.repaired:,} repaired"]
    said += [f"{done.taken_away:,} taken away, because no event stands behind them"] if done.taken_away else []
    said += [f"{done.right:,} right already"] if done.right else []
    lines = [f"{done.view}: {', '.join(said)}."]
    lines += [f"  The position of partition {p} was set back to {o}." for p, o in done.positions.items()]
    for key, d in list(done.left.items())[:20]:
        lines += [f"  {key.decode('utf-8', 'backslashreplace')}: {d.cause}: {d.detail}", f"    do: {d.action}"]
    return "\n".join(lines)
