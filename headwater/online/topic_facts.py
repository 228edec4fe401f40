"""What the broker says of a topic: its id, partitions, offsets and retention.

Apart from the plan store because workers, the sink and `status` ask it too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import isfile
from typing import Any

from headwater.errors import KafkaUnreachable, MissingExtra, UsageError

TIMEOUT = 10.0


@dataclass(frozen=True)
class TopicFacts:
    """A topic as it is now. `starts` and `ends`: log start and next offset by partition (None where not asked)."""

    name: str
    id: str
    partitions: int
    retention_ms: int | None
    compacted: bool
    starts: dict[int, int]
    ends: dict[int, int]

    @property
    def empty(self) -> bool:
        """Whether no event was ever kept."""
        return all(end == 0 for end in self.ends.values())


def topic_facts(kafka: Mapping[str, str], topics: Iterable[str], *, offsets: bool = True) -> dict[str, TopicFacts]:
    """Facts of the topics that exist; others are left out.

    Raises:
        KafkaUnreachable: no broker answers.
        MissingExtra: confluent-kafka is not installed.
    """
    names = sorted(set(topics))
    if not names:
        return {}
    facts = {}
    with _asking(kafka) as (client, module):
        if mock := _mock_cluster(client.client, kafka):
            described = _listed(client.client, mock, names)
            retention: dict[str, tuple[int | None, str]] = dict.fromkeys(described, (None, "delete"))
        else:
            described = _describe(client, module, names)
            retention = _configs(client, module, list(described))
        for name, (topic_id, partitions) in described.items():
            starts, ends = _offsets(client, name, partitions) if offsets else ({}, {})
            kept, policy = retention[name]
            facts[name] = TopicFacts(name, topic_id, partitions, kept, "compact" in policy, starts, ends)
    return facts


def offsets_at(kafka: Mapping[str, str], topic: str, partitions: int, time: int) -> dict[int, int]:
    """Partition -> the first offset whose record's time is `time` (microseconds) or later; those without are left out.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    with _asking(kafka) as (client, module):
        from confluent_kafka import TopicPartition

        # Kafka knows whole milliseconds.
        spec = module.OffsetSpec.for_timestamp(-(-time // 1000))
        places = dict.fromkeys([TopicPartition(topic, p) for p in range(partitions)], spec)
        futures = client.client.list_offsets(places, request_timeout=TIMEOUT)
        found = {place.partition: client.answer(future).offset for place, future in futures.items()}
    return {p: offset for p, offset in found.items() if offset >= 0}


def committed_offsets(kafka: Mapping[str, str], group: str, topic: str, partitions: int) -> dict[int, int]:
    """Partition -> the next offset that a consumer group has committed; partitions without one are left out.

    Raises:
        Unreachable: no broker answers.
    """
    with _asking(kafka) as (client, _):
        from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in range(partitions)])
        [future] = client.client.list_consumer_group_offsets([asked], request_timeout=TIMEOUT).values()
        return {t.partition: t.offset for t in client.answer(future).topic_partitions if t.offset >= 0}


class _Asking:
    """An admin client that waits for answers; what is decided sooner than a question's time limit ends the wait."""

    def __init__(self, kafka: Mapping[str, str], module: Any) -> None:
        self.at = kafka.get("bootstrap.servers", "its address")
        self._said = said = dict[str, str]()

        def note(error: Any) -> None:
            # Not a method: the client would hold itself, and a worker never collects such circles.
            said[error.name()] = error.str()

        self.client = module.AdminClient({**kafka, "log_level": 0, "logger": _silent(), "error_cb": note})

    def answer(self, future: Any) -> Any:
        """A future's result. Raises KafkaUnreachable where no answer can come: refused, not trusted, not known."""
        while True:
            try:
                return future.result(0.05)
            except TimeoutError:
                self.client.poll(0)
                if advice := self._decided():
                    raise KafkaUnreachable(advice) from None

    def why(self, said: str) -> str:
        """Why nobody answered, as far as the client knows."""
        self.client.poll(0)
        return self._decided() or f"Kafka did not answer at {self.at}: {self._said.get('_TRANSPORT', said)}."

    def _decided(self) -> str | None:
        for name, what, look in _DECIDED:
            if name in self._said and (name != "_RESOLVE" or "_ALL_BROKERS_DOWN" in self._said):
                return f"Kafka at {self.at} {what}: {self._said[name]}. Look at {look} under headwater.kafka."
        return None


