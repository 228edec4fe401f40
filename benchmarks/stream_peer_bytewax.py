"""The stream benchmark's second peer: Bytewax with the nearest that it has to the shop's view, in memory.

Its windows are given when they close, which the end of its input does; so it reads the same beginning of each
partition in every run, and all of its values can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

from benchmarks.report import quiet
from benchmarks.stream_peer import HOUR_MS, Windows
from benchmarks.stream_runs import Clock, Mark, mark
from benchmarks.stream_servers import Servers
from benchmarks.stream_shop import PARTITIONS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
State = tuple[int, float, float]


def there() -> bool:
    """Whether it is installed: it has wheels for Python up to 3.12, and none for Linux on ARM."""
    return find_spec("bytewax") is not None


def run_bytewax(own: Servers, folder: str, topic: str, warm: int, count: int, kept: bool) -> tuple[Clock, Windows]:
    """Bytewax over the first `count` events of the topic, a quarter of each partition; with `kept`, its windows too."""
    quiet()
    import bytewax.operators as op
    import orjson
    from bytewax.dataflow import Dataflow
    from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
    from bytewax.testing import TestingSink, run_main

    marks: list[Mark] = []
    seen = 0

    def counted() -> None:
        nonlocal seen
        seen += 1
        if seen in (warm, count):
            marks.append(mark(seen))

    def line(message: Any) -> tuple[str, tuple[datetime, float]] | None:
        value = orjson.loads(message.value)
        if value["quantity"] <= 0:
            counted()
            return None
        moment = datetime.fromisoformat(value["invoice_ts"])
        return message.key.decode(), (moment, value["quantity"] * value["unit_price"])

    def fold(state: State, item: tuple[datetime, float]) -> State:
        counted()
        amount = item[1]
        return state[0] + 1, state[1] + amount, max(state[2], amount)

    def merge(a: State, b: State) -> State:
        return a[0] + b[0], a[1] + b[1], max(a[2], b[2])

    flow = Dataflow("peer")
    lines = op.filter_map("line", op.input("topic", flow, _source(own.kafka, topic, count // PARTITIONS)), line)
    clock = EventClock(ts_getter=lambda item: item[0], wait_for_system_duration=timedelta(hours=1))
    hourly = TumblingWindower(align_to=EPOCH, length=timedelta(hours=1))
    states = fold_window("hourly", lines, clock, hourly, lambda: (0, 0.0, -math.inf), fold, merge, ordered=False)
    closed: list[tuple[str, tuple[int, State]]] = []
    op.output("closed", states.down, TestingSink(closed))
    run_main(flow)
    assert len(marks) == 2, f"the peer saw {seen:,} events of {count:,}"
    return Clock.between(*marks), {place: value for place, value in map(_window, closed) if kept}


def _window(item: tuple[str, tuple[int, State]]) -> tuple[tuple[bytes, int], dict[str, Any]]:
    key, (hour, (count, total, most)) = item
    start = hour * HOUR_MS
    return (key.encode(), start), {"start": start, "count": count, "sum": total, "mean": total / count, "max": most}


def _source(bootstrap: str, topic: str, each: int) -> Any:
    """Its own Kafka source, which ends behind `each` events of every partition."""
    from bytewax.connectors.kafka import KafkaSource
    from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

    class Beginning(StatefulSourcePartition[Any, int]):
        def __init__(self, partition: Any) -> None:
            self.partition, self.left = partition, each

        def next_batch(self) -> Sequence[Any]:
            if not self.left:
                raise StopIteration
            # Each partition begins with a record that is nobody's.
            batch = [message for message in self.partition.next_batch() if message.offset > 0][: self.left]
            self.left -= len(batch)
            return batch

        def snapshot(self) -> int:
            return 0

        def close(self) -> None:
            self.partition.close()

    class Beginnings(FixedPartitionedSource[Any, int]):
        def __init__(self) -> None:
            self.source = KafkaSource([bootstrap], [topic], tail=False)

        def list_parts(self) -> list[str]:
            return self.source.list_parts()

        def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Beginning:
            return Beginning(self.source.build_part(step_id, for_part, None))

    return Beginnings()
