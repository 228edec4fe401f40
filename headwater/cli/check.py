"""`headwater check`: the proof, value by value."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import Context, monitoring
from headwater.cli.rooms import load
from headwater.errors import DefectsFound, UsageError

if TYPE_CHECKING:
    from headwater.monitoring.endpoint import MonitorAddress
    from headwater.receipts.results import Example, ViewCheck

SHOWN = 5
"""Examples of each cause that are printed for people; --json has more."""

EXAMPLES = """\b
Examples:
  headwater check
  headwater check customer_spend --sample 1000
  headwater check --receipts
  headwater check --json
  headwater check --every 5m --metrics-port 9110
"""


@click.command(
    "check",
    epilog=EXAMPLES,
)
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--sample", type=click.IntRange(1), help="Receipts to draw a view, at random (default: every row's).")
@click.option("--accept-gaps", is_flag=True, help="The offsets that the lake lost are known: name them no more.")
@click.option("--receipts", is_flag=True, help="Also replay the receipts that 'headwater serve --receipts' kept.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--every", metavar="TIME", help="Check again and again, so often (90s, 5m, 1h), until stopped.")
@monitoring.monitored(stalled_after=900)
@click.pass_obj
def command(
    context: Context, views: tuple[str, ...], sample: int | None, accept_gaps: bool, receipts: bool, as_json: bool,
    every: str | None, monitor: MonitorAddress | None,
) -> None:  # fmt: skip
    """Prove value by value that the online store and the lake agree.

    Receipts are replayed from the lake, exactly the events that their offsets name, to equal
    bytes; then every row is recomputed from all events of the lake that were due. Each difference
    has a cause, what was seen, and what to do. Workers and sinks may run meanwhile. Results are
    kept in the lake's table `checks`. Exit code 1 where a difference has no innocent cause, else 3 where a server
    is away, so that not everything could be compared.

    With --every it is a service: each run is one log line a view, and draws 1,000 receipts a view unless --sample
    says otherwise; differences end nothing, and are for --metrics-port.
    """
    if every is not None:
        _serve(context, views, every, sample, accept_gaps or as_json, receipts, monitor)
        return
    if monitor is not None:
        raise UsageError("--metrics-port needs --every: a check that ends has nobody to answer.")
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    repository = context.repository()
    check = load("validation.check_command")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=as_json or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("checking")
        run = check.run_check(
            repository, views, sample=sample, accept_gaps=accept_gaps, kept_receipts=receipts,
            progress=lambda view: bar.update(task, description=f"checking {view}"),
        )  # fmt: skip
    if as_json:
        import orjson

        click.echo(orjson.dumps({"views": [as_dict(r) for r in run.results]}).decode())
    else:
        click.echo(report(run.results), nl=False)
    if run.problem is not None:
        raise run.problem
    _raise_defects(run.results)
    if run.incomplete is not None:
        raise run.incomplete


def _serve(
    context: Context, views: tuple[str, ...], every: str, sample: int | None, once_only: bool, receipts: bool,
    monitor: MonitorAddress | None,
) -> None:  # fmt: skip
    from headwater.durations import SECOND, parse_duration

    if once_only:
        raise UsageError(
            "--accept-gaps and --json are for one check; with --every see the log lines and --metrics-port."
        )
    try:
        seconds = parse_duration(every) / SECOND
    except ValueError as error:
        raise UsageError(f"--every: {error}.") from error
    load("validation.check_service").run_service(
        context.repository(), views, seconds, sample=sample, receipts=receipts, monitor=monitor
    )


def as_dict(r: ViewCheck) -> dict[str, Any]:
    """A result in the shape of `--json`."""
    import msgspec

    return {
        "view": r.view,
        "receipts": {"drawn": r.drawn, "equal": r.drawn_equal},
        "kept_receipts": {"kept": r.kept, "equal": r.kept_equal},
        "recomputed": {"compared": r.compared, "equal": r.compared_equal},
        "differences": r.differences,
        "examples": msgspec.to_builtins(r.examples),
        "waiting": r.waiting,
        "notes": list(r.notes),
    }


def report(results: list[ViewCheck]) -> str:
    """For people: a line a view, and below it each difference with what was seen and what to do."""
    if not results:
        return "Nothing to check: the project has no view.\n"
    return "".join(line + "\n" for r in results for line in _lines(r))


def _lines(r: ViewCheck) -> list[str]:
    mark = click.style("✗", fg="red") if r.defects else click.style("✓", fg="green")
    out = [
        f"{mark} {r.view}: receipts {r.drawn_equal:,} of {r.drawn:,} equal, "
        f"rows {r.compared_equal:,} of {r.compared:,} equal"
    ]
    out += [f"    {note}" for note in r.notes]
    out += [f"    {cause}: {n:,}" for cause, n in sorted(r.differences.items())]
    seen: Counter[str] = Counter()
    for e in r.examples:
        seen[e.cause] += 1
        if seen[e.cause] <= SHOWN:
            out += _example(r.view, e)
    hidden = sum(n - min(SHOWN, n) for n in seen.values())
    return [*out, f"    … and {hidden} more examples with --json."] if hidden else out


def _example(view: str, e: Example) -> list[str]:
    parts = (("row", e.row), ("lake", e.log), ("values", e.values), ("do", e.action))
    head = f"    {view} {e.entity or e.key}: {click.style(e.cause, bold=True)}: {e.detail}"
    return [head, *(f"      {name + ':':<8}{text}" for name, text in parts if text)]


def _raise_defects(results: list[ViewCheck]) -> None:
    wrong = [r for r in results if r.defects]
    if wrong:
        total = sum(r.defects for r in wrong)
        counted = "1 difference has" if total == 1 else f"{total:,} differences have"
        raise DefectsFound(f"{counted} no innocent cause, in {', '.join(r.view for r in wrong)}.")
