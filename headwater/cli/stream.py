"""`headwater stream`: one worker, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli import Context, monitoring
from headwater.cli.rooms import load

if TYPE_CHECKING:
    from headwater.monitoring.endpoint import MonitorAddress

EXAMPLES = """\b
Examples:
  headwater stream
  headwater stream --until-caught-up
  headwater stream & headwater stream      # two workers share the partitions
  headwater stream --from earliest         # a new view over a full topic, without a lake
  headwater stream --metrics-port 9108     # then: curl localhost:9108/metrics
  headwater stream --engine spark --conf spark.master=local[8]
"""


@click.command(
    "stream",
    epilog=EXAMPLES,
)
@click.option("--until-caught-up", is_flag=True, help="Stop when all partitions reach the ends read at the start.")
@click.option("--batch", type=click.IntRange(1), help="Most events a batch. Default: 400000; 200000 on Spark.")
@click.option(
    "--engine",
    type=click.Choice(["python", "spark"]),
    default="python",
    show_default=True,
    help="What reads and reduces the events; spark needs Java 17. The rows are the same.",
)
@click.option("--conf", metavar="KEY=VALUE", multiple=True, help="A setting of Spark, such as spark.master=URL.")
@click.option(
    "--from",
    "start",
    metavar="earliest|latest|TIME",
    help="Begin views that have never had rows there, by the broker's time, without a backfill.",
)
@monitoring.monitored()
@click.pass_obj
def command(
    context: Context,
    until_caught_up: bool,
    batch: int | None,
    engine: str,
    conf: tuple[str, ...],
    start: str | None,
    monitor: MonitorAddress | None,
) -> None:
    """Run a worker: events from Kafka become rows in Redis, behind the offset fence.

    Several workers share the partitions of all topics. Killing one at any moment loses nothing.
    A new view over a topic that has events waits for 'headwater backfill', or begins where --from says; it is
    served when it has come to where the topic ended then. Views that have rows are left alone by --from.
    SIGTERM or Ctrl-C finishes the batch in hand. With --engine spark, one process takes all partitions and
    Spark's executors do the work; it goes on where any worker stopped, and any worker where it did.
    """
    load("pipelines.stream_command").run(
        context.repository(), until_caught_up=until_caught_up, batch=batch, engine=engine, conf=conf,
        start=start, monitor=monitor,
    )  # fmt: skip
