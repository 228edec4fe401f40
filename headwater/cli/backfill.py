"""`headwater backfill`: rows from the lake, up to known offsets."""

from __future__ import annotations

import sys

import click

from headwater.cli import Context
from headwater.cli.rooms import load

EXAMPLES = """\b
Examples:
  headwater backfill customer_spend
  headwater backfill customer_spend product_demand
"""


@click.command(
    "backfill",
    epilog=EXAMPLES,
)
@click.argument("views", nargs=-1, required=True, metavar="VIEW...")
@click.option("--accept-gaps", is_flag=True, help="Go on without events that neither the lake nor Kafka has any more.")
@click.pass_obj
def command(context: Context, views: tuple[str, ...], accept_gaps: bool) -> None:
    """Compute the rows of stream views from the lake, beside those that are served.

    The worker goes on from the lake's positions, and the view is switched in one step when it
    has caught up; readers never see a half-filled view.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from headwater.online.connection import Connection

    repository = context.repository()
    pipeline = load("pipelines.backfill")
    lake = load("headwater.lake.lake").Lake(repository.lake)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        Connection(repository.need_redis()) as connection,
        Progress(*columns, disable=not sys.stderr.isatty(), transient=True) as bar,
    ):
        task = bar.add_task("reading the lake")
        done = pipeline.backfill(
            lake, connection, repository.need_kafka(), repository.project, views, accept_gaps=accept_gaps,
            progress=lambda view, rows: bar.update(task, description=f"{view}: {rows:,} rows"),
        )  # fmt: skip
    for filled in done:
        state = "and active" if filled.active else "and filling: the worker switches to it when it has caught up"
        click.echo(f"{filled.view}: {filled.rows:,} rows from {filled.events:,} events, {state}.")
