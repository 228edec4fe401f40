"""Kafka as a source of Spark Structured Streaming, in Python, for where Spark's own connector is not on the class path.

It takes the options of Spark's connector that we use (`startingOffsets`, `maxOffsetsPerTrigger`,
`kafka.` settings, which here are librdkafka's) and gives columns of the same names, so that nothing else needs to know
which of the two reads. A file of its own because Spark's Python workers import it, and nothing of the driver.

Only the partitions named in `startingOffsets` are read, committed records alone. A long range of a partition is
cut into several tasks, so a backlog is read by more executors than the topic has partitions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadLimit, ReadMaxRows

from headwater.errors import KafkaUnreachable
from pipelines.consumers import fault_of
from pipelines.micro_batches import failure_of, passes

FORMAT = "headwater_kafka"
SCHEMA = "value binary, partition int, offset bigint, timestamp timestamp"
RECORDS_A_TASK = 100_000
BLOCK = 10_000
PATIENCE = 30.0
"""Seconds without a record after which a range that has records counts as unreachable."""
_PAUSE = 0.05

Offsets = dict[str, dict[str, int]]
"""Topic -> partition (as text, since Spark keeps offsets as JSON) -> next offset."""


@dataclass
class Range(InputPartition):  # type: ignore[misc]
    """Offsets of one partition that one task reads: from `start` to before `end`."""

    topic: str
    partition: int
    start: int
    end: int


class KafkaSource(DataSource):  # type: ignore[misc]
    """The source as Spark registers it."""

    @classmethod
    def name(cls) -> str:
        return FORMAT

    def schema(self) -> str:
        return SCHEMA

    def streamReader(self, schema: Any) -> KafkaReader:
        return KafkaReader(self.options)


class KafkaReader(DataSourceStreamReader):  # type: ignore[misc]
    """Plans micro-batches on the driver and reads them in tasks."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._kafka = {k.removeprefix("kafka."): v for k, v in options.items() if k.startswith("kafka.")}
        self._starts: Offsets = json.loads(options["startingOffsets"])
        self._most = int(options["maxOffsetsPerTrigger"])
        self._admin: Any = None

    def initialOffset(self) -> Offsets:
        return self._starts

    def getDefaultReadLimit(self) -> ReadLimit:
        return ReadMaxRows(self._most)

    def latestOffset(self, start: Offsets, limit: ReadLimit) -> Offsets:
        """Where the next micro-batch ends; `start` itself where nothing new is there."""
        ends = self._ends(start)
        if ends == start:
            # Spark asks a hundred times a second.
            time.sleep(_PAUSE)
        return limited(start, ends, limit.max_rows) if isinstance(limit, ReadMaxRows) else ends

    def partitions(self, start: Offsets, end: Offsets) -> list[Range]:
        """The tasks of a micro-batch."""
        return [
            Range(topic, int(p), first, min(first + RECORDS_A_TASK, last))
            for topic, ends in end.items()
            for p, last in ends.items()
            for first in range(start[topic][p], last, RECORDS_A_TASK)
        ]

    def read(self, partition: Range) -> Iterator[Any]:
        """The committed records of a range, as Arrow batches.

        Raises:
            BeforeLogStart: retention has taken the range's start.
            TopicChanged: the topic is gone.
            KafkaUnreachable: the broker gives no records.
        """
        consumer = Consumer(
            {
                "queued.min.messages": RECORDS_A_TASK, "max.partition.fetch.bytes": 8 << 20, "fetch.wait.max.ms": 5,
                "group.id": "headwater-spark", **self._kafka, "enable.auto.commit": False,
                "auto.offset.reset": "error", "isolation.level": "read_committed", "enable.partition.eof": True,
                "log_level": 0,
            }
        )  # fmt: skip
        try:
            consumer.assign([TopicPartition(partition.topic, partition.partition, partition.start)])
            yield from _batches(consumer, partition)
        finally:
            consumer.close()

    def _ends(self, start: Offsets) -> Offsets:
        """The ends of committed records now, never before `start`."""
        if self._admin is None:
            self._admin = AdminClient({**self._kafka, "log_level": 0})
        places = [TopicPartition(topic, int(p)) for topic, of in start.items() for p in of]
        asked = self._admin.list_offsets(
            dict.fromkeys(places, OffsetSpec.latest()),
            isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=PATIENCE,
        )  # fmt: skip
        ends: Offsets = {topic: dict(of) for topic, of in start.items()}
        try:
            for place, future in asked.items():
                now = ends[place.topic]
                now[str(place.partition)] = max(now[str(place.partition)], future.result().offset)
        except KafkaException as error:
            raise KafkaUnreachable(f"Kafka did not answer: {error.args[0].str()}.") from error
        return ends


def limited(start: Offsets, ends: Offsets, most: int) -> Offsets:
    """About `most` offsets behind `start`, of each partition in proportion to what it has."""
    total = sum(last - start[topic][p] for topic, of in ends.items() for p, last in of.items())
    if total <= most:
        return ends
    return {
        topic: {p: start[topic][p] - (start[topic][p] - last) * most // total for p, last in of.items()}
        for topic, of in ends.items()
    }


def _batches(consumer: Any, wanted: Range) -> Iterator[Any]:
    heard = time.monotonic()
    while True:
        messages = consumer.consume(BLOCK, 0.5)
        good = [m for m in messages if m.error() is None]
        if good:
            heard = time.monotonic()
        elif time.monotonic() - heard > PATIENCE:
            raise KafkaUnreachable(
                f"Kafka gave no record of {wanted.topic}[{wanted.partition}] from {wanted.start} on for {PATIENCE:.0f} s."
            )
        wrong = [m for m in messages if m.error() is not None]
        for m in wrong:
            if m.error().code() != KafkaError._PARTITION_EOF and not passes(m.error().code()):
                raise failure_of(fault_of(m))
        found = [m for m in good if m.offset() < wanted.end]
        if found:
            yield _record_batch(found)
        # Behind the last record there may be nothing but markers of transactions: the partition's end counts as well.
        reached = [m.offset() + 1 for m in good]
        reached += [m.offset() for m in wrong if m.error().code() == KafkaError._PARTITION_EOF]
        if max(reached, default=0) >= wanted.end:
            return


def _record_batch(messages: list[Any]) -> Any:
    import pyarrow as pa

    times = [1000 * m.timestamp()[1] for m in messages]
    columns = {
        "value": pa.array([m.value() for m in messages], pa.binary()),
        "partition": pa.array([m.partition() for m in messages], pa.int32()),
        "offset": pa.array([m.offset() for m in messages], pa.int64()),
        "timestamp": pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC")),
    }
    return pa.RecordBatch.from_pydict(columns)
