"""`headwater up`: a broker and Redis for this repository."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from headwater.cli import Context
    from headwater.repository import Repository

EXAMPLES = """\b
Examples:
  headwater up
  headwater -C shop up --json
  headwater up --broker mock
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--broker",
    type=click.Choice(["kafka", "mock"]),
    help="kafka (the default) is Apache Kafka and needs Java; mock needs nothing and forgets everything.",
)
@click.option("--json", "as_json", is_flag=True, help="Print addresses, and every view's lag and freshness, as JSON.")
@click.pass_obj
def command(context: Context, broker: str | None, as_json: bool) -> None:
    """Start a broker and Redis for this repository on free loopback ports.

    What runs already is left alone, and what died comes back on its port with its data, so `up` may be
    repeated. A server whose address feature_store.yaml gives is not started. They run until `headwater down`.
    """
    from headwater.embedded.mock_broker import LIMITS
    from headwater.embedded.servers import start_servers

    given = context.repository()
    record = start_servers(
        given.root,
        broker=broker,
        with_broker=not _kafka_is_given(given),
        with_redis=not _redis_is_given(given),
    )
    repository = context.repository()
    if record.broker == "mock" and record.bootstrap_servers:
        click.echo(LIMITS, err=True)
    if as_json:
        click.echo(json.dumps(account(repository)))
        return
    click.echo(f"Kafka   {repository.kafka.get('bootstrap.servers')}")
    click.echo(f"Redis   {repository.redis_url}")
    click.echo(f"Lake    {repository.lake}")


def _kafka_is_given(repository: Repository) -> bool:
    return bool((repository.settings.get("kafka") or {}).get("bootstrap.servers"))


def _redis_is_given(repository: Repository) -> bool:
    from headwater.repository import read_servers

    return repository.redis_url is not None and repository.redis_url != read_servers(repository.root).get("redis_url")


def account(repository: Repository) -> dict[str, object]:
    """What `up --json` prints: addresses, the lake, and every published view's lag and freshness."""
    from headwater.online.status import view_statuses

    return {
        "bootstrap_servers": repository.kafka.get("bootstrap.servers"),
        "redis_url": repository.redis_url,
        "lake": repository.lake,
        "views": [
            {"view": status.view, "hash": status.hash, "lag": status.lag, "freshness_ms": status.freshness_ms}
            for status in view_statuses(repository)
        ],
    }
