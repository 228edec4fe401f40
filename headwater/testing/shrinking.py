"""A failing case made smaller piece by piece, after hypothesis has shrunk what it was drawn from.

Hypothesis shrinks draws; here the case that was built of them is cut: a piece goes where the case fails
without it, and a value becomes the plainest of its column where the case fails with that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from headwater.testing.cases import Case, Record

Fails = Callable[[Case], bool]
Plainer = Callable[[Record], Iterable[Record]]
"""The records that say less than one and could stand for it."""


def cut(case: Case, plainer: Plainer, fails: Fails) -> Case:
    """The case with all that can be left out, left out, and all that can be plain, plain.

    `fails` says whether a case fails in the same way; where it says no to everything, the case stays.
    """
    while smaller := next((c for c in _smaller(case, plainer) if fails(c)), None):
        case = smaller
    return case


def plainer_by(plainest: Mapping[str, Any], event_time: str, late: int) -> Plainer:
    """Records as most are: written in full, `late` microseconds before the broker's time, one value the plainest."""

    def plainer(record: Record) -> Iterator[Record]:
        yield replace(record, form="full")
        yield replace(record, broker_time=record.values[event_time] + late)
        for name, value in plainest.items():
            # NaN is not equal to itself, and so would be replaced for ever.
            if repr(record.values.get(name)) != repr(value):
                yield replace(record, values={**record.values, name: value})

    return plainer


def _smaller(case: Case, plainer: Plainer) -> Iterator[Case]:
    for records in _without(case.records):
        if records:
            yield replace(case, records=records)
    for deliveries in _without(case.deliveries):
        yield replace(case, deliveries=deliveries)
    for reads in _without(case.reads):
        if reads:
            yield replace(case, reads=reads)
    for records in _each(case.records, plainer):
        yield replace(case, records=records)
    for deliveries in _each(case.deliveries, lambda d: (replace(d, again=0), replace(d, forgets=False))):
        yield replace(case, deliveries=deliveries)


def _without(pieces: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The pieces without a half of them, a quarter, and so on down to one."""
    size = -(-len(pieces) // 2)
    while size:
        for i in range(0, len(pieces), size):
            yield pieces[:i] + pieces[i + size :]
        size //= 2


def _each(pieces: tuple[Any, ...], simpler: Callable[[Any], Iterable[Any]]) -> Iterator[tuple[Any, ...]]:
    """The pieces with one of them replaced by a simpler one."""
    for i, piece in enumerate(pieces):
        for other in simpler(piece):
            if other != piece:
                yield (*pieces[:i], other, *pieces[i + 1 :])
