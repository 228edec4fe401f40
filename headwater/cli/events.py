"""`headwater events`: what the lake holds of a topic, as one Parquet file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import Context
from headwater.cli.sources import published_sources, source_of
from headwater.errors import MissingExtra

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.plans.plan import Source

EXAMPLES = """\b
Examples:
  headwater events orders -o orders.parquet
  headwater events orders -o rejected.parquet --dead-letters
"""


@click.command(
    "events",
    epilog=EXAMPLES,
)
@click.argument("topic")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.parquet",
              help="The file to write; it appears when it is whole.")  # fmt: skip
@click.option("--dead-letters", is_flag=True, help="The records that were not admitted, with kind, reason and bytes.")
@click.pass_obj
def command(context: Context, topic: str, output: Path, dead_letters: bool) -> None:
    """Write what the lake holds of TOPIC: the source's columns, _partition, _offset, _broker_time, _arrived_at.

    Rows are sorted by _partition and _offset. With --dead-letters: the records that were not admitted (dead
    letters, quarantined events, and what an envelope held that is no event), with _kind, _reason and _raw in place
    of the source's columns.
    """
    repository = context.repository()
    source = source_of(published_sources(repository), topic)
    rows = _rows(repository.lake, source, dead_letters)
    write_whole(rows, output)
    click.echo(f"{rows.num_rows:,} {'rejected records' if dead_letters else 'events'} of {source.topic} to {output}.")


def _rows(location: str, source: Source, dead_letters: bool) -> pa.Table:
    try:
        from headwater.lake import Lake
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "deltalake", "lake", "Reading the lake") from error
    lake = Lake(location)
    rows = lake.read_rejected(source) if dead_letters else lake.read_events(source)
    return rows.sort_by([("_partition", "ascending"), ("_offset", "ascending")])


def write_whole(rows: pa.Table, output: Path) -> None:
    """Write a Parquet file beside its place and move it there, so that nobody sees half of it."""
    import pyarrow.parquet as pq

    if not output.parent.is_dir():
        raise click.UsageError(f"There is no folder {output.parent}.")
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        pq.write_table(rows, part)
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)
