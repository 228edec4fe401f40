"""From definitions to the online store: topics are created and the compiled plan is published.

Two ways lead here. `headwater apply` writes the registry first and then publishes. `feast apply`
publishes through `headwater.feast.OnlineStore.update`, which Feast calls before it commits its
registry, so a failure leaves both as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from headwater.online.connection import Connection
from headwater.online.plan_store import PublishResult, publish
from headwater.plans.plan import Plan
from headwater.plans.topics import TopicSettings, create_topics, missing_topics
from headwater.repository import Repository, load_repository

_registry_only: ContextVar[bool] = ContextVar("registry_only", default=False)


@dataclass(frozen=True)
class Servers:
    """What publishing needs, known to answer: addresses and the topics that are missing."""

    redis_url: str
    kafka: dict[str, str] | None
    missing: list[str]
    settings: TopicSettings


def reach_servers(repository: Repository, plan: Plan) -> Servers:
    """Make sure that all servers answer and that no source's topic is compacted. Changes nothing.

    Raises:
        UsageError: a setting is wrong.
        Unreachable: a server does not answer, or none was started.
        DefinitionErrors: a source's topic is compacted.
    """
    redis_url, settings = repository.need_redis(), TopicSettings.of(repository)
    if any(source.format != "json" for source in plan.sources):
        repository.need_schema_registry()
    kafka = repository.need_kafka() if plan.sources else None
    with Connection(redis_url) as connection:
        connection.command("PING")
    return Servers(redis_url, kafka, missing_topics(kafka, plan) if kafka else [], settings)


def publish_plan(servers: Servers, plan: Plan) -> PublishResult:
    """Create the missing topics and publish the plan.

    Raises:
        Unreachable: a server does not answer any more.
    """
    if servers.kafka:
        create_topics(servers.kafka, servers.missing, servers.settings)
    with Connection(servers.redis_url) as connection:
        return publish(connection, servers.kafka, plan)


@contextmanager
def registry_only() -> Iterator[None]:
    """While it lasts, Feast's `apply` in this thread writes the registry and publishes nothing."""
    token = _registry_only.set(True)
    try:
        yield
    finally:
        _registry_only.reset(token)


def publish_registry_plan(repo_path: str) -> PublishResult | None:
    """What `OnlineStore.update` does during `feast apply`: publish the repository's definitions.

    Feast hands `update` views alone, so the plan is compiled from the repository's files. None where
    `headwater apply` is at work, which publishes itself.

    Args:
        repo_path: the repository's folder (Feast's `config.repo_path`).

    Raises:
        DefinitionErrors: all that is wrong in the definitions.
        UsageError, Unreachable: as `reach_servers`.
    """
    if _registry_only.get():
        return None
    from headwater.definitions.repositories import repository_plan

    repository = load_repository(repo_path)
    plan = repository_plan(repository)
    return publish_plan(reach_servers(repository, plan), plan)
