"""One case on every path, and where they do not give the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.plans.plan import Source, StreamView
from headwater.testing.cases import Case, Key
from headwater.testing.naive_loop import NaiveLoop
from headwater.testing.paths import Answer, Paths, Question

NAIVE = "naive loop"
VALUES, ROWS = "values", "rows"
ROW = "(row)"
"""Stands for the bytes of a row, which are equal on every path too: else a check would find defects."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A feature that two paths disagree about. `at`: the time of the read, None for a row's bytes."""

    key: Key
    at: int | None
    feature: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many values were compared, and those that differ; rows' bytes only where all values agree."""

    compared: int
    differences: list[Difference]

    @property
    def kind(self) -> str:
        """What differs: VALUES, ROWS, or "" where nothing does."""
        return "" if not self.differences else ROWS if self.differences[0].feature == ROW else VALUES


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question to history and the naive loop, at `at`; online it is asked at `online` (None: it cannot be).

    A read of a row is moved behind the newest event in it, so an earlier one is answered like that.
    """

    key: Key
    at: int
    online: int | None


class Comparison:
    """Runs cases of one view."""

    def __init__(self, view: StreamView, source: Source) -> None:
        self.view, self.source = view, source
        self._paths = Paths(view, source)

    def run(self, case: Case) -> Outcome:
        """Every key of the case at every time of its reads, on every path."""
        naive = NaiveLoop(self.view, self.source, case.records)
        asked = list(dict.fromkeys(a for key in case.keys([k.name for k in self.view.keys])
                                   for at in case.reads for a in _asked(naive, key, at)))  # fmt: skip
        expected = [naive.answer(a.key, a.at) for a in asked]
        online = [(a.key, a.online) for a in asked if a.online is not None]
        answers = {NAIVE: expected, "history": self._answers(lambda q: self._paths.history(case, q), asked)}
        rows = {"stream": self._rows(self._paths.stream, case), "backfill": self._rows(self._paths.backfill, case)}
        reads = {"stream": self._paths.read_few, "backfill": self._paths.read_many}
        for name, found in rows.items():
            answers[name] = _spread(asked, self._read(reads[name], found, online))
        differences = [
            d for i, a in enumerate(asked) for d in self._of_question(a, {p: x[i] for p, x in answers.items()})
        ]
        return Outcome(len(asked) * len(self.view.features), differences or _of_rows(rows))

    def _rows(self, path: Callable[[Case], dict[Key, bytes]], case: Case) -> dict[Key, bytes] | str:
        try:
            return path(case)
        except Exception as error:  # the product may fail in any way, and each way is what is looked for here
            return _failed(error)

    def _read(
        self, read: Callable[[dict[Key, bytes], Sequence[Question]], list[Answer]],
        rows: dict[Key, bytes] | str, online: Sequence[Question],
    ) -> list[Answer]:  # fmt: skip
        if isinstance(rows, str):
            return [dict.fromkeys((f.name for f in self.view.features), rows) for _ in online]
        return self._safely(lambda questions: read(rows, questions), online)

    def _answers(self, path: Callable[[Sequence[Question]], list[Answer]], asked: Sequence[_Asked]) -> list[Answer]:
        return self._safely(path, [(a.key, a.at) for a in asked])

    def _safely(
        self, path: Callable[[Sequence[Question]], list[Answer]], questions: Sequence[Question]
    ) -> list[Answer]:
        try:
            return path(questions) if questions else []
        except Exception as error:  # as above
            return [dict.fromkeys((f.name for f in self.view.features), _failed(error)) for _ in questions]

    def _of_question(self, asked: _Asked, answers: dict[str, Answer]) -> list[Difference]:
        found = []
        for f in self.view.features:
            values = {path: answer[f.name] for path, answer in answers.items() if answer}
            # repr tells 1 from 1.0 and True, and 0.0 from -0.0, in lists too.
            if len({repr(v) for v in values.values()}) > 1:
                found.append(Difference(asked.key, asked.at, f.name, values))
        return found


def _asked(naive: NaiveLoop, key: Key, at: int) -> list[_Asked]:
    newest = naive.newest(key)
    if newest is None or newest < at:
        return [_Asked(key, at, at)]
    return [_Asked(key, at, None), _Asked(key, newest + 1, at)]


def _spread(asked: Sequence[_Asked], answers: Sequence[Answer]) -> list[Answer]:
    """The answers of questions that could be asked online, in the places of all; elsewhere nothing."""
    given = iter(answers)
    return [next(given) if a.online is not None else {} for a in asked]


def _of_rows(rows: dict[str, dict[Key, bytes] | str]) -> list[Difference]:
    known = {path: found for path, found in rows.items() if not isinstance(found, str)}
    keys = dict.fromkeys(key for found in known.values() for key in found)
    texts = {key: {path: _digest(found.get(key)) for path, found in known.items()} for key in keys}
    return [Difference(key, None, ROW, values) for key, values in texts.items() if len(set(values.values())) > 1]


def _digest(row: bytes | None) -> str:
    return "no row" if row is None else f"{len(row)} bytes, digest {row[:8].hex()}"


def _failed(error: Exception) -> str:
    return f"failed with {type(error).__name__}: {error}"
