"""Definitions are loaded from a repository's Python files, wherever it lies, as often as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.definitions.repositories import repository_plan
from headwater.errors import DefinitionErrors
from headwater.repository import Repository, load_repository

STORE = "project: {project}\nprovider: local\nregistry: .headwater/registry.db\n"
DEFINITIONS = """
from feast import Entity, ValueType
from feast.types import Int64, UnixTimestamp
from headwater.definitions import Count, StreamSource, StreamView

user = Entity(name="user", join_keys=["id"], value_type=ValueType.INT64)
clicks = StreamSource("clicks", event_time="at", schema={{"id": Int64, "at": UnixTimestamp}})
activity = StreamView("{view}", entity=user, source=clicks, features=[Count(over="1h")])
"""


def make_files(folder: Path, project: str = "shop", **files: str) -> Repository:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(STORE.format(project=project))
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return load_repository(folder)


def views(repository: Repository) -> list[str]:
    return [v.name for v in repository_plan(repository).views]


def test_two_repositories_with_files_of_one_name_are_loaded_in_one_process(tmp_path: Path) -> None:
    one = make_files(tmp_path / "one", definitions=DEFINITIONS.format(view="first"))
    two = make_files(tmp_path / "two", definitions=DEFINITIONS.format(view="second"))
    assert (views(one), views(two), views(one)) == (["first"], ["second"], ["first"])


def test_an_edited_file_is_loaded_again(tmp_path: Path) -> None:
    repository = make_files(tmp_path, definitions=DEFINITIONS.format(view="aaa"))
    assert views(repository) == ["aaa"]
    make_files(tmp_path, definitions=DEFINITIONS.format(view="bbb"))
    assert views(repository) == ["bbb"]


def test_files_import_each_other_and_objects_count_once(tmp_path: Path) -> None:
    repository = make_files(
        tmp_path,
        streams__clicks=DEFINITIONS.format(view="activity"),
        services="from streams.clicks import *\nfrom feast import FeatureService\n"
        "model = FeatureService(name='model', features=[activity])\n",
    )
    plan = repository_plan(repository)
    assert [v.name for v in plan.views] == ["activity"]
    assert plan.service("model").features == (("activity", ("count_1h",)),)


def test_feastignore_hides_files(tmp_path: Path) -> None:
    repository = make_files(tmp_path, definitions=DEFINITIONS.format(view="activity"), drafts__broken="1 / 0")
    (tmp_path / ".feastignore").write_text("drafts  # not ready\n")
    assert views(repository) == ["activity"]


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    repository = make_files(tmp_path, broken="x = 1\ny = (\n")
    with pytest.raises(DefinitionErrors, match=r"broken\.py:2: syntax error: '\(' was never closed"):
        repository_plan(repository)


def test_all_files_that_cannot_be_imported_are_named_at_once(tmp_path: Path) -> None:
    repository = make_files(tmp_path, one="\nimport no_such_module\n", two="\n\nx = undefined_name\n")
    with pytest.raises(DefinitionErrors) as caught:
        repository_plan(repository)
    first, second = map(str, caught.value.errors)
    assert first == "one.py:2: ModuleNotFoundError: No module named 'no_such_module'"
    assert second == "two.py:3: NameError: name 'undefined_name' is not defined"


def test_a_file_named_like_an_installed_module_is_an_error_not_a_silent_loss(tmp_path: Path) -> None:
    repository = make_files(tmp_path, json="x = 1\n")
    with pytest.raises(DefinitionErrors, match=r"json\.py:1: .*'json' is taken by the module .*; rename the file"):
        repository_plan(repository)
