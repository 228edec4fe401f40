"""`headwater dead-letters`: events that were not admitted, each once, with their reasons; shown, and replayed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import Context
from headwater.cli.rooms import load
from headwater.cli.sources import published_sources
from headwater.errors import UsageError, nearest

if TYPE_CHECKING:
    from headwater.plans.plan import Source

EXAMPLES = """\b
Examples:
  headwater dead-letters
  headwater dead-letters list --reason "expected a value" --json
  headwater dead-letters show orders/0/17
  headwater dead-letters replay --dry-run
"""


def chosen(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which letters are chosen; the command gets `choose`, which makes a `Wanted` of the sources."""

    @wraps(command)
    def with_choice(
        *args: Any, topic: str | None, kind: str | None, reason: str | None, place: tuple[str, ...], **kwargs: Any
    ) -> None:
        def choose(sources: tuple[Source, ...]) -> Any:
            return _wanted(sources, topic, kind, reason, place)

        command(*args, choose=choose, **kwargs)

    options = (
        click.option("--topic", help="Only of this topic."),
        click.option("--kind", type=click.Choice(["dead-letter", "quarantine"]), help="Only of this kind."),
        click.option("--reason", metavar="TEXT", help="Only with this text in the reason."),
        click.option("--place", multiple=True, metavar="PLACE",
                     help="Only this one: PARTITION/OFFSET or TOPIC/PARTITION/OFFSET; may be repeated."),
    )  # fmt: skip
    found: Callable[..., None] = with_choice
    for option in reversed(options):
        found = option(found)
    return found


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
        _print(ctx.obj, as_json, lambda sources: None)


@command.command("list", epilog=EXAMPLES)
@chosen
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object an event.")
@click.pass_context
def list_command(ctx: click.Context, as_json: bool, choose: Callable[..., Any]) -> None:
    """List them (all of them: what `dead-letters` alone does too), and where each was replayed."""
    parent = ctx.parent.params.get("as_json") if ctx.parent else False
    _print(ctx.obj, as_json or bool(parent), choose)


@command.command("show", epilog=EXAMPLES)
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@click.pass_obj
def show_command(context: Context, places: tuple[str, ...]) -> None:
    """Print events whole: place, reason, times, and the bytes, as text or in hexadecimal."""
    repository = context.repository()
    sources = published_sources(repository)
    room = load("pipelines.letters")
    wanted = _wanted(sources, None, None, None, places)
    letters = room.read_letters(repository, sources, wanted)
    missing = set(wanted.places) - {x.letter.place for x in letters}
    if missing:
        named = ", ".join("/".join(map(str, place)) for place in sorted(missing))
        raise UsageError(f"No dead letter or quarantined event at {named}. See 'headwater dead-letters list'.")
    for x in letters:
        about = x.as_json()
        again = about["replayed_as"]
        click.echo(f"place        {_place(about)}\nkind         {about['kind']}\nreason       {about['reason']}")
        if (key := about["key"] if about["key"] is not None else about["key_base64"]) is not None:
            click.echo(f"key          {ascii(key)[1:-1]}")
        click.echo(f"broker time  {about['broker_time'] or 'unknown until the sink has kept it'}")
        click.echo(f"replayed     {'no' if again is None else 'as ' + _place(about | again)}")
        click.echo(f"bytes        {len(x.raw) if x.raw is not None else 'of the dead letter'}\n{room.shown_bytes(x)}\n")


@command.command("replay", epilog=EXAMPLES)
@chosen
@click.option("--dry-run", is_flag=True, help="Say which would be admitted now, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object an event.")
@click.pass_obj
def replay_command(context: Context, choose: Callable[..., Any], dry_run: bool, as_json: bool) -> None:
    """Send the events that fit by now into their topics again, each at most once, however often this is run.

    For after a fix: of a source's expectations, tolerance or schema (then 'headwater apply' and the backfills that it
    names come first), or of the schema registry. An event is sent where the published plan admits it, by the broker's
    time that it had; it goes the same way as any event, at a new offset. Event and record of the replay are one Kafka
    transaction, so a kill at any moment, a second run or two runs at once count nothing twice.
    """
    repository = context.repository()
    wanted = choose(published_sources(repository))
    outcomes = load("pipelines.replay_command").replay(repository, wanted, dry_run=dry_run)
    if as_json:
        said = [o.letter.as_json() | {"sent": o.sent, "fits": o.left is None, "left": o.left} for o in outcomes]
        click.echo("[" + ",\n ".join(json.dumps(one) for one in said) + "]")
        return
    for o in outcomes:
        about = o.letter.as_json()
        would = "fits now" if dry_run else f"replayed as {_place(about | (about['replayed_as'] or {}))}"
        click.echo(f"{_place(about)}  {'left: ' + o.left if o.left is not None else would}")
    fit = sum(o.left is None for o in outcomes)
    click.echo(f"{fit:,} {'would be' if dry_run else 'were'} replayed, {len(outcomes) - fit:,} left.", err=True)


def _wanted(
    sources: tuple[Source, ...], topic: str | None, kind: str | None, reason: str | None, places: tuple[str, ...]
) -> Any:
    room = load("pipelines.letters")
    topics = sorted({s.topic for s in sources})
    if topic is not None and topic not in topics:
        raise UsageError(f"No source has the topic {topic!r}. {nearest(topic, topics)}")
    among = topics if topic is None else [topic]
    return room.Wanted(topic, kind, reason, tuple(room.parse_place(text, among) for text in places))


def _place(x: dict[str, Any]) -> str:
    return f"{x['topic']}[{x['partition']}]@{x['offset']}"


def _print(context: Context, as_json: bool, choose: Callable[..., Any]) -> None:
    repository = context.repository()
    sources = published_sources(repository)
    letters = [x.as_json() for x in load("pipelines.letters").read_letters(repository, sources, choose(sources))]
    if as_json:
        click.echo("[" + ",\n ".join(json.dumps(letter) for letter in letters) + "]")
        return
    for x in letters:
        raw = x["raw"] if x["raw"] is not None else (x["raw_base64"] or "(null)")
        again = "" if x["replayed_as"] is None else f" (replayed as {_place(x | x['replayed_as'])})"
        click.echo(f"{_place(x)}  {x['kind']}: {x['reason']}{again}\n    {ascii(raw)[1:-1][:200]}")
    counts = Counter(x["replayed_as"] is not None for x in letters)
    again = f", {counts[True]:,} of them replayed since" if counts[True] else ""
    click.echo(
        f"{len(letters):,} events were not admitted{again}." if letters else "Every event was admitted.", err=True
    )
