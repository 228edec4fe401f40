"""`headwater dead-letters`: events that were not admitted, each once, with their reasons."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import Context
from headwater.cli.rooms import load
from headwater.cli.sources import published_sources

if TYPE_CHECKING:
    from headwater.plans.plan import Source
    from headwater.repository import Repository

EXAMPLES = """\b
Examples:
  headwater dead-letters
  headwater dead-letters list --json
"""


@click.group(
    "dead-letters",
    invoke_without_command=True,
    epilog=EXAMPLES,
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object an event.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Events that could not be taken (kind dead-letter) or failed an expectation (kind quarantine).

    Dead letters come from the topics TOPIC.dead-letters and from the lake, quarantined events from the lake;
    each (topic, partition, offset) is listed once.
    """
    if ctx.invoked_subcommand is None:
        _print(ctx.obj, as_json)


@command.command("list", epilog=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object an event.")
@click.pass_context
def list_command(ctx: click.Context, as_json: bool) -> None:
    """List all of them (what `dead-letters` alone does too)."""
    parent = ctx.parent.params.get("as_json") if ctx.parent else False
    _print(ctx.obj, as_json or bool(parent))


def _print(context: Context, as_json: bool) -> None:
    repository = context.repository()
    letters = collect(repository, published_sources(repository))
    if as_json:
        click.echo("[" + ",\n ".join(json.dumps(letter) for letter in letters) + "]")
        return
    for x in letters:
        raw = x["raw"] if x["raw"] is not None else (x["raw_base64"] or "(null)")
        click.echo(
            f"{x['topic']}[{x['partition']}]@{x['offset']}  {x['kind']}: {x['reason']}\n    {ascii(raw)[1:-1][:200]}"
        )
    click.echo(f"{len(letters):,} events were not admitted." if letters else "Every event was admitted.", err=True)


def collect(repository: Repository, sources: tuple[Source, ...]) -> list[dict[str, Any]]:
    """All rejected events of the sources as plain data, by topic, partition and offset."""
    room = load("pipelines.dead_letters")
    from headwater.events.admission import Rejected
    from headwater.lake import Lake

    letters = {x.place: x for x in room.read_dead_letters(repository.need_kafka(), [s.topic for s in sources])}
    lake = Lake(repository.lake)
    for source in sources:
        for row in lake.read_rejected(source).to_pylist():
            rejected = Rejected(-1, row["_partition"], row["_offset"], row["_kind"], row["_reason"], row["_raw"])
            letter = room.DeadLetter.of(source.topic, rejected)
            letters[letter.place] = letter
    return [room.as_json(letters[place]) for place in sorted(letters)]
