"""What quickstart tells at its end: the numbers it measured, the values it read, and what to do next."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.freshness import Freshness


@dataclass
class Account:
    """What the steps found out."""

    root: Path
    events: int = 0
    events_a_second: float = 0.0
    freshness: Freshness = field(default_factory=Freshness)
    checks: list[dict[str, Any]] = field(default_factory=list)
    training: Path = Path()
    online: dict[str, Any] = field(default_factory=dict)
    online_command: list[str] = field(default_factory=list)
    service: str = ""
    asked: dict[str, int] = field(default_factory=dict)
    server: str = ""
    catalog: str = ""


def print_account(account: Account, seconds: float) -> None:
    """The last page."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n[bold]Done in {seconds:.0f} s.[/bold]\n")
    for name, text in _numbers(account):
        console.print(f"  {name:<12} {text}")
    console.print(f"\n[bold]A training set[/bold]  {_short(account.training)}")
    console.print(_head(account.training), markup=False)
    console.print(f"\n[bold]The same features, online[/bold]  headwater {' '.join(account.online_command)}")
    _print_online(console, account.online)
    _print_next(console, account)


def _numbers(account: Account) -> list[tuple[str, str]]:
    fresh = account.freshness
    told = f"p50 {fresh.percentile(50):.0f} ms, p99 {fresh.percentile(99):.0f} ms"
    lines = [
        ("events", f"{account.events:,} from Kafka, {account.events_a_second:,.0f} a second by one worker"),
        (
            "freshness",
            f"{told} from the broker to a reader of Redis ({len(fresh.milliseconds)} events)",
        ),
    ]
    if fresh.missed:
        lines.append(("", f"{fresh.missed} events were not seen in time"))
    return lines + [("check", _check_line(view)) for view in account.checks]


def _check_line(view: dict[str, Any]) -> str:
    receipts, recomputed = view["receipts"], view["recomputed"]
    text = (
        f"{view['view']}: {recomputed['equal']:,} of {recomputed['compared']:,} rows compared are equal, "
        f"{receipts['equal']:,} of {receipts['drawn']:,} receipts replay to the same bytes"
    )
    causes = ", ".join(f"{count} {cause}" for cause, count in view.get("differences", {}).items())
    return f"{text} ({causes})" if causes else text


def _head(path: Path, rows: int = 5, columns: int = 8) -> str:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    names = table.column_names[:columns]
    # Rows without nulls say more; who bought for the first time is in no earlier snapshot.
    some = table.select(names).drop_null()
    some = some if some.num_rows >= rows else table.select(names)
    cells = [[_cell(row[name]) for name in names] for row in some.slice(0, rows).to_pylist()]
    shown = _aligned([[name.split("__")[-1] for name in names], *cells])
    return f"{shown}\n  ... {table.num_rows:,} rows and {len(table.column_names)} columns"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join("  " + "  ".join(map(str.rjust, line, widths)) for line in lines)


def _print_online(console: Console, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if not name.startswith("_"):
            console.print(f"  {name:<48} {_cell(value)}")
    for view, receipt in (row.get("_receipts") or {}).items():
        console.print(f"  receipt of {view}: {json.dumps(receipt)}", markup=False)


def _print_next(console: Console, account: Account) -> None:
    here = f"headwater -C {_short(account.root)}"
    console.print(f"\n[bold]The catalog[/bold]   {account.catalog}")
    console.print(f"[bold]The server[/bold]    {account.server}")
    console.print("\n[bold]Next[/bold] (first: source .venv/bin/activate)")
    for line, why in (
        (account.catalog, "find a feature in the browser, with its evidence"),
        (f"{here} status", "lag and freshness of every view"),
        (f"{here} check", "prove again that the online store and the lake agree"),
        (f"{_short(account.root)}/definitions.py", "change a feature, then:"),
        (f"{here} plan", "what an apply would change"),
        (f"{here} down", "stop everything; the data stays (make down does it too)"),
    ):
        console.print(f"  {line:<48} {why}")
    question = json.dumps({"feature_service": account.service, "entities": {k: [v] for k, v in account.asked.items()}})
    console.print(f"  curl -s {account.server}/get-online-features -d '{question}'", markup=False)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value)


def _short(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
