"""The command line. Each command is a file here with a click command called `command`.

Files are loaded only when their command runs, so `headwater --help` starts at once.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

import click

from headwater import __version__
from headwater.errors import HeadwaterError, Unreachable
from headwater.monitoring import logs
from headwater.repository import Repository, load_repository

COMMANDS = {
    "up": ("headwater.cli.up", "Start a broker and Redis for this repository on free loopback ports."),
    "down": ("headwater.cli.down", "Stop all that `up` and quickstart started."),
    "status": ("headwater.cli.status", "Addresses, and lag and freshness of every view."),
    "plan": ("headwater.cli.plan", "Show what `apply` would change."),
    "apply": ("headwater.cli.apply", "Validate the definitions, write the registry, publish the plan."),
    "test": ("headwater.cli.test", "Fuzz views: stream, backfill and history against a slow loop."),
    "produce": ("headwater.cli.produce", "Send the rows of a Parquet file to a topic as JSON events."),
    "stream": ("headwater.cli.stream", "Run a worker: events from Kafka become rows in Redis."),
    "sink": ("headwater.cli.sink", "Run the sink: events from Kafka are kept in the lake."),
    "backfill": ("headwater.cli.backfill", "Compute rows from the lake, up to known offsets."),
    "materialize": ("headwater.cli.materialize", "Compute BatchViews and publish a snapshot."),
    "history": ("headwater.cli.history", "Features at each row's time: a training set."),
    "get": ("headwater.cli.get", "Read features online."),
    "events": ("headwater.cli.events", "What the lake holds of a topic."),
    "dead-letters": ("headwater.cli.dead_letters", "Events that could not be taken, with their reasons."),
    "check": ("headwater.cli.check", "Prove value by value that the online store and the lake agree."),
    "repair": ("headwater.cli.repair", "Compute rows again from the lake, while workers run."),
    "serve": ("headwater.cli.serve", "Serve features over HTTP."),
    "catalog": ("headwater.cli.catalog", "Serve the catalog's pages and API."),
}

EPILOG = """\b
Examples:
  headwater up && headwater apply
  headwater -C shop get --features customer_spend --entity customer_id=17850
  headwater COMMAND --help

\b
Exit codes:
  0  done
  1  a wrong definition, a closed gate or a found defect
  2  wrong use
  3  a part that cannot be reached
"""


@dataclass
class Context:
    """What every command gets as `ctx.obj`: the repository's place, and the repository on demand."""

    start: str | None = None

    def repository(self) -> Repository:
        """The repository of `-C`, `.` or `./feature_repo` (UsageError where there is none)."""
        return load_repository(self.start)


class LazyGroup(click.Group):
    """Lists every command with its one line, and imports a command's file when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = " or ".join(repr(c) for c in difflib.get_close_matches(name, COMMANDS, n=2))
            ctx.fail(f"There is no command {name!r}." + (f" Did you mean {near}?" if near else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Click would write an empty line, which is no object of --log-format json.
            raise click.Abort from None
        except Unreachable as error:
            from headwater.cli.servers import what_ended

            hint = what_ended(ctx.obj)
            if hint:
                error.add_note(hint)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={
    "help_option_names": ["-h", "--help"], "max_content_width": 100,
})  # fmt: skip
@click.option("-C", "repo", metavar="REPO", help="The feature repository (default: . or ./feature_repo).")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="HEADWATER_LOG_FORMAT",
    show_envvar=True,
    help="How stderr's lines look; json: one object a line.",
)
@click.version_option(__version__, prog_name="headwater")
@click.pass_context
def cli(ctx: click.Context, repo: str | None, log_format: logs.Format) -> None:
    """One definition, one number, everywhere: a streaming feature store."""
    logs.choose(log_format)
    ctx.obj = Context(repo)


def main() -> None:
    """The command line: errors become one message and an exit code, never a traceback."""
    try:
        cli(prog_name="headwater", standalone_mode=False)
    except click.ClickException as error:
        if logs.chosen() == "json":
            logs.complain(error.format_message())
        else:
            error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        # On a terminal ^C stands at the line's beginning.
        logs.say("\nStopped." if sys.stderr.isatty() and logs.chosen() == "text" else "Stopped.")
        # An interrupt that went through the exec of a text (dataclasses are made so) is remembered, and Python would end
        # by the signal instead of with the code. The next text makes it forget.
        exec("")
        sys.exit(130)
    except HeadwaterError as error:
        logs.complain("\n".join([str(error), *getattr(error, "__notes__", [])]), exit_code=error.exit_code)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `headwater ... | head`: the reader has gone, and writing more would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        said, code = system_error(error)
        logs.complain(said)
        sys.exit(code)


_WRONG_PLACE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
"""What the system says of a file or folder that was named wrongly; all else (a full disk) is a part that is away."""


def system_error(error: OSError) -> tuple[str, int]:
    """What the system refused, and the file or folder where it did; the exit code of a process that it ends."""
    what = error.strerror or str(error) or type(error).__name__
    code = 2 if error.errno in _WRONG_PLACE else Unreachable.exit_code
    return f"{error.filename}: {what}." if error.filename else f"{what}.", code
