"""A consumer on librdkafka itself: records go from its queue into arrays, and no Python object is made for one.

The library is the one that the package confluent-kafka brings, called through ctypes by its public C interface
(rdkafka.h); copying records is the compiled library's part (headwater/native/kafka.c).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import KafkaError

from headwater.errors import UsageError
from headwater.events.payloads import Payloads
from headwater.native import address_of, library
from pipelines.consumers import Callbacks, Fault, Place, TopicBatch, batch_of

_CONSUMER, _CONF_OK = 1, 0
_ASSIGN = -175
"""RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS; the other one of a rebalance takes partitions away."""


class _TopicPartition(ctypes.Structure):
    _fields_ = [
        ("topic", c_char_p), ("partition", c_int32), ("offset", c_int64), ("metadata", c_void_p),
        ("metadata_size", c_size_t), ("opaque", c_void_p), ("err", c_int), ("_private", c_void_p),
    ]  # fmt: skip


class _List(ctypes.Structure):
    _fields_ = [("cnt", c_int), ("size", c_int), ("elems", POINTER(_TopicPartition))]


class _Message(ctypes.Structure):
    _fields_ = [
        ("err", c_int), ("rkt", c_void_p), ("partition", c_int32), ("payload", c_void_p), ("len", c_size_t),
        ("key", c_void_p), ("key_len", c_size_t), ("offset", c_int64), ("_private", c_void_p),
    ]  # fmt: skip


_REBALANCE = ctypes.CFUNCTYPE(None, c_void_p, c_int, POINTER(_List), c_void_p)
_ERROR = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_void_p)

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "conf_new": (c_void_p, []),
    "conf_destroy": (None, [c_void_p]),
    "conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "conf_set_rebalance_cb": (None, [c_void_p, _REBALANCE]),
    "conf_set_error_cb": (None, [c_void_p, _ERROR]),
    "conf_set_log_cb": (None, [c_void_p, c_void_p]),
    "new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "destroy": (None, [c_void_p]),
    "poll_set_consumer": (c_int, [c_void_p]),
    "queue_get_consumer": (c_void_p, [c_void_p]),
    "queue_destroy": (None, [c_void_p]),
    "consume_batch_queue": (c_int64, [c_void_p, c_int, c_void_p, c_size_t]),
    "subscribe": (c_int, [c_void_p, POINTER(_List)]),
    "assign": (c_int, [c_void_p, POINTER(_List)]),
    "commit": (c_int, [c_void_p, POINTER(_List), c_int]),
    "consumer_close": (c_int, [c_void_p]),
    "topic_partition_list_new": (POINTER(_List), [c_int]),
    "topic_partition_list_add": (POINTER(_TopicPartition), [POINTER(_List), c_char_p, c_int32]),
    "topic_partition_list_destroy": (None, [POINTER(_List)]),
    "topic_name": (c_char_p, [c_void_p]),
    "err2str": (c_char_p, [c_int]),
}


@cache
def _librdkafka() -> ctypes.CDLL | None:
    """librdkafka, with its functions' signatures; None where it does not lie where confluent-kafka's wheels put it."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    folders = (package.parent / "confluent_kafka.libs", package / ".dylibs")
    found = [path for folder in folders for path in sorted(folder.glob("librdkafka[-.]*"))]
    try:
        lib = ctypes.CDLL(str(found[0])) if found else None
        for name, (result, arguments) in _SIGNATURES.items() if lib is not None else ():
            function = getattr(lib, f"rd_kafka_{name}")
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return lib


def available(settings: Mapping[str, Any]) -> bool:
    """Whether a consumer can be made here: both libraries are there, and the settings are plain values."""
    plain = all(isinstance(v, str | int | float | bool) for v in settings.values())
    return plain and library() is not None and _librdkafka() is not None


