"""`headwater down`: stop what `up` and quickstart started for this repository."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from headwater.cli import Context

EXAMPLES = """\b
Examples:
  headwater down
  headwater -C shop down --erase
"""


@click.command(epilog=EXAMPLES)
@click.option("--erase", is_flag=True, help="Remove all local data too: the broker's log, Redis, lake and registry.")
@click.pass_obj
def command(context: Context, erase: bool) -> None:
    """Stop all that `up` and quickstart started for this repository. Data stays, unless --erase is given.

    Only processes that were started for this repository are ended, never others that took over their ids.
    """
    from headwater.embedded.servers import stop_servers

    repository = context.repository()
    ended = stop_servers(repository.root)
    click.echo(f"Stopped: {', '.join(ended)}." if ended else "Nothing was running.")
    if erase and repository.state.exists():
        shutil.rmtree(repository.state)
        click.echo(f"Erased {repository.state}.")
