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
  headwater -C shop/features plan --json
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_data", is_flag=True, help='Print {"added": [...], "changed": [...], "removed": [...]}.')
@click.pass_obj
def command(context: Context, as_data: bool) -> None:
    """Show what `apply` would change: added, changed with old and new values, removed, and who uses it.

    Compares the repository's Python files with the registry. All that is wrong in the definitions is
    listed at once, with exit code 1.
    """
    from headwater.definitions.registry import registry_plan, repository_plan
    from headwater.plans.diff import as_json, differences

    repository = context.repository()
    changes = differences(registry_plan(repository), repository_plan(repository))
    if as_data:
        click.echo(msgspec.json.encode(as_json(changes)).decode())
    else:
        show(changes)


def show(changes: Sequence[Change]) -> None:
    """Print changes, coloured on a terminal."""
    from headwater.plans.diff import as_lines, summary

    if not changes:
        # Not on the standard output: where nothing changes, the diff is empty.
        click.echo("Nothing changes: the registry holds these definitions.", err=True)
        return
    for kind, line in as_lines(changes):
        click.echo(click.style(line, fg=COLOURS.get(kind)))
    click.echo(summary(changes))