class LibrdkafkaConsumer:
    """As `pipelines.consumers.GroupConsumer`.

    Raises:
        UsageError: librdkafka does not take a setting.
    """

    def __init__(self, settings: Mapping[str, Any], topics: Sequence[str], callbacks: Callbacks) -> None:
        lib, native = _librdkafka(), library()
        assert lib is not None
        assert native is not None
        self._lib, self._native, self._callbacks = lib, native, callbacks
        # Kept here: librdkafka holds their addresses only.
        self._rebalance_cb, self._error_cb = _REBALANCE(self._on_rebalance), _ERROR(self._on_error)
        # Partitions that the group gives while it is left are given back: assigning them then has hung for ever.
        self._closing = False
        self._rk = self._opened(settings)
        self._queue = lib.rd_kafka_queue_get_consumer(self._rk)
        self._messages = (c_void_p * 1)()
        self._timestamp, self._destroy = (
            ctypes.cast(getattr(lib, f"rd_kafka_message_{name}"), c_void_p) for name in ("timestamp", "destroy")
        )
        self._with_list({(t, -1): None for t in topics}, lib.rd_kafka_subscribe)

    def take(self, most: int, wait: float) -> tuple[dict[str, TopicBatch], list[Fault]]:
        """As `GroupConsumer`."""
        if len(self._messages) < most:
            self._messages = (c_void_p * most)()
        consume, first = self._lib.rd_kafka_consume_batch_queue, ctypes.addressof(self._messages)
        # One call waits until it has all that it was asked for: so for one record, then for what is there.
        count = max(consume(self._queue, int(wait * 1000), first, 1), 0) if wait else 0
        if count < most and (count or not wait):
            count += max(consume(self._queue, 0, first + 8 * count, most - count), 0)
        return self._taken(count) if count else ({}, [])

    def assign(self, places: Mapping[Place, int]) -> None:
        """As `GroupConsumer`."""
        self._with_list(places, self._lib.rd_kafka_assign)

    def serve(self) -> None:
        """As `GroupConsumer`. Records that come are dropped: the caller reads again from its positions."""
        count = self._lib.rd_kafka_consume_batch_queue(self._queue, 0, ctypes.addressof(self._messages), 1)
        if count > 0:
            self._native.hw_destroy(self._messages, c_int64(count), self._destroy)

    def commit(self, nexts: Mapping[Place, int]) -> None:
        """As `GroupConsumer`."""
        self._with_list(nexts, lambda rk, places: self._lib.rd_kafka_commit(rk, places, 1))

    def close(self) -> None:
        """As `GroupConsumer`."""
        if self._rk is not None:
            self._closing = True
            self._lib.rd_kafka_consumer_close(self._rk)
            self._lib.rd_kafka_queue_destroy(self._queue)
            self._lib.rd_kafka_destroy(self._rk)
            self._rk = None

    def _opened(self, settings: Mapping[str, Any]) -> Any:
        lib, conf, error = self._lib, self._lib.rd_kafka_conf_new(), ctypes.create_string_buffer(512)
        for name, value in settings.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if lib.rd_kafka_conf_set(conf, name.encode(), text.encode(), error, len(error)) != _CONF_OK:
                lib.rd_kafka_conf_destroy(conf)
                raise UsageError(f"Kafka setting {name!r}: {error.value.decode()}. See 'kafka' in headwater.yaml.")
        lib.rd_kafka_conf_set_rebalance_cb(conf, self._rebalance_cb)
        lib.rd_kafka_conf_set_error_cb(conf, self._error_cb)
        lib.rd_kafka_conf_set_log_cb(conf, None)
        rk = lib.rd_kafka_new(_CONSUMER, conf, error, len(error))
        if not rk:
            lib.rd_kafka_conf_destroy(conf)
            raise UsageError(f"Kafka: {error.value.decode()}. See 'kafka' in headwater.yaml.")
        lib.rd_kafka_poll_set_consumer(rk)
        return rk

    def _taken(self, n: int) -> tuple[dict[str, TopicBatch], list[Fault]]:
        data = np.empty(self._native.hw_size(self._messages, c_int64(n)), np.uint8)
        ends, null, kind = np.empty(n + 1, np.int64), np.empty(n, np.bool_), np.empty(n, np.int8)
        topic, partition, offset, time = (np.empty(n, np.int64) for _ in range(4))
        arrays = (data, ends, null, topic, partition, offset, time, kind)
        count = self._native.hw_take(ctypes.addressof(self._messages), n, self._timestamp, *map(address_of, arrays))
        errors = ctypes.cast(self._messages, POINTER(POINTER(_Message)))
        faults = [self._fault(errors[i][0]) for i in range(n - count)]
        # A batch is of one topic nearly always: no sorting for that.
        alike = topic[:count] == topic[:1]
        topics = topic[: min(count, 1)] if alike.all() else np.unique(topic[:count])
        names = {t: self._name(t) for t in topics.tolist()}
        self._native.hw_destroy(self._messages, c_int64(n), self._destroy)
        payloads = Payloads(data, ends[: count + 1], null[:count])
        columns: list[Any] = [a[:count] for a in (partition, offset, time, kind)]
        if len(names) == 1:
            return {next(iter(names.values())): batch_of(payloads, *columns)}, faults
        return {
            name: self._of(np.flatnonzero(topic[:count] == t), payloads, columns) for t, name in names.items()
        }, faults

    def _of(self, index: Any, payloads: Payloads, columns: list[Any]) -> TopicBatch:
        return batch_of(Payloads.of(payloads.select(index)), *(c[index] for c in columns))

    def _name(self, rkt: int) -> str:
        return str(self._lib.rd_kafka_topic_name(rkt).decode())

    def _fault(self, m: _Message) -> Fault:
        topic = self._name(m.rkt) if m.rkt else ""
        if m.err == KafkaError._PARTITION_EOF:  # comes with nearly every batch, and needs no words
            return Fault(m.err, "", topic, m.partition, m.offset)
        text = ctypes.string_at(m.payload, m.len).decode() if m.payload else self._lib.rd_kafka_err2str(m.err).decode()
        return Fault(m.err, text, topic, m.partition, m.offset)

    def _with_list(self, places: Mapping[Place, int | None], use: Any) -> None:
        made = self._lib.rd_kafka_topic_partition_list_new(len(places))
        for (topic, partition), offset in places.items():
            item = self._lib.rd_kafka_topic_partition_list_add(made, topic.encode(), partition)
            if offset is not None:
                item[0].offset = offset
        use(self._rk, made)
        self._lib.rd_kafka_topic_partition_list_destroy(made)

    def _on_rebalance(self, rk: Any, code: int, places: Any, _: Any) -> None:
        found = {(e.topic.decode(), e.partition) for e in places[0].elems[: places[0].cnt]}
        if code == _ASSIGN and not self._closing:
            self._callbacks.assigned(found)
        else:
            self._callbacks.gone(found)
            self._lib.rd_kafka_assign(rk, None)

    def _on_error(self, _: Any, code: int, reason: bytes | None, __: Any) -> None:
        self._callbacks.failed(code, (reason or b"").decode(errors="replace"))
