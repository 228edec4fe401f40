"""Sends the rows of a Parquet file to a source's topic, in file order, as fast as the broker takes them.

Idempotent, with large batches: a record is in its partition once, and in order, or the run fails. It reads,
encodes and sends some 10,000 rows at a time, so that a file of any size takes little memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headwater.durations import DAY
from headwater.errors import HeadwaterError, Unreachable, UsageError
from headwater.events.formats import encoder_of
from headwater.events.json_rows import key_texts, newest, shifted, typed
from headwater.events.schemas import Schemas
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Source

BLOCK = 20_000
PATIENCE = 30.0
"""Seconds that a record may wait for the broker."""


class EventFile:
    """A Parquet file of a source's events. `rows` is how many it has."""

    def __init__(self, path: Path, source: Source) -> None:
        self.path, self.source = path, source
        try:
            self._file = pq.ParquetFile(path)
        except FileNotFoundError as error:
            raise UsageError(f"There is no file {path}.") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise UsageError(f"{path} is not a Parquet file: {error}") from error
        self.rows: int = self._file.metadata.num_rows
        fields = {f.name for f in source.fields}
        self._columns = [name for name in self._file.schema_arrow.names if name in fields]
        if source.event_time not in self._columns:
            typed(pl.DataFrame(schema=self._file.schema_arrow.names), source)

    def shift_to(self, now: int) -> int:
        """Microseconds, a whole number of days, that bring the newest event into the day before `now`."""
        times = [newest(frame, self.source) for frame in self.blocks(columns=[self.source.event_time])]
        known = [t for t in times if t is not None]
        return (now - max(known)) // DAY * DAY if known else 0

    def blocks(self, size: int = BLOCK, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows in file order, in the source's types."""
        for batch in self._file.iter_batches(size, columns=columns or self._columns):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield typed(frame, self.source)


class EventProducer:
    """Sends events to one topic."""

    def __init__(self, kafka: Mapping[str, str], topic: str) -> None:
        """Connect.

        Raises:
            Unreachable: no broker answers.
            HeadwaterError: the topic does not exist.
        """
        if topic not in topic_facts(kafka, [topic], offsets=False):
            raise HeadwaterError(
                f"Topic {topic!r} does not exist. 'headwater apply' creates the topics of all sources."
            )
        self.topic, self._failures = topic, list[str]()
        self._producer = Producer(
            {"linger.ms": 20, "batch.size": 1 << 20, "batch.num.messages": 50_000, "compression.type": "lz4",
             "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 1 << 18, **kafka,
             "enable.idempotence": True, "message.timeout.ms": int(PATIENCE * 1000),
             "delivery.report.only.error": True, "on_delivery": self._delivered, "log_level": 0}
        )  # fmt: skip

    def send(self, values: list[bytes], keys: Any) -> None:
        """Queue events in order, waiting where the queue is full.

        Raises:
            Unreachable: the broker did not take an earlier one.
        """
        messages = [
            {"value": v, "key": k} if k is not None else {"value": v} for v, k in zip(values, keys, strict=True)
        ]
        while messages:
            try:
                taken = self._producer.produce_batch(self.topic, messages)
            except BufferError:
                taken = 0
            except KafkaException as error:
                raise HeadwaterError(f"Topic {self.topic!r} refused an event: {error.args[0].str()}.") from error
            messages = self._left(messages, taken)
            self._producer.poll(0.05 if messages else 0)
            self._check()

    def flush(self) -> None:
        """Wait until the broker has all events.

        Raises:
            Unreachable: it did not take them.
        """
        left = self._producer.flush(PATIENCE + 5)
        self._check()
        if left:
            raise Unreachable(f"Kafka did not acknowledge {left} events of topic {self.topic!r}.")

    def _left(self, messages: list[dict[str, Any]], taken: int) -> list[dict[str, Any]]:
        if taken == len(messages):
            return []
        left = [m for m in messages if "_error" in m]
        for message in left:
            error = message.pop("_error")
            if error.code() != KafkaError._QUEUE_FULL:
                raise HeadwaterError(f"Topic {self.topic!r} refused an event: {error.str()}.")
        return left or messages[taken:]

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error.str())

    def _check(self) -> None:
        if self._failures:
            raise Unreachable(
                f"Kafka did not take {len(self._failures)} or more events of topic {self.topic!r}: {self._failures[0]}."
            )


def produce_file(
    kafka: Mapping[str, str],
    file: EventFile,
    *,
    shift: int = 0,
    rate: float | None = None,
    progress: Callable[[int], None] = lambda sent: None,
    schemas: Schemas | None = None,
) -> int:
    """Send all rows of a file; returns how many. `shift` in microseconds; `rate` in events a second, None for all speed.

    Raises:
        Unreachable: the broker did not take an event.
        UsageError: a column that does not fit the source's type, or not the topic's newest schema.
        RegistryUnreachable: the source needs a schema registry, which does not answer.
    """
    encode = encoder_of(file.source, schemas or Schemas())
    producer = EventProducer(kafka, file.source.topic)
    size = BLOCK if rate is None else max(1, min(BLOCK, int(rate / 50)))
    sent, began = 0, time.monotonic()
    for frame in file.blocks():
        moved = shifted(frame, file.source, shift) if shift else frame
        values, keys = encode(moved), key_texts(moved, file.source)
        for at in range(0, len(values), size):
            producer.send(values[at : at + size], keys[at : at + size])
            sent += len(values[at : at + size])
            progress(sent)
            if rate is not None:
                time.sleep(max(0.0, began + sent / rate - time.monotonic()))
    producer.flush()
    return sent
