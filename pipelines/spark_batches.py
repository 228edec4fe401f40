"""Micro-batches that lie in Spark: streaming queries that begin at given positions, and lend what they read.

A streaming query of Spark wants a function that it calls with each micro-batch. Here the function only lends the
micro-batch to the worker's loop and waits until it is given back, so everything that changes Redis happens in one
place and in one thread, as it does in the Python worker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headwater.errors import HeadwaterError, KafkaUnreachable
from headwater.online.topic_facts import topic_facts
from pipelines.consumers import Place, TopicBatch
from pipelines.outages import Outages
from pipelines.partial_rows import Part, Work, run_task
from pipelines.spark_failures import failures_named

_log = logging.getLogger("headwater.stream")
_CONNECTOR_MISSING = {"KAFKA_DATA_SOURCE_NOT_ENABLED", "DATA_SOURCE_NOT_FOUND"}
_PARTITIONS_EVERY = 5.0
_MANY_REFUSALS = 3


@dataclass(slots=True)
class LentBatch(TopicBatch):
    """A micro-batch that lies in Spark as the data frame `frame`, until the next poll. The arrays are empty."""

    frame: Any = None

    def parts(self, work: Work) -> list[Part]:
        """What executors make of it, by partition and offset; each call reads and computes all anew.

        Raises:
            HeadwaterError: what went wrong in an executor.
            BeforeLogStart: retention has taken what was to be read.
        """
        records = self.frame.select("value", "partition", "offset", "timestamp")
        with failures_named():
            found = records.mapInArrow(partial(run_task, work), "part binary").toArrow()["part"].to_pylist()
        parts: list[Part] = [pickle.loads(one) for one in found]
        return sorted(parts, key=lambda part: (part.partition, part.first))


class LentBatches:
    """Micro-batches of all partitions of the topics, from one streaming query a topic. A `Batches`."""

    def __init__(
        self,
        session: Any,
        kafka: Mapping[str, str],
        group: str,
        topics: Sequence[str],
        starts: Callable[[Iterable[Place]], dict[Place, int] | None],
        most: int,
        outages: Outages,
    ) -> None:
        from confluent_kafka import Consumer

        self.owned: set[Place] = set()
        self.held = True
        self._session, self._kafka, self._topics = session, dict(kafka), list(topics)
        self._starts, self._most, self._outages = starts, most, outages
        self._folder = Path(tempfile.mkdtemp(prefix="headwater-spark-"))
        self._format = stream_format(session)
        self._queries: list[_Query] = []
        self._lent: list[_Query] = []
        self._ready: _Lendings = queue.SimpleQueue()
        self._group = Consumer({**self._kafka, "group.id": group, "log_level": 0})
        self._counted = time.monotonic()
        self._refusals = 0

    def poll(self, most: int, wait: float) -> dict[str, TopicBatch]:
        """Give back what was lent, and take what Spark has next (its size was said when the query was started)."""
        for query in self._lent:
            query.give_back()
        self._lent = []
        if self._grown():
            self.restart()
        lent: dict[str, TopicBatch] = {}
        with contextlib.suppress(queue.Empty):
            while True:
                query, frame = self._ready.get(timeout=0 if lent else wait)
                self._lent.append(query)
                lent[query.topic] = LentBatch(frame=frame)
        if not lent:
            for query in self._queries:
                query.raise_failure()
        return lent

    def ends_reached(self) -> dict[Place, int]:
        """The ends of the micro-batches that were given back."""
        return {place: offset for query in self._queries for place, offset in query.reached().items()}

    def restart(self) -> bool:
        """Begin new queries at the positions; False where they are unknown now."""
        self._stop()
        self.held = True
        try:
            facts = topic_facts(self._kafka, self._topics, offsets=False)
        except KafkaUnreachable as error:
            self._outages.away("Kafka", str(error))
            return False
        self.owned = {(topic, p) for topic, of in facts.items() for p in range(of.partitions)}
        starts = self._starts(self.owned)
        if starts is None:
            return False
        self.held = False
        for topic in sorted({topic for topic, _ in starts}):
            of = {str(p): offset for (t, p), offset in sorted(starts.items()) if t == topic}
            self._queries.append(self._query(topic, of))
        return True

    def turn(self) -> None:
        """A write was refused: whoever else writes is to be named where it goes on."""
        self._refusals += 1
        if self._refusals == _MANY_REFUSALS:
            _log.warning(
                "Redis refused %d writes: another worker moves the same positions. Nothing is counted twice, "
                "but each undoes the other's work: stop one of them.", self._refusals,
            )  # fmt: skip

    def commit(self, nexts: Mapping[Place, int]) -> None:
        """Tell Kafka how far the rows are; for the monitors only."""
        from confluent_kafka import TopicPartition

        places = [TopicPartition(t, p, o) for (t, p), o in nexts.items() if (t, p) in self.owned]
        if places and "Kafka" not in self._outages:
            self._group.commit(offsets=places, asynchronous=True)

    def close(self) -> None:
        """Stop the queries."""
        self._stop()
        self._group.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        for query in self._queries:
            query.close()
        self._queries, self._lent, self._ready = [], [], queue.SimpleQueue()

    def _grown(self) -> bool:
        """Whether a topic has other partitions than when the queries were begun; asked every few seconds."""
        if time.monotonic() - self._counted < _PARTITIONS_EVERY:
            return False
        self._counted = time.monotonic()
        try:
            facts = topic_facts(self._kafka, self._topics, offsets=False)
        except KafkaUnreachable:
            return False
        return any((topic, of.partitions - 1) not in self.owned for topic, of in facts.items())

    def _query(self, topic: str, starts: dict[str, int]) -> _Query:
        settings = self._kafka if self._format != "kafka" else java_settings(self._kafka)
        options = {
            **{f"kafka.{name}": str(value) for name, value in settings.items()},
            "assign": json.dumps({topic: [int(p) for p in starts]}),
            "startingOffsets": json.dumps({topic: starts}),
            "maxOffsetsPerTrigger": str(self._most),
            "kafka.isolation.level": "read_committed",
            "failOnDataLoss": "true",
        }
        frame = self._session.readStream.format(self._format).options(**options).load()
        # A checkpoint of another life is never read: where to begin is Redis' to say.
        checkpoint = tempfile.mkdtemp(dir=self._folder)
        return _Query(topic, frame, checkpoint, self._ready)


class _Query:
    """A streaming query of one topic that lends its micro-batches, one at a time."""

    def __init__(self, topic: str, frame: Any, checkpoint: str, ready: _Lendings) -> None:
        self.topic, self._checkpoint, self._ready = topic, checkpoint, ready
        self._given_back = threading.Event()
        self._closed = False
        writer = frame.writeStream.foreachBatch(self._lend).option("checkpointLocation", Path(checkpoint).as_uri())
        with failures_named():
            self._query = writer.start()

    def give_back(self) -> None:
        """The micro-batch that is lent is done with."""
        self._given_back.set()

    def reached(self) -> dict[Place, int]:
        """Where the last micro-batch that was given back ends."""
        progress = self._query.lastProgress
        if progress is None or not progress["sources"][0]["endOffset"]:
            return {}
        end = progress["sources"][0]["endOffset"]
        offsets = json.loads(end) if isinstance(end, str) else end
        return {(self.topic, int(p)): int(o) for p, o in offsets[self.topic].items()}

    def raise_failure(self) -> None:
        """Raise what ended the query, where something did."""
        with failures_named():
            failure = None if self._query.isActive else self._query.exception()
            if failure is not None:
                raise failure

    def close(self) -> None:
        """End the query; what is lent is lost, and its positions stay where they are."""
        self._closed = True
        # Where Spark itself is gone, there is nothing left to stop.
        with contextlib.suppress(HeadwaterError), failures_named():
            self._query.stop()
        shutil.rmtree(self._checkpoint, ignore_errors=True)

    def _lend(self, frame: Any, number: int) -> None:
        """What Spark calls, in a thread of its own: it goes on when this returns."""
        self._given_back.clear()
        if not self._closed:
            self._ready.put((self, frame))
        while not self._closed and not self._given_back.wait(0.1):
            pass


_Lendings = queue.SimpleQueue[tuple[_Query, Any]]


def stream_format(session: Any) -> str:
    """How Spark reads Kafka in this session: its own connector where that is on the class path, else our source."""
    from pyspark.errors import AnalysisException

    reader = session.readStream.format("kafka").option("kafka.bootstrap.servers", "-").option("subscribe", "-")
    try:
        reader.load()
        return "kafka"
    except AnalysisException as error:
        if error.getCondition() not in _CONNECTOR_MISSING:
            raise
    from pipelines.spark_kafka_source import FORMAT, KafkaSource

    session.dataSource.register(KafkaSource)
    return FORMAT


def java_settings(kafka: Mapping[str, str]) -> dict[str, str]:
    """librdkafka's settings as Kafka's Java client spells them: security; all others keep their names."""
    out = {k: v for k, v in kafka.items() if k not in ("sasl.mechanisms", "sasl.username", "sasl.password")}
    mechanism = kafka.get("sasl.mechanisms", kafka.get("sasl.mechanism"))
    if mechanism is not None:
        out["sasl.mechanism"] = mechanism
    if "sasl.username" in kafka:
        module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
        user, password = (json.dumps(kafka.get(k, "")) for k in ("sasl.username", "sasl.password"))
        out["sasl.jaas.config"] = (
            f"org.apache.kafka.common.security.{module} required username={user} password={password};"
        )
    if "ssl.ca.location" in out:
        out |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": out.pop("ssl.ca.location")}
    return out
