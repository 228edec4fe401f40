"""`headwater check`: the proof, value by value."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import Context
from headwater.cli.rooms import load
from headwater.errors import DefectsFound

if TYPE_CHECKING:
    from headwater.receipts.results import ViewCheck


@click.command(
    "check",
    epilog="Examples:  headwater check    headwater check customer_spend --sample 1000    headwater check --json",
)
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--sample", type=click.IntRange(1), help="Receipts to draw a view, at random (default: every row's).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(context: Context, views: tuple[str, ...], sample: int | None, as_json: bool) -> None:
    """Prove value by value that the online store and the lake agree.

    Receipts are replayed from the lake, exactly the events that their offsets name, to equal
    bytes; then every row is recomputed from all events of the lake. Each difference has a cause.
    Exit code 1 where one of them is a defect.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    repository = context.repository()
    check = load("validation.check_command")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=as_json or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("checking")
        results: list[ViewCheck] = check.run_check(
            repository, views, sample=sample, progress=lambda view: bar.update(task, description=f"checking {view}")
        )
    if as_json:
        import orjson

        click.echo(orjson.dumps({"views": [_as_json(r) for r in results]}).decode())
    else:
        _print(results)
    defects = sum(r.defects for r in results)
    if defects:
        names = ", ".join(r.view for r in results if r.defects)
        raise DefectsFound(f"{defects:,} rows differ without an innocent cause, in {names}.")


def _as_json(r: ViewCheck) -> dict[str, Any]:
    return {
        "view": r.view,
        "receipts": {"drawn": r.drawn, "equal": r.drawn_equal},
        "recomputed": {"compared": r.compared, "equal": r.compared_equal},
        "differences": r.differences,
        "examples": [{"key": e.key, "cause": e.cause, "detail": e.detail} for e in r.examples],
    }


def _print(results: list[ViewCheck]) -> None:
    if not results:
        click.echo("Nothing to check: no view is active yet.")
    for r in results:
        mark = click.style("✗", fg="red") if r.defects else click.style("✓", fg="green")
        click.echo(
            f"{mark} {r.view}: receipts {r.drawn_equal:,} of {r.drawn:,} equal, "
            f"rows {r.compared_equal:,} of {r.compared:,} equal"
        )
        for cause, n in sorted(r.differences.items()):
            click.echo(f"    {cause}: {n:,}")
        for e in r.examples:
            click.echo(f"      {r.view} {e.key}: {e.cause}: {e.detail}")
