"""The one line of a user's own test suite."""

from __future__ import annotations

import os
from collections.abc import Sequence


def assert_views_agree(
    repository: str | os.PathLike[str] | None = None,
    views: Sequence[str] = (),
    *,
    seconds: float = 10.0,
    seed: int = 0,
) -> None:
    """Fuzz the windowed views of a feature repository: `headwater test` as an assertion.

    Args:
        repository: the folder of feature_store.yaml; None: `.` or `./feature_repo`. No server is needed.
        views: their names; none: all.
        seconds: how long to search in all, loading not counted.
        seed: where the search begins; the same seed draws the same cases.

    Raises:
        AssertionError: paths disagree; its message holds the smallest failing case and the values.
        DefinitionErrors, UsageError: the definitions are wrong, or a name is unknown.
        MissingExtra: hypothesis is not installed (the extra `test`).
    """
    from headwater.definitions.repositories import repository_plan
    from headwater.repository import load_repository
    from headwater.testing.fuzzing import fuzz
    from headwater.testing.reporting import lines_of

    results = fuzz(repository_plan(load_repository(repository)), views, seconds=seconds, seed=seed)
    wrong = [line for r in results if r.failure is not None for line in lines_of(r)]
    if wrong:
        raise AssertionError("\n".join(wrong))
