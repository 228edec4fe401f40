"""Importing the library must stay light: a worker or a server starts in a fraction of a second."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "feast", "pandas", "pyspark", "great_expectations", "snowflake", "polars", "duckdb", "fastapi",
    "pyarrow", "sqlglot", "deltalake",
)  # fmt: skip


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in answer.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("statement", ["import headwater", "import headwater.cli", "from headwater import Client"])
def test_import_loads_nothing_heavy(statement):
    assert _loaded_by(statement) & set(HEAVY) == set()


def test_import_of_the_library_alone_loads_no_command_line_and_no_numpy():
    assert _loaded_by("import headwater") & {"click", "rich", "numpy", "redis"} == set()


def test_the_probe_sees_what_is_loaded():
    assert "pyarrow" in _loaded_by("import headwater, pyarrow")
