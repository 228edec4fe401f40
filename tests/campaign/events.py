"""What flows during a campaign: events out of order, late, twice, from clocks hours apart; and what the topics hold.

What counts is what a consumer of no group reads from the topics, byte by byte, and `json` makes of it: producer's
callbacks are not it (with confluent-kafka 2.12 one in a hundred thousand never came), and the product has no part in it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from headwater.testing.cases import Record
from tests.history.log_factory import FIELDS, HOUR
from tests.pipelines.stream_world import DAY

PRODUCTS = 9
_Waiting = tuple[float, str, dict[str, Any]]


class Flow:
    """A thread that produces `rate` events a second; `read` takes what the topics got since it was called last.

    `shift` is how far the clock of who makes the events is off, microseconds. `records` are by topic and customer.
    """

    def __init__(self, kafka: dict[str, str], topics: list[str], customers: int, rate: int, seed: int) -> None:
        self.kafka, self.topics, self.customers, self.rate = kafka, topics, customers, rate
        self.partitions = dict.fromkeys(topics, 4)
        self.records: dict[str, dict[int, list[Record]]] = {topic: {} for topic in topics}
        self.shift = self.sent = self.late = self.twice = self.broken = 0
        self.paused, self._stopping, self._sending = threading.Event(), threading.Event(), threading.Lock()
        self._rng = random.Random(seed)
        self._again: list[_Waiting] = []
        self._read: dict[tuple[str, int], int] = {}
        self._dropped: set[str] = set()
        self.renew()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def renew(self) -> None:
        """A producer remembers the partitions of a topic, and a topic that was made anew has other ones."""
        settings = {"enable.idempotence": True, "message.timeout.ms": 600_000, "linger.ms": 5, "log_level": 0}
        self._producer = Producer({**self.kafka, **settings, "topic.metadata.refresh.interval.ms": 1_000})

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, whatever the broker has not taken."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._producer.purge()
        self._producer.flush(5)
        # What it still says it says to nobody: destroyed by the collector, it would say it in any thread.
        del self._producer

    def pause(self) -> None:
        """Returns when the broker has everything, and nothing comes before `resume`."""
        with self._sending:
            self.paused.set()
        left = self._producer.flush(300)
        assert left == 0, f"{left} events were not taken by the broker"
        self.read()

    def read(self) -> None:
        """Take what the topics hold by now, behind what was taken before."""
        settings = {"group.id": "nobody", "enable.auto.commit": False, "auto.offset.reset": "error", "log_level": 0}
        consumer = Consumer({**self.kafka, **settings})
        try:
            ends = {}
            for topic in self.topics:
                for p in consumer.list_topics(topic, timeout=60).topics[topic].partitions:
                    ends[topic, p] = consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=60)[1]
            behind = {place for place, end in ends.items() if self._read.get(place, 0) < end}
            consumer.assign([TopicPartition(t, p, self._read.get((t, p), 0)) for t, p in behind])
            while behind:
                for message in consumer.consume(5_000, timeout=1):
                    assert message.error() is None, message.error()
                    place = (message.topic(), message.partition())
                    self._read[place] = message.offset() + 1
                    self._take(message)
                behind = {place for place in behind if self._read.get(place, 0) < ends[place]}
        finally:
            consumer.close()

    def _take(self, message: Message) -> None:
        try:
            event = json.loads(message.value())
        except json.JSONDecodeError:
            return
        stamp = message.timestamp()[1] * 1000
        record = Record(message.partition(), message.offset(), stamp, {**_NULLS, **event})
        self.records[message.topic()].setdefault(event["customer"], []).append(record)

    def resume(self) -> None:
        """Events come again."""
        self.paused.clear()

    def forget(self, topic: str) -> None:
        """The topic is made anew: events that wait to be sent twice are the old one's."""
        self.records[topic] = {}
        self._read = {place: at for place, at in self._read.items() if place[0] != topic}
        self._again = [w for w in self._again if w[1] != topic]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            with self._sending:
                if not self.paused.is_set():
                    for _ in range(max(1, self.rate // 20)):
                        self._one()
                    self._producer.poll(0)
            due = max(due + 0.05, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))

    def _one(self) -> None:
        pick = self._rng
        if self._again and self._again[0][0] < time.monotonic():
            _, topic, event = self._again.pop(0)
            self._send(topic, event)
            self.twice += 1
            return
        topic = self.topics[0] if len(self.topics) == 1 or pick.random() < 0.85 else self.topics[1]
        if pick.random() < 0.003:
            self._producer.produce(topic, b'{"customer": 1, "ts"', partition=pick.randrange(self.partitions[topic]))
            self.broken += 1
            return
        event = self._event()
        self._send(topic, event)
        if pick.random() < 0.03:
            self._again.append((time.monotonic() + pick.uniform(0, 3), topic, event))

    def _event(self) -> dict[str, Any]:
        pick = self._rng
        late = pick.choices([0, pick.randrange(2 * HOUR), 3 * DAY, -30 * HOUR], [80, 14.7, 5, 0.3])[0]
        self.late += late != 0
        return {
            "customer": pick.randrange(self.customers), "product": f"p{pick.randrange(PRODUCTS)}",
            "ts": time.time_ns() // 1000 - late + self.shift,
            "price": round(pick.uniform(-5, 50), 2), "quantity": pick.randrange(-1, 5),
        }  # fmt: skip

    def _send(self, topic: str, event: dict[str, Any]) -> None:
        value, place = json.dumps(event).encode(), self._rng.randrange(self.partitions[topic])
        while True:
            try:
                self._producer.produce(topic, value, partition=place)
                self.sent += 1
                return
            except BufferError:
                self._producer.poll(0.05)


_NULLS = dict.fromkeys(FIELDS)
