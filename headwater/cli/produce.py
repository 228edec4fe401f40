"""`headwater produce`: the rows of a Parquet file become events on a topic, in its source's format."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import Context
from headwater.cli.rooms import load
from headwater.cli.sources import published_sources, source_of
from headwater.events.schemas import Schemas

if TYPE_CHECKING:
    from headwater.plans.plan import Source

EXAMPLES = """\b
Examples:
  headwater produce sales.parquet
  headwater produce orders sales.parquet --rate 500
  headwater produce sales.parquet --shift-to-now
"""


@click.command(
    "produce",
    epilog=EXAMPLES,
)
@click.argument("words", nargs=-1, required=True, metavar="[TOPIC] FILE.parquet")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Events a second (default: all speed)."
)
@click.option("--shift-to-now", is_flag=True,
              help="Move event times by whole days, so that the newest lies within the last 24 hours.")  # fmt: skip
@click.pass_obj
def command(context: Context, words: tuple[str, ...], rate: float | None, shift_to_now: bool) -> None:
    """Send the rows of FILE.parquet to TOPIC as events of its source's format, in file order, keyed by the source's key.

    TOPIC may be left out where there is only one source. Columns that the source's schema does not have are
    left out. Returns when the broker has all events.
    """
    if len(words) > 2:
        raise click.UsageError(f"Expected [TOPIC] FILE.parquet, got {len(words)} words: {' '.join(words)}.")
    repository = context.repository()
    source = _source(published_sources(repository), words[0] if len(words) == 2 else None)
    if len(words) == 1 and words[0] in (source.topic, source.name) and not Path(words[0]).exists():
        raise click.UsageError(f"{words[0]} is a topic. Name the file to send too: {words[0]} FILE.parquet.")
    pipeline = load("pipelines.produce")
    file = pipeline.EventFile(Path(words[-1]), source)
    shift = file.shift_to(time.time_ns() // 1000) if shift_to_now else 0
    began = time.perf_counter()
    with click.progressbar(length=file.rows, label="produce", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        sent = pipeline.produce_file(
            repository.need_kafka(), file, shift=shift, rate=rate, progress=lambda n: bar.update(n - bar.pos),
            schemas=Schemas(repository.schema_registry),
        )  # fmt: skip
    took = max(time.perf_counter() - began, 1e-9)
    moved = f", moved by {shift // 86_400_000_000} days" if shift else ""
    click.echo(f"{sent:,} events to {source.topic} in {took:.1f} s ({sent / took:,.0f}/s){moved}.")


def _source(sources: tuple[Source, ...], topic: str | None) -> Source:
    if topic is None and len(sources) > 1:
        raise click.UsageError(f"There are several topics: {', '.join(s.topic for s in sources)}. Say which.")
    return sources[0] if topic is None else source_of(sources, topic)
