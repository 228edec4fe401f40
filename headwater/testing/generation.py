"""Cases as a hypothesis strategy: what is drawn, and in which order, so that shrinking leaves little.

Everything shrinks towards one plain event in one batch. Draws are few, since each costs more than
running the product on what it brings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from headwater.events.select import refs
from headwater.plans.plan import Source, StreamView
from headwater.testing.cases import FORMS, Case, Delivery, Record
from headwater.testing.pools import BASES, LATE, Pools, Reach, pools_of, read_times

EVENTS = 16
"""Most events that are drawn one by one."""
TIMES = 4
"""Most event times of a case."""
BURSTS = (*(0,) * 27, 256, 257, 300)
"""Events that are added at one time, each with values of its own: what is exact only up to 256 values meets more."""
PARTITIONS = 3
NUMBERED: dict[str, Callable[[int], Any]] = {
    "int64": lambda i: i + 1, "float64": lambda i: i + 0.5, "string": "s{}".format, "bytes": b"%d".__mod__,
}  # fmt: skip
"""The value of a column in the i-th event of a burst."""
_FAR = 7_777_777_777_777
_T = TypeVar("_T")


def cases(view: StreamView, source: Source) -> st.SearchStrategy[Case]:
    """Cases of a view."""
    return _Drawn(pools_of(view, source), view, source).case()


def one(options: Sequence[_T]) -> st.SearchStrategy[_T]:
    """One of some things, all as likely; shrinks towards the first.

    Hypothesis mixes constants of the modules that are loaded into the numbers it draws, so that a seed would
    draw other cases in a test suite than on the command line. So far out it finds none.
    """
    return st.integers(_FAR, _FAR + len(options) - 1).map(lambda i: options[i - _FAR])


def any_of(strategies: Sequence[st.SearchStrategy[_T]]) -> st.SearchStrategy[_T]:
    """What one of some strategies gives."""
    return one(strategies).flatmap(lambda strategy: strategy)


class _Drawn:
    def __init__(self, pools: Pools, view: StreamView, source: Source) -> None:
        self._pools, self._source = pools, source
        dtypes = {f.name: f.dtype for f in source.fields}
        # Texts that `where` looks at stay as they are: a made-up one would hardly pass.
        fixed = {k.name for k in view.keys} | {n for n in refs(view.where) if dtypes.get(n) == "string"}
        varied = [f for f in source.fields if f.name in pools.plain and f.name not in fixed]
        self._numbered = {f.name: NUMBERED[f.dtype] for f in varied if f.dtype in NUMBERED}
        # The broker's time of an event: late by days, or just not, or just, past the tolerance in the future.
        self._lags = one((*(LATE,) * 9, 0, -source.tolerance, -source.tolerance - 1))

    def case(self) -> st.SearchStrategy[Case]:
        """A window and few times around it, so that events tie; events at them, how they come, when they are read."""
        plain = [(name, value) for name, values in self._pools.plain.items() for value in values]
        edges = [(name, value) for name, values in self._pools.edges.items() for value in values]
        around = [
            st.tuples(st.just(reach), st.lists(one(times), min_size=1, max_size=TIMES))
            for reach, times in self._pools.times.items()
        ]
        return st.builds(
            self._built,
            one(BASES),
            any_of(around),
            any_of([self._events(plain), self._events([*plain, *edges])]),
            st.lists(_deliveries(), max_size=8),
            st.lists(st.tuples(one(range(TIMES)), one(range(len(read_times(0, (1, 1)))))), min_size=1, max_size=5),
            one(BURSTS),
        )

    def _events(self, others: list[tuple[str, Any]]) -> st.SearchStrategy[list[Any]]:
        """Events that count, but for some of their columns' values, which are from `others`."""
        values = st.builds(
            lambda row, changes: row | dict(changes), one(self._pools.rows), st.lists(one(others), max_size=2)
        )
        form, copies = one((*FORMS[:1] * 10, *FORMS)), one((1, 1, 1, 2))
        event = st.tuples(one(range(PARTITIONS)), one(range(TIMES)), values, self._lags, form, copies)
        return st.lists(event, min_size=1, max_size=EVENTS)

    def _built(
        self, base: int, times: tuple[Reach, list[int]], events: list[Any], deliveries: list[Delivery],
        reads: list[Any], burst: int,
    ) -> Case:  # fmt: skip
        reach, at = times[0], [base + t for t in times[1]]
        ends = dict.fromkeys(range(PARTITIONS), 0)
        records = []
        for partition, number, values, lag, form, copies in [*events, *self._burst(events[0], burst)]:
            time = at[number % len(at)]
            for _ in range(copies):
                named = {**values, self._source.event_time: time}
                records.append(Record(partition, ends[partition], time + lag, named, form))
                ends[partition] += 1
        asked = dict.fromkeys(read_times(at[number % len(at)], reach)[kind] for number, kind in reads)
        return Case(tuple(records), tuple(deliveries), tuple(asked))

    def _burst(self, event: Any, length: int) -> list[Any]:
        """Events like one, each with values of its own in the columns that may have them."""
        partition, number, values, *_ = event
        return [
            (partition, number, {**values, **{name: make(i) for name, make in self._numbered.items()}}, LATE, "full", 1)
            for i in range(length)
        ]


def _deliveries() -> st.SearchStrategy[Delivery]:
    again, forgets = one((0, 0, 1, 3)), one((False, False, True))
    return st.builds(Delivery, one(range(2)), one(range(PARTITIONS)), one(range(1, 7)), again, forgets)
