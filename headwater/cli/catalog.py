"""`headwater catalog`: finds features in a browser, with their evidence. The pages are in marketplace/."""

from __future__ import annotations

import socket

import click

from headwater.cli import Context
from headwater.cli.rooms import load
from headwater.errors import UsageError


@click.command(epilog="Examples: headwater catalog; headwater -C feature_repo catalog --port 8080")
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
    uvicorn = load("uvicorn")
    listener = _listen(host, port)
    click.echo(f"Catalog of project {repository.project}: {_url(listener)}  (Ctrl-C stops it)")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none")
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError where the address cannot be listened on."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise UsageError(
            f"The catalog cannot listen on {host}:{port}: {error.strerror or error}. "
            f"Choose another port with --port (0 takes a free one)."
        ) from error


def _url(listener: socket.socket) -> str:
    """The address to open: of all interfaces, the loopback one."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}/"
