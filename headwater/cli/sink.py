"""`headwater sink`: events from Kafka are kept in the lake, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli import Context, monitoring
from headwater.cli.rooms import load

if TYPE_CHECKING:
    from headwater.monitoring.endpoint import MonitorAddress

EXAMPLES = """\b
Examples:
  headwater sink
  headwater sink --until-caught-up
  headwater sink --every 5 --metrics-port 9109
"""


@click.command(
    "sink",
    epilog=EXAMPLES,
)
@click.option("--until-caught-up", is_flag=True, help="Stop when all partitions reach the ends read at the start.")
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0.05, 60), metavar="SECONDS",
              help="How long a record waits at most before it is committed to the lake.")  # fmt: skip
@click.option(
    "--batch", default=50_000, show_default=True, type=click.IntRange(1, 500_000), help="Most records a commit."
)
@monitoring.monitored()
@click.pass_obj
def command(context: Context, until_caught_up: bool, every: float, batch: int, monitor: MonitorAddress | None) -> None:
    """Run the sink: every record of every source is kept in the lake, once, with its place and times.

    What is not admitted is kept with its reason and its bytes. Several sinks share the partitions; killing
    one at any moment loses nothing and doubles nothing. SIGTERM or Ctrl-C finishes the batch in hand.
    """
    load("pipelines.sink_command").run(
        context.repository(), until_caught_up=until_caught_up, every=every, batch=batch,
        monitor=monitor,
    )  # fmt: skip
