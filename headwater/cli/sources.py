"""The sources of the published plan, for commands that take a TOPIC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.errors import UsageError, nearest

if TYPE_CHECKING:
    from headwater.plans.plan import Source
    from headwater.repository import Repository


def published_sources(repository: Repository) -> tuple[Source, ...]:
    """All sources of the project's plan, at least one.

    Raises:
        UsageError: nothing is published, or the plan has no source.
        Unreachable: Redis does not answer.
    """
    from headwater.online.connection import Connection
    from headwater.online.plan_store import load_published

    with Connection(repository.need_redis()) as connection:
        published = load_published(connection, repository.project)
    if published is None:
        raise UsageError(f"Project {repository.project!r} has no plan in Redis. Publish one with 'headwater apply'.")
    if not published.plan.sources:
        raise UsageError(f"Project {repository.project!r} defines no StreamSource, so there is no topic.")
    return published.plan.sources


def source_of(sources: tuple[Source, ...], topic: str) -> Source:
    """The source of a topic; a source's own name will do as well.

    Raises:
        UsageError: no source has that topic.
    """
    for source in sources:
        if source.topic == topic:
            return source
    for source in sources:
        if source.name == topic:
            return source
    raise UsageError(f"No source has the topic {topic!r}. {nearest(topic, [s.topic for s in sources])}")
