"""`headwater serve`: features over HTTP, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli.rooms import load

if TYPE_CHECKING:
    from headwater.cli import Context

EXAMPLES = """\b
Examples:
  headwater serve
  headwater serve --host 0.0.0.0 --port 8080 --receipts 0.01
  curl -s localhost:6566/get-online-features -d '{"features": ["customer_spend:count_1h"], "entities": {"customer_id": [17850]}}'
"""


@click.command("serve", epilog=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=6566, show_default=True, type=click.IntRange(0, 65535), help="The port; 0: a free one.")
@click.option("--receipts", default=0.0, metavar="SHARE", type=click.FloatRange(0, 1),
              help="Keep the receipts of this share of all keys, for 'headwater check --receipts'.")  # fmt: skip
@click.pass_obj
def command(context: Context, host: str, port: int, receipts: float) -> None:
    """Serve features over HTTP until stopped.

    POST /get-online-features is Feast's API, so Feast's clients work against it; POST /v1/features is the
    compact one. GET /health and GET /ready are for whoever watches it. Needs Redis and the published plan
    alone; a new plan is taken up without a restart.
    """
    repository = context.repository()
    kept = (repository.state / "receipts", receipts)
    load("headwater.serving.server").serve(repository.need_redis(), repository.project, host, port, click.echo, kept)
