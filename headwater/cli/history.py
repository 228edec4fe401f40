"""`headwater history`: a training set, the spine's rows and the features at each row's time."""

from __future__ import annotations

from pathlib import Path

import click

from headwater.cli import Context
from headwater.cli.asked import one_of_features_and_service
from headwater.cli.rooms import load

EXAMPLES = """\b
Examples:
  headwater history spine.parquet --features customer_spend -o training.parquet
  headwater history spine.parquet --features customer_spend:count_1h,product_demand -o training.parquet
  headwater history spine.parquet --service churn -o training.parquet
"""


@click.command("history", epilog=EXAMPLES)
@click.argument("spine", metavar="SPINE.parquet", type=click.Path(path_type=Path))
@click.option("--features", metavar="VIEW:FEATURE,…|VIEW,…", help="What to compute; a view alone: all its features.")
@click.option("--service", metavar="NAME", help="The features of a feature service.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.parquet",
              help="The file to write: SPINE's columns, then VIEW__FEATURE.")  # fmt: skip
@click.option("--engine", type=click.Choice(["local"]), default="local", show_default=True, help="What computes.")
@click.pass_obj
def command(
    context: Context, spine: Path, features: str | None, service: str | None, output: Path, engine: str
) -> None:
    """Compute features at each row's time, from the lake.

    SPINE holds the join keys and `event_timestamp` (without a zone: UTC), and optionally `known_by`, which
    restricts a row to what had arrived in the lake by then. OUT holds the spine's columns untouched, every
    row once and in order, then VIEW__FEATURE.
    """
    one_of_features_and_service(features, service)
    from rich.console import Console

    # On a terminal one line says what is being done; elsewhere nothing is written.
    with Console(stderr=True).status("starting") as status:
        rows = load("headwater.history.export").export(
            context.repository(), spine, features, service, output, status.update
        )
    click.echo(f"{rows:,} rows -> {output}")
