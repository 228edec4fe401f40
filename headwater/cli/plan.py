"""`headwater plan`: what `headwater apply` would change. Changes nothing, and needs no server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from headwater.cli import Context

if TYPE_CHECKING:
    from headwater.plans.diff import Change

COLOURS = {"added": "green", "changed": "yellow", "removed": "red"}

EPILOG = """\b
Examples:
  headwater plan
  headwater plan --full
  headwater -C shop/features plan --json
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_data", is_flag=True, help='Print {"added": [...], "changed": [...], "removed": [...]}.')
@click.option("--full", is_flag=True, help="Show all that added objects say, not only what they are.")
@click.pass_obj
def command(context: Context, as_data: bool, full: bool) -> None:
    """Show what `apply` would change: added, changed with old and new values, removed, and who uses it.

    Compares the repository's Python files with the registry. All that is wrong in the definitions is
    listed at once, with exit code 1.
    """
    repository = context.repository()
    from headwater.definitions.registry import registry_plan, repository_plan
    from headwater.plans.diff import as_json, differences

    changes = differences(registry_plan(repository), repository_plan(repository))
    if as_data:
        click.echo(msgspec.json.encode(as_json(changes)).decode())
    else:
        show(repository.project, changes, full=full)


def show(project: str, changes: Sequence[Change], *, full: bool = False) -> None:
    """Print changes, coloured on a terminal; the sum of them first."""
    from headwater.plans.announcement import as_lines, summary

    if not changes:
        # Not on the standard output: where nothing changes, the diff is empty.
        click.echo("Nothing changes: the registry holds these definitions.", err=True)
        return
    click.echo(f"Project {project}: {summary(changes)}")
    for kind, line in as_lines(changes, full=full):
        click.echo(click.style(line, fg=COLOURS.get(kind)))
