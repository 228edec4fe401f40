"""Which events are taken, which are dead letters, which are quarantined: the same answer on every path.

Admission is a function of an event's bytes, its broker timestamp and the source's definition (stream.md, 4);
never of the clock, the batch or any state. The worker, the sink and the check all call it, and so agree.

A dead letter does not fit the schema, has no event time, or lies further in the future than the tolerance.
A quarantined event fits, and fails one of the source's expectations. What is ignored is no event of the source.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headwater.durations import DAY, HOUR, MINUTE, SECOND, format_duration
from headwater.events.batch import Events
from headwater.events.expectations import failing
from headwater.events.formats import decoder_of
from headwater.events.schemas import Schemas
from headwater.events.timestamps import format_timestamp
from headwater.plans.plan import Source

Kind = Literal["dead-letter", "quarantine", "ignored"]
DEAD_LETTER: Kind = "dead-letter"
QUARANTINE: Kind = "quarantine"
IGNORED: Kind = "ignored"


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that was not admitted. `index` is its place in the batch; `raw` is None for a null payload."""

    index: int
    partition: int
    offset: int
    kind: Kind
    reason: str
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A batch, divided. `index` says for each of `events` its place in the batch (int64[n], rising)."""

    events: Events
    index: NDArray[np.int64]
    rejected: list[Rejected]


class Admission:
    """Admits the events of one source. Its `schemas` are needed where the source is in Avro or Protobuf.

    `columns`: those of the source that are read later (None: all). What is admitted does not depend on it.
    """

    def __init__(self, source: Source, schemas: Schemas | None = None, columns: Collection[str] | None = None) -> None:
        self.source = source
        if columns is not None:
            columns = {*columns, *(e.column for e in source.expectations)}
        self._decoder = decoder_of(source, schemas, columns)

    def admit(
        self,
        values: Sequence[bytes | None],
        partition: NDArray[np.int64],
        offset: NDArray[np.int64],
        broker_time: NDArray[np.int64],
    ) -> Admitted:
        """Divide a batch of n records. Arrays are int64[n]; `broker_time` is in microseconds since the epoch."""
        decoded = self._decoder.decode(values)
        index, columns = decoded.index, decoded.columns
        reasons: dict[int, tuple[Kind, str]] = {i: (DEAD_LETTER, text) for i, text in decoded.failures.items()}
        reasons |= {i: (IGNORED, text) for i, text in decoded.ignored.items()}
        time = columns[self.source.event_time]
        for i, text in failing(self.source.expectations, columns).items():
            reasons[int(index[i])] = (QUARANTINE, text)
        late_clock = time.mask() & (time.values > broker_time[index] + self.source.tolerance)
        for i in np.flatnonzero(late_clock | ~time.mask()).tolist():
            reasons[int(index[i])] = (DEAD_LETTER, self._time_reason(i, time.mask(), time.values, broker_time[index]))
        events = Events(self.source.name, columns, partition[index], offset[index], time.values)
        if len(reasons) + len(index) > len(values):
            keep = np.array([i not in reasons for i in index.tolist()], np.bool_)
            index, events = index[keep], events.take(keep)
        rejected = [Rejected(i, int(partition[i]), int(offset[i]), *reasons[i], raw=values[i]) for i in sorted(reasons)]
        return Admitted(events, index, rejected)

    def _time_reason(
        self, row: int, given: NDArray[np.bool_], times: NDArray[np.int64], broker_time: NDArray[np.int64]
    ) -> str:
        if not given[row]:
            return f"{self.source.event_time}: the event time is missing"
        time, broker = int(times[row]), int(broker_time[row])
        return (
            f"{self.source.event_time}: event time {format_timestamp(time)} is {_about(time - broker)} ahead of the "
            f"broker's time {format_timestamp(broker)}, tolerance {format_duration(self.source.tolerance)}"
        )


def _about(micros: int) -> str:
    """A length of time in its greatest whole unit, such as "365d"."""
    unit = next((u for u in (DAY, HOUR, MINUTE) if micros >= u), SECOND)
    return format_duration(micros // unit * unit or micros)
