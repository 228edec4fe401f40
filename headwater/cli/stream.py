"""`headwater stream`: one worker, in the foreground."""

from __future__ import annotations

import click

from headwater.cli import Context
from headwater.cli.rooms import load


@click.command(
    "stream",
    epilog="Examples:  headwater stream    headwater stream --until-caught-up    (more workers: run it again)",
)
@click.option("--until-caught-up", is_flag=True, help="Stop when all partitions reach the ends read at the start.")
@click.option("--batch", default=20_000, show_default=True, type=click.IntRange(1, 50_000), help="Most events a batch.")
@click.pass_obj
def command(context: Context, until_caught_up: bool, batch: int) -> None:
    """Run a worker: events from Kafka become rows in Redis, behind the offset fence.

    Several workers share the partitions of all topics. Killing one at any moment loses nothing.
    SIGTERM or Ctrl-C finishes the batch in hand.
    """
    load("pipelines.stream_command").run(context.repository(), until_caught_up=until_caught_up, batch=batch)
