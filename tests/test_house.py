"""The house's rules: which room imports which, what the wheel holds, what the files may name."""

from __future__ import annotations

import ast
import re
import tomllib
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
ROOMS = ("headwater", "feature_repo", "pipelines", "validation", "marketplace")
MAY_IMPORT = {
    "headwater": set(),
    "feature_repo": {"headwater"},
    "validation": {"headwater"},
    "pipelines": {"headwater", "validation"},
    "marketplace": {"headwater"},
}


def _python_files(folder: str) -> list[Path]:
    return sorted(path for path in (CHECKOUT / folder).rglob("*.py") if ".headwater" not in path.parts)


def _imported_rooms(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names} & set(ROOMS)


def test_imports_are_found_wherever_they_stand_in_a_file():
    source = "import pipelines.sink\ndef f():\n    from validation import gate\nfrom . import feature_repo\n"
    assert _imported_rooms(source) == {"pipelines", "validation"}


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_the_rooms_below_it(room):
    wrong = {
        str(path.relative_to(CHECKOUT)): sorted(found)
        for path in _python_files(room)
        if (found := _imported_rooms(path.read_text()) - MAY_IMPORT[room] - {room})
    }
    assert wrong == {}


@pytest.mark.parametrize("folder", [*ROOMS, "tests", "benchmarks"])
def test_every_file_parses_on_the_oldest_python_that_is_promised(folder):
    for path in _python_files(folder):
        ast.parse(path.read_text(), filename=str(path), feature_version=(3, 11))


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_says_what_it_is_and_none_is_a_drawer_for_odds_and_ends(room):
    for path in _python_files(room):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
        assert not re.match(r"(utils?|helpers?|common|manager|base_.*)$", path.stem), path
        assert len(path.read_text().splitlines()) <= 500, f"{path} is too long"


def test_wheel_carries_the_library_alone_with_its_data(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(CHECKOUT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(built).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"headwater"}
    assert {"headwater/embedded/pom.xml", "headwater/embedded/log4j2.xml", "headwater/py.typed"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("file", ["requirements.lock", "Makefile", ".ci/environment", ".ci/servers", "pyproject.toml"])
def test_no_registry_is_named(file):
    text = (CHECKOUT / file).read_text()
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", text)


def test_every_locked_package_has_a_hash():
    text = (CHECKOUT / "requirements.lock").read_text()
    packages = re.split(r"\n(?=[a-zA-Z0-9])", text)
    locked = [package for package in packages if "==" in package.split("\n")[0]]
    assert len(locked) > 100
    assert all("--hash=sha256:" in package for package in locked)


def test_every_extra_says_what_it_is_for():
    text = (CHECKOUT / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    explained = set(re.findall(r"^# .+\n([a-z]+) = ", section, re.MULTILINE))
    assert set(extras) - explained == {"all"}


def test_missing_packages_are_blamed_on_the_extra_that_brings_them():
    from headwater.cli.rooms import _EXTRAS

    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def brought(extra: str) -> set[str]:
        return {re.split(r"[\[><=;~ ]", line)[0].replace("-", "_") for line in extras[extra]}

    assert {package: extra for package, extra in _EXTRAS.items() if package not in brought(extra)} == {}
