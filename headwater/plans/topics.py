"""The Kafka topics that a plan needs: its sources' topics, and one for the dead letters of each.

New topics stamp records with the broker's time (LogAppendTime): admission compares it with the
event's own time. A compacted topic is refused, since it forgets events that windows still hold.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headwater.errors import DefinitionError, DefinitionErrors, Unreachable, UsageError
from headwater.online.topic_facts import make_mock_topics, topic_facts
from headwater.plans.plan import Plan
from headwater.repository import Repository

DEAD_LETTERS = ".dead-letters"
_TIMEOUT = 15.0


@dataclass(frozen=True)
class TopicSettings:
    """How new topics are made."""

    partitions: int = 4
    replication: int = 1

    @classmethod
    def of(cls, repository: Repository) -> TopicSettings:
        """`partitions` and `replication` under `headwater:` in feature_store.yaml.

        Raises:
            UsageError: one is no whole number above 0.
        """
        return cls(**{name: _whole(repository, name, default) for name, default in _DEFAULTS.items()})


_DEFAULTS = {"partitions": 4, "replication": 1}


def _whole(repository: Repository, name: str, default: int) -> int:
    value = repository.settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"feature_store.yaml, headwater.{name}: expected a whole number above 0, got {value!r}.")
    return value


def topics_of(plan: Plan) -> list[str]:
    """All topics that the plan needs, sorted."""
    return sorted(name for s in plan.sources for name in (s.topic, s.topic + DEAD_LETTERS))


def missing_topics(kafka: Mapping[str, str], plan: Plan) -> list[str]:
    """The topics that have to be created.

    Raises:
        DefinitionErrors: a source's topic is compacted.
        Unreachable: no broker answers.
    """
    facts = topic_facts(kafka, topics_of(plan), offsets=False)
    compacted = [s for s in plan.sources if s.topic in facts and facts[s.topic].compacted]
    if compacted:
        raise DefinitionErrors(
            [
                DefinitionError(
                    f"Stream source '{s.name}', topic: '{s.topic}' is compacted (cleanup.policy=compact), so it "
                    f"forgets events. Set cleanup.policy=delete on it, or read another topic."
                )
                for s in compacted
            ]
        )
    return [name for name in topics_of(plan) if name not in facts]


def create_topics(
    kafka: Mapping[str, str], names: list[str], settings: TopicSettings, config: Mapping[str, str] | None = None
) -> None:
    """Create topics, with further `config`; those that came to be meanwhile are as good.

    Raises:
        Unreachable: no broker answers, or it refuses (the message says why).
    """
    if not names:
        return
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    if make_mock_topics(kafka, names):
        return
    chosen = {"message.timestamp.type": "LogAppendTime", **(config or {})}
    new = [NewTopic(n, settings.partitions, settings.replication, config=chosen) for n in names]
    client: Any = AdminClient(dict(kafka))
    for name, future in client.create_topics(new, operation_timeout=_TIMEOUT, request_timeout=_TIMEOUT).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Unreachable(f"Topic '{name}' could not be created: {error.args[0].str()}") from error
    _wait_until_known(kafka, names)


def _wait_until_known(kafka: Mapping[str, str], names: list[str]) -> None:
    """The controller answers before its brokers know of a topic, and to one of those it is missing still."""
    deadline = time.monotonic() + _TIMEOUT
    while unknown := set(names) - set(topic_facts(kafka, names, offsets=False)):
        if time.monotonic() > deadline:
            raise Unreachable(
                f"Topics {', '.join(sorted(unknown))} were created, but the broker does not know them yet."
            )
        time.sleep(0.05)
