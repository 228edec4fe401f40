"""What the search found, in words: for a terminal, for JSON, and for a failing test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.durations import format_duration
from headwater.events.select import source_columns
from headwater.plans.plan import Source, StreamView
from headwater.testing.cases import Case, Record, payload, time_text
from headwater.testing.comparison import NAIVE, Difference
from headwater.testing.fuzzing import Failure, ViewResult

SHOWN = 12
"""Events and differences that are printed of a case; the JSON has all."""
WIDEST = 60
"""Characters of a value."""


def lines_of(result: ViewResult) -> list[str]:
    """One line where all paths agree; else the case and its differences."""
    counted = f"{result.cases:,} cases, {result.compared:,} values"
    if result.failure is None:
        return [f"✓ {result.view.name}: {counted} agree on every path"]
    return [f"✗ {result.view.name}: the paths disagree, found after {counted}", *failure_lines(result, result.failure)]


def failure_lines(result: ViewResult, failure: Failure) -> list[str]:
    """The events, how they came, the values that differ, and how to see it again."""
    case = failure.case
    records = f"{len(case.records)} event{'s' * (len(case.records) != 1)}"
    return [
        f"  {records}:",
        *_table(["partition", "offset", *_columns(result.view, result.source), ""], _event_rows(result, case)),
        *_deliveries(case),
        "  values that differ:",
        *_table(*_differences(result.view, failure.outcome.differences)),
        f"  again: headwater test {result.view.name} --seed {failure.seed}",
    ]


def as_json(results: Sequence[ViewResult], seconds: float, seed: int) -> dict[str, Any]:
    """The whole as plain data; values as they are printed, so that no number loses its type or digits."""
    return {"seconds": seconds, "seed": seed, "views": [_as_json(r) for r in results]}


def _as_json(result: ViewResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "view": result.view.name, "agree": result.failure is None, "cases": result.cases, "compared": result.compared,
    }  # fmt: skip
    if result.failure is not None:
        case = result.failure.case
        found["failure"] = {
            "seed": result.failure.seed,
            "events": [_record(r, result.source) for r in case.records],
            "deliveries": [
                {"worker": d.worker, "partition": d.partition, "count": d.count, "again": d.again, "forgets": d.forgets}
                for d in case.deliveries
            ],
            "reads": [time_text(at) for at in case.reads],
            "differences": [
                {"key": [_shown(k) for k in d.key], "at": None if d.at is None else time_text(d.at),
                 "feature": d.feature, "values": {path: _shown(v) for path, v in d.values.items()}}
                for d in result.failure.outcome.differences
            ],
        }  # fmt: skip
    return found


def _record(record: Record, source: Source) -> dict[str, Any]:
    raw = payload(record, source)
    return {
        "partition": record.partition, "offset": record.offset, "broker_time": time_text(record.broker_time),
        "value": None if raw is None else raw.decode(errors="replace"),
    }  # fmt: skip


def _columns(view: StreamView, source: Source) -> list[str]:
    wanted = source_columns(view) | {e.column for e in source.expectations} | {source.event_time}
    return [f.name for f in source.fields if f.name in wanted]


def _event_rows(result: ViewResult, case: Case) -> list[list[str]]:
    names, times = _columns(result.view, result.source), _times(result.source)
    rows = []
    for r in case.records:
        values = [_shown_time(r.values[n]) if n in times else _shown(r.values.get(n)) for n in names]
        ahead = r.values[result.source.event_time] - r.broker_time
        notes = [f"written {r.form}"] if r.form != "full" else []
        notes += [f"{format_duration(ahead)} ahead of the broker"] if ahead > 0 else []
        rows.append([str(r.partition), str(r.offset), *values, "; ".join(notes)])
    return rows if len(rows) <= SHOWN else [*rows[:SHOWN], [f"and {len(rows) - SHOWN} more"]]


def _times(source: Source) -> set[str]:
    return {f.name for f in source.fields if f.dtype == "timestamp"}


def _deliveries(case: Case) -> list[str]:
    lines = []
    for d in case.deliveries:
        again = f", and {d.again} before them once more" if d.again else ""
        forgets = ", having lost its rows in memory" if d.forgets else ""
        lines.append(f"    worker {d.worker} gets the next {d.count} of partition {d.partition}{again}{forgets}")
    return ["  they come so, and the rest to worker 0 at once:", *lines] if lines else []


def _differences(view: StreamView, differences: Sequence[Difference]) -> tuple[list[str], list[list[str]]]:
    paths = list(dict.fromkeys(p for d in differences for p in d.values))
    paths = [p for p in paths if p != NAIVE] + [p for p in paths if p == NAIVE]
    times = {f.name for f in view.features if f.dtype in ("timestamp", "list[timestamp]")}
    rows = []
    for d in differences[:SHOWN]:
        read_at = "" if d.at is None else time_text(d.at)
        show = _shown_time if d.feature in times else _shown
        values = [show(d.values[p]) if p in d.values else "" for p in paths]
        rows.append([d.feature, *map(_shown, d.key), read_at, *values])
    if len(differences) > SHOWN:
        rows.append([f"and {len(differences) - SHOWN} more"])
    return ["feature", *(k.name for k in view.keys), "read at", *paths], rows


def _table(head: list[str], rows: Sequence[list[str]]) -> list[str]:
    cells = [head, *([*row, *[""] * (len(head) - len(row))] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return ["    " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def _shown_time(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown_time, value))}]"
    return time_text(value) if isinstance(value, int) else _shown(value)


def _shown(value: Any) -> str:
    text = (
        "null" if value is None else value if isinstance(value, str) and value.startswith("an error") else repr(value)
    )
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
