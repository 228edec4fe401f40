"""Ctrl-C while a command is still being imported, and when it is at its end: exit code 130, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.stream_world import CHECKOUT

# Python imports this module before any other: the signal comes at the same instant each time, on a slow machine too.
INTERRUPTS = """
import atexit, os, signal, sys

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            # As where a dataclass is being made: Python remembers this one, to end by the signal itself.
            exec("interrupt()")

sys.meta_path.insert(0, AtImport())
if os.environ["INTERRUPT_AT"] == "the end":
    atexit.register(interrupt)
"""
HISTORY = ("-C", "feature_repo", "history", "spine.parquet", "--features", "customer_spend", "-o", "training.parquet")


@pytest.mark.parametrize(
    ("at", "command", "said"),
    [
        ("headwater.cli", HISTORY, ""),
        ("click", HISTORY, ""),
        ("yaml", HISTORY, ""),
        ("headwater.cli.history", HISTORY, "Stopped.\n"),
        ("numpy", HISTORY, "Stopped.\n"),
        ("confluent_kafka", ("-C", "feature_repo", "stream"), "Stopped.\n"),
        ("the end", ("--version",), ""),
    ],
)
def test_ctrl_c_during_imports_ends_a_command_with_130_and_at_most_a_line(
    tmp_path: Path, at: str, command: tuple[str, ...], said: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTS)
    paths = os.pathsep.join([str(tmp_path), str(CHECKOUT)])
    answer = subprocess.run(
        [sys.executable, "-m", "headwater", *command],
        cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": paths, "INTERRUPT_AT": at}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (130, said)


def test_the_console_script_is_what_answers_ctrl_c_first() -> None:
    code = (
        "import headwater.__main__, sys; print(sorted(m for m in sys.modules if m.startswith(('headwater', 'click'))))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert told.stdout == "['headwater', 'headwater.__main__']\n"
    assert 'headwater = "headwater.__main__:main"' in (CHECKOUT / "pyproject.toml").read_text()
