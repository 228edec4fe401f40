"""What README says can be typed: its make targets exist, its commands and their options are real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from headwater.cli import COMMANDS, cli

CHECKOUT = Path(__file__).resolve().parent.parent


def _lines() -> list[str]:
    blocks = re.findall(r"```(?:sh|bash|console|shell)\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def _commands(program: str) -> list[list[str]]:
    found = []
    for line in _lines():
        words = shlex.split(line, comments=True)
        if program in words[:1] or f".venv/bin/{program}" in words[:1]:
            found.append(words[1:])
    return found


def test_readme_shows_the_two_commands():
    targets = {words[0] for words in _commands("make")}
    assert {"quickstart", "test"} <= targets


def test_every_make_target_in_readme_exists():
    rules = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert {word for words in _commands("make") for word in words[:1]} <= rules


def test_every_headwater_command_in_readme_exists_with_its_options():
    shown = _commands("headwater")
    assert shown
    for words in shown:
        words = words[2:] if words[0] == "-C" else words
        assert words[0] in COMMANDS, words
        told = CliRunner().invoke(cli, [words[0], "--help"], prog_name="headwater").output
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in told, f"headwater {' '.join(words)}: no option {option}"


@pytest.mark.parametrize("target", ["quickstart", "test", "lint", "bench", "help", "soak"])
def test_make_has_the_target_and_help_lists_it(target):
    assert re.search(rf"^{target}:.*## ", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
