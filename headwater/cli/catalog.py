"""`headwater catalog`: finds features in a browser, with their evidence. The pages are in marketplace/."""

from __future__ import annotations

import click

from headwater.cli import Context
from headwater.cli.rooms import load

EXAMPLES = """\b
Examples:
  headwater catalog
  headwater -C shop catalog --port 8080
"""


@click.command(epilog=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8600, show_default=True, type=click.IntRange(0, 65535), help="The port; 0: a free one.")
@click.pass_obj
def command(context: Context, host: str, port: int) -> None:
    """Serve the catalog's pages and API until Ctrl-C.

    Shows every view with its owner, schema, windows, freshness and the last result of `headwater check`,
    and how to train on it and how to serve it. Where Redis or Kafka is away, the pages say what is unknown.
    """
    repository = context.repository()
    app = load("marketplace.app").repository_app(str(repository.root))
    server = load("headwater.serving.foreground")
    listening = load("headwater.serving.listening")
    listener = listening.listen(host, port)
    click.echo(f"Catalog of project {repository.project}: {listening.address_of(listener)}/  (Ctrl-C stops it)")
    server.run_until_stopped(app, listener, server_header=False, ws="none")