_DECIDED = (
    ("_AUTHENTICATION", "refused the login", "sasl.username, sasl.password and sasl.mechanism"),
    ("_SSL", "cannot be trusted, or does not speak TLS", "ssl.ca.location and security.protocol"),
    ("_RESOLVE", "is an unknown host", "bootstrap.servers"),
)
"""Errors of librdkafka that no waiting mends (an unknown host: where no other broker is named)."""


@contextmanager
def _asking(kafka: Mapping[str, str]) -> Iterator[tuple[_Asking, Any]]:
    """An admin client and its module; what the client raises within becomes KafkaUnreachable, with the address."""
    try:
        from confluent_kafka import KafkaException, admin
    except ModuleNotFoundError as error:
        raise MissingExtra("confluent-kafka", "stream", "Talking to Kafka") from error
    try:
        client = _Asking(kafka, admin)
    except KafkaException as error:
        gone = [f"{k}: there is no file {v}. " for k, v in kafka.items() if k.endswith(".location") and not isfile(v)]
        raise UsageError(f"headwater.kafka in feature_store.yaml: {''.join(gone)}{_text(error)}.") from error
    try:
        yield client, admin
    except KafkaException as error:
        raise KafkaUnreachable(client.why(_text(error))) from error


def _text(error: Any) -> str:
    cause = error.args[0]
    return str(cause.str() if hasattr(cause, "str") else cause).rstrip(".")


def make_mock_topics(kafka: Mapping[str, str], names: Iterable[str]) -> bool:
    """Whether the broker is librdkafka's mock, which then has these topics: it makes each that is asked for.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    with _asking(kafka) as (client, _):
        if _mock_cluster(client.client, kafka) is None:
            return False
        for name in names:
            client.client.list_topics(name, timeout=TIMEOUT)
        return True


def _mock_cluster(client: Any, kafka: Mapping[str, str]) -> str | None:
    """The id of librdkafka's mock cluster; None of a broker proper. The mock listens on loopback, for everybody.

    It answers no request to create or describe topics, and says no topic's id.
    """
    address = kafka.get("bootstrap.servers", "")
    if address not in _CLUSTERS:
        local = address.startswith("127.0.0.1:") and "security.protocol" not in kafka
        _CLUSTERS[address] = str(client.list_topics(timeout=TIMEOUT).cluster_id) if local else ""
    found = _CLUSTERS[address]
    return found if found.startswith("mockCluster") else None


_CLUSTERS: dict[str, str] = {}


def _listed(client: Any, cluster: str, names: list[str]) -> dict[str, tuple[str, int]]:
    """A mock's topics live and die with it, so its own id is theirs: one that was started anew has other topics."""
    there = client.list_topics(timeout=TIMEOUT).topics
    return {name: (cluster, len(there[name].partitions)) for name in names if name in there}


def _silent() -> Any:
    import logging

    logger = logging.getLogger("headwater.librdkafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def _describe(client: _Asking, module: Any, names: list[str]) -> dict[str, tuple[str, int]]:
    from confluent_kafka import KafkaError, KafkaException, TopicCollection

    found = {}
    futures = client.client.describe_topics(TopicCollection(names), request_timeout=TIMEOUT)
    for name, future in futures.items():
        try:
            described = client.answer(future)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise
        found[name] = (str(described.topic_id), len(described.partitions))
    return found


def _configs(client: _Asking, module: Any, names: list[str]) -> dict[str, tuple[int | None, str]]:
    out = {}
    resources = [module.ConfigResource(module.ConfigResource.Type.TOPIC, n) for n in names]
    if not resources:
        return {}
    for resource, future in client.client.describe_configs(resources, request_timeout=TIMEOUT).items():
        entries = client.answer(future)
        kept = int(entries["retention.ms"].value)
        out[resource.name] = (None if kept < 0 else kept, entries["cleanup.policy"].value)
    return out


def _offsets(client: _Asking, name: str, partitions: int) -> tuple[dict[int, int], dict[int, int]]:
    from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    # A topic made a moment ago has no leaders yet. (`retriable()` is false for what an admin client says.)
    passing = {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
    places = [TopicPartition(name, p) for p in range(partitions)]
    deadline = time.monotonic() + TIMEOUT
    out: list[dict[int, int]] = []
    while len(out) < 2:
        spec = OffsetSpec.latest() if out else OffsetSpec.earliest()
        futures = client.client.list_offsets(
            dict.fromkeys(places, spec), isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT
        )
        try:
            out.append({place.partition: client.answer(future).offset for place, future in futures.items()})
        except KafkaException as error:
            if error.args[0].code() not in passing or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    return out[0], out[1]
