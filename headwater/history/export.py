"""From a spine's file to a training set's file: what `headwater history` runs.

Apart from the command so that the command's help needs none of the lake's packages.
"""

from __future__ import annotations

from pathlib import Path

from headwater.errors import Unreachable, UsageError
from headwater.history.files import read_parquet, write_parquet
from headwater.history.log import LakeWarehouse
from headwater.history.selection import parse_features, service_features
from headwater.history.training_set import Progress, reads_of, training_set
from headwater.lake import Lake
from headwater.online.connection import Connection
from headwater.online.plan_store import load_published
from headwater.plans.plan import Plan
from headwater.repository import Repository


def export(
    repository: Repository, spine: Path, features: str | None, service: str | None, output: Path, progress: Progress
) -> int:
    """Writes the training set; gives its number of rows.

    Raises:
        UsageError: unknown names, or a spine that is not what it should be.
        ReadError: a value that cannot be given.
    """
    progress("reading the plan")
    plan = applied_plan(repository)
    wanted = service_features(plan, service) if service is not None else parse_features(plan, features or "")
    order = [w.column for w in wanted]
    warehouse = LakeWarehouse(Lake(repository.lake))
    result = training_set(plan, warehouse, read_parquet(spine), reads_of(plan, wanted), order=order, progress=progress)
    progress(f"writing {output}")
    write_parquet(result, output)
    return len(result)


def applied_plan(repository: Repository) -> Plan:
    """The published plan where Redis answers (reading it takes no Feast), else what the registry holds.

    Raises:
        UsageError: nothing was applied.
    """
    plan = _published(repository)
    if plan is None:
        from headwater.definitions.registry import registry_plan

        plan = registry_plan(repository)
    if plan is None:
        raise UsageError(f"Nothing was applied to project {repository.project!r}. Run 'headwater apply' first.")
    return plan


def _published(repository: Repository) -> Plan | None:
    if repository.redis_url is None:
        return None
    try:
        connection = Connection(repository.redis_url)
    except Unreachable:
        # Training needs no online store; the registry says the same, only slower.
        return None
    try:
        published = load_published(connection, repository.project)
    finally:
        connection.close()
    return None if published is None else published.plan
