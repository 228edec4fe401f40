"""`headwater materialize`: compute views over the lake and publish a snapshot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.asked import parse_time
from headwater.durations import DAY
from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.cli import Context

EXAMPLES = """\b
Examples:
  headwater materialize
  headwater materialize customer_profile --as-of 2011-12-01
  headwater materialize customer_profile --as-of 2011-11-01 --as-of 2011-12-01
  headwater materialize customer_profile --as-of 2011-12-09T12:50:00Z --engine spark
"""


@click.command(epilog=EXAMPLES)
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option(
    "--as-of",
    metavar="TIME",
    multiple=True,
    help="The snapshot's time: RFC 3339 or a date, UTC without a zone. May be repeated: a snapshot each. Default: now.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="Where it is computed; spark needs Java 17. The values are the same.",
)
@click.pass_obj
def command(context: Context, views: tuple[str, ...], as_of: tuple[str, ...], engine: str) -> None:
    """Compute views and publish a snapshot stamped with TIME.

    Without VIEW: all BatchViews. The snapshot is judged by the view's expectations first; where they do
    not hold, nothing is published, the failing rows are quarantined, and the exit code is 1. A StreamView's
    snapshot goes to the lake alone.
    """
    from headwater.cli.rooms import load

    repository = context.repository()
    now = time.time_ns() // 1_000
    times = sorted({parse_as_of(text, now) for text in as_of or (None,)})
    room = load("pipelines.materialize")
    from rich.console import Console

    terminal = Console(stderr=True)
    with terminal.status("materialize") as status:
        say = (lambda text: status.update(text)) if terminal.is_terminal else (lambda text: None)
        for at in times:
            done = room.materialize(repository, views, at, engine, say=say)
            if not done:
                click.echo("There is no BatchView to materialize.")
            for result in done:
                _print(result)


def parse_as_of(text: str | None, now: int) -> int:
    """Microseconds of `--as-of`: RFC 3339 or a date, UTC without a zone; `now` (microseconds) where it is left out.

    Raises:
        UsageError: neither, or more than a day ahead of now.
    """
    from headwater.events.timestamps import format_timestamp

    if text is None:
        return now
    micros = parse_time(text, "--as-of")
    if micros > now + DAY:
        raise UsageError(
            f"--as-of {text!r} lies more than a day in the future (now: {format_timestamp(now)}): its rows would "
            f"hide every newer snapshot until then. Give a time that has come."
        )
    return micros


def _print(result: Any) -> None:
    from headwater.events.timestamps import format_timestamp

    lake = f"{result.rows:,} rows at {format_timestamp(result.as_of)} in the lake"
    if result.written is None:
        click.echo(f"{result.view}: {lake} (not in Redis: the rows of a stream view are the worker's)")
    else:
        older = result.rows - result.written
        kept = f", {older:,} left as newer ones are there" if older else ""
        active = "; it is active now" if result.activated else ""
        click.echo(f"{result.view}: {lake}, {result.written:,} written to Redis{kept}{active}")
    for failure in result.tolerated:
        click.echo(f"  within its tolerance: {failure}", err=True)
