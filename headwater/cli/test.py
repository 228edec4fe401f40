"""`headwater test`: fuzz a repository's own views. Needs no server."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from headwater.cli import Context
from headwater.cli.rooms import load
from headwater.errors import DefectsFound

if TYPE_CHECKING:
    from headwater.testing.fuzzing import ViewResult

EPILOG = """\b
Examples:
  headwater test
  headwater test customer_spend --seconds 60
  headwater test customer_spend --seed 17 --json
"""


@click.command("test", epilog=EPILOG)
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, metavar="N",
              help="How long to search in all views together.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Where the search begins: the same seed draws the same cases.")  # fmt: skip
@click.option("--json", "as_data", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(context: Context, views: tuple[str, ...], seconds: float, seed: int, as_data: bool) -> None:
    """Fuzz views: do all paths give the number that a slow loop gives?

    Events are generated from the schema of each windowed view's source, and run in random cuts and orders
    through the stream path, the backfill and history, all in this process. Every feature is compared with a
    naive loop over all events. A case that fails is shrunk to the fewest events and printed. Exit code 1
    where one is found.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from headwater.definitions.registry import repository_plan

    repository = context.repository()
    # Hypothesis keeps a folder of its own, by default wherever the command was started.
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(repository.state / "hypothesis"))
    plan = repository_plan(repository)
    fuzzing, reporting = load("headwater.testing.fuzzing"), load("headwater.testing.reporting")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=as_data or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("testing")
        results: list[ViewResult] = fuzzing.fuzz(
            plan, views, seconds=seconds, seed=seed,
            progress=lambda view, cases: bar.update(task, description=f"testing {view}: {cases:,} cases"),
        )  # fmt: skip
    if as_data:
        import orjson

        click.echo(orjson.dumps(reporting.as_json(results, seconds, seed)).decode())
    elif not results:
        click.echo("Nothing to test: the repository has no windowed view.")
    else:
        click.echo("\n".join(line for r in results for line in reporting.lines_of(r)))
    wrong = [r.view.name for r in results if r.failure is not None]
    if wrong:
        raise DefectsFound(f"The paths disagree in {', '.join(wrong)}.")
