"""Feast's registry: definitions are written to it through Feast, and a plan is read back from it.

Both kinds of registry work, Feast's file and its SQL registry. Nothing is written unless all
definitions compile.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headwater.definitions.repositories import load_settled, repository_plan
from headwater.errors import DefinitionError
from headwater.plans.compile import Definitions, compile_plan
from headwater.plans.plan import Plan
from headwater.repository import Repository

__all__ = ["load_settled", "plan_of_registry", "registry_plan", "repository_plan", "write_registry"]


def registry_plan(repository: Repository) -> Plan | None:
    """The plan of what was last applied; None where nothing was.

    Raises:
        DefinitionErrors: the registry holds what this version calls wrong.
    """
    if "://" not in repository.registry and not Path(repository.registry).exists():
        # Opening a registry that is not there would create it.
        return None
    store = _store(repository)
    plan = plan_of_registry(store.registry, repository.project)
    return plan if plan.views or plan.sources or plan.services else None


def plan_of_registry(registry: Any, project: str) -> Plan:
    """The plan of a project in an open Feast registry; an empty one where nothing was applied.

    Raises:
        DefinitionErrors: the registry holds what this version calls wrong.
    """
    with _quiet():
        held = Definitions(
            data_sources=registry.list_data_sources(project),
            entities=registry.list_entities(project),
            feature_views=[*registry.list_feature_views(project), *registry.list_on_demand_feature_views(project)],
            stream_feature_views=registry.list_stream_feature_views(project),
            feature_services=registry.list_feature_services(project),
        )
    return compile_plan(project, held)


def write_registry(repository: Repository, contents: Any) -> None:
    """Make the registry hold exactly these definitions (as `load_settled` gives them); publish nothing.

    Raises:
        DefinitionError: Feast refuses one of its own objects in the repository.
    """
    from feast.errors import FeastError
    from feast.repo_operations import extract_objects_for_apply_delete

    from headwater.plans.publishing import registry_only

    if "://" not in repository.registry:
        Path(repository.registry).parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), registry_only():
        store = _store(repository)
        changed, removed, _, _ = extract_objects_for_apply_delete(repository.project, store.registry, contents)
        try:
            store.apply(changed, objects_to_delete=removed, partial=False)
        except (FeastError, ValueError) as error:
            raise DefinitionError(f"Feast refuses the definitions of {repository.root}: {error}") from error


def _store(repository: Repository) -> Any:
    from feast import FeatureStore

    with _quiet():
        return FeatureStore(repo_path=str(repository.root))


@contextmanager
def _quiet() -> Iterator[None]:
    """Feast warns that its stream views are experimental, and of its own dependencies' deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
