"""The keys of records that were read without them, read again where the topic still has them.

Apart from the consumers because these leave keys out: no event needs one, and every event would pay for its copy. What
is asked for here are the few that were not admitted, so that a replay can send them as they were.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

_GAP = 1_000
"""Offsets: reading on over so many costs less than asking the broker anew."""

Spot = tuple[int, int]
"""A partition and an offset."""


class RecordKeys:
    """Looks up keys; holds a consumer without a group's partitions from the first time on."""

    def __init__(self, kafka: Mapping[str, str]) -> None:
        self._kafka = dict(kafka)
        self._consumer: Any = None

    def of(self, topic: str, records: Mapping[Spot, bytes | None], seconds: float) -> dict[Spot, bytes]:
        """The keys of records, by their places and values, looked for during so many seconds.

        Left out: no key, another value (a topic may have been made anew), gone, or not there in time.
        """
        found: dict[Spot, bytes] = {}
        if seconds <= 0:
            return found
        deadline = time.monotonic() + seconds
        with contextlib.suppress(KafkaException):
            for partition, first, last in _ranges(records):
                for message in self._read(TopicPartition(topic, partition), first, last, deadline):
                    spot = partition, message.offset()
                    if spot in records and message.key() is not None and message.value() == records[spot]:
                        found[spot] = message.key()
            if self._consumer is not None:
                # Else it would go on to fetch what lies behind.
                self._consumer.unassign()
        return found

    def close(self) -> None:
        """Let go of the broker."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _read(self, place: TopicPartition, first: int, last: int, deadline: float) -> Iterator[Any]:
        """The records from offset `first` to `last`, as far as there are any."""
        self._consumer = self._consumer or Consumer(
            {"group.id": "headwater-dead-letters", **self._kafka, "enable.auto.commit": False, "log_level": 0,
             "auto.offset.reset": "error", "enable.partition.eof": True, "isolation.level": "read_committed",
             # The fetch that waits behind one stretch holds up the next: 9 ms a stretch, and 700 with the default.
             "fetch.wait.max.ms": 1}
        )  # fmt: skip
        start, end = self._consumer.get_watermark_offsets(place, max(deadline - time.monotonic(), 0.001))
        at, last = max(first, start), min(last, end - 1)
        if at <= last:
            self._consumer.assign([TopicPartition(place.topic, place.partition, at)])
        while at <= last and time.monotonic() < deadline:
            # Not `consume`: that may still give what was fetched for the assignment before.
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is not None:
                return
            if message is not None:
                at = message.offset() + 1
                yield message


class Allowance:
    """Time for what may be left out: `most` seconds at first, and a share of all time again, up to as many.

    `now` is a clock's seconds.
    """

    def __init__(self, most: float, share: float, now: float) -> None:
        self._most, self._share = most, share
        self._left, self._at = most, now

    def left(self, now: float) -> float:
        """Seconds that may be taken now."""
        return min(self._most, self._left + self._share * (now - self._at))

    def took(self, begun: float, now: float) -> None:
        """It was taken, from `begun` until now."""
        self._left, self._at = max(0.0, self.left(begun) - (now - begun)), now


def _ranges(records: Mapping[Spot, bytes | None]) -> list[tuple[int, int, int]]:
    """Partition, first and last offset of stretches that hold all the places."""
    found: list[tuple[int, int, int]] = []
    for partition, offset in sorted(records):
        if found and found[-1][0] == partition and offset - found[-1][2] <= _GAP:
            found[-1] = partition, found[-1][1], offset
        else:
            found.append((partition, offset, offset))
    return found
