"""A reference program that lies outside this tree, asked a view's questions: what values are compared with, bit for bit.

    PROGRAM SPEC.json EVENTS.parquet QUESTIONS.parquet      prints one JSON object a question, in order

It is slow on purpose: each call reads every event once for every feature, and each question every event of its key
again, for every feature. A key's answer depends on that key's events alone, so it is asked about groups of keys, each
with the events of those keys and no others, on every core: the same answers, without all events in memory as often as
there are features.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from headwater.durations import format_duration
from headwater.expressions.sql import to_sql
from headwater.plans.plan import Source, StreamView

Spec = dict[str, Any]
Answer = dict[str, Any]


def spec_of(view: StreamView, source: Source) -> Spec:
    """The view as the reference reads it."""
    sql = lambda e: None if e is None else to_sql(e, "duckdb")  # noqa: E731
    features = [
        {"name": f.name, "function": f.function, "column": f.column, "scale": f.scale, "where": sql(f.where),
         "over": "all" if f.window is None else format_duration(f.window),
         "hop": None if f.hop is None else format_duration(f.hop), "n": f.n, "limit": f.limit, "q": f.q}
        for f in view.features
    ]  # fmt: skip
    return {
        "entity": [k.name for k in view.keys], "event_time": source.event_time, "where": sql(view.where),
        "derive": {d.name: sql(d.expr) for d in view.derive}, "features": features,
    }  # fmt: skip


class ReferenceProgram:
    """The program at a path; a call gets the events of so many keys that they are about `events_a_call`."""

    def __init__(self, program: str, events_a_call: int = 50_000) -> None:
        self.program, self.events_a_call = program, events_a_call

    def answers(self, spec: Spec, events: pl.DataFrame, asked: pl.DataFrame) -> list[Answer]:
        """An answer for each row of `asked`: the entity's columns and `at` (timestamp, UTC).

        Raises SystemExit with what the program said where it fails or leaves a question out.
        """
        keys = spec["entity"]
        groups = self._groups(events, asked, keys)
        placed = asked.with_row_index("_row").join(groups, on=keys)
        mine = events.join(groups, on=keys)
        answers: list[Answer | None] = [None] * len(asked)

        def ask(group: int) -> None:
            questions = placed.filter(pl.col("_group") == group)
            told = self._call(spec, mine.filter(pl.col("_group") == group), questions.select(*keys, "at"))
            for row, answer in zip(questions["_row"], told, strict=True):
                answers[row] = answer

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(ask, groups["_group"].unique().sort()))
        return [a for a in answers if a is not None]

    def compare(
        self, spec: Spec, events: pl.DataFrame, asked: pl.DataFrame, ours: Sequence[Mapping[str, Any]],
        say: Callable[[str], None],
    ) -> tuple[int, int]:  # fmt: skip
        """How many values of ours were compared with its answers, and how many differ; the first five are said."""
        values = different = 0
        for i, (theirs, mine) in enumerate(zip(self.answers(spec, events, asked), ours, strict=True)):
            for name, value in theirs.items():
                values += 1
                if not same(value, mine[name]):
                    different += 1
                    if different <= 5:
                        say(f"{asked.row(i)} {name}: reference {value!r}, ours {mine[name]!r}")
        return values, different

    def _groups(self, events: pl.DataFrame, asked: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
        """Each key that is asked for, and its `_group`."""
        counted = events.group_by(keys).len()
        known = asked.select(keys).unique().join(counted, on=keys, how="left").sort(keys)
        return known.select(*keys, _group=pl.col("len").fill_null(0).cum_sum() // self.events_a_call)

    def _call(self, spec: Spec, events: pl.DataFrame, asked: pl.DataFrame) -> list[Answer]:
        with tempfile.TemporaryDirectory(prefix="headwater-reference-") as folder:
            files = [Path(folder) / name for name in ("spec.json", "events.parquet", "questions.parquet")]
            files[0].write_text(json.dumps(spec))
            events.drop("_group").write_parquet(files[1])
            asked.write_parquet(files[2])
            done = subprocess.run([sys.executable, self.program, *map(str, files)], capture_output=True, text=True)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode or len(told) != len(asked):
            raise SystemExit(f"{self.program}: {len(told)} answers to {len(asked)} questions\n{done.stderr[-2000:]}")
        return told


def plain(value: Any) -> Any:
    """A value of a table or of a read as the reference writes it: counted values as pairs, times as microseconds."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [[pair["value"], pair["count"]] for pair in value]
    return value


def same(a: Any, b: Any) -> bool:
    """Bit for bit: an int is not a float, and 0.0 is not -0.0."""
    return type(a) is type(b) and repr(a) == repr(b)
