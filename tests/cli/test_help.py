"""Every command explains itself, with an example, and starts fast enough to be asked."""

from __future__ import annotations

import importlib

import click
import pytest
from click.testing import CliRunner

from headwater.cli import COMMANDS, cli

PROMISED = {
    "up", "down", "status", "plan", "apply", "test", "produce", "stream", "sink", "backfill", "materialize", "history",
    "get", "events", "dead-letters", "check", "serve", "catalog",
}  # fmt: skip


def test_the_commands_are_those_that_were_promised():
    assert set(COMMANDS) >= PROMISED


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_with_an_example(name):
    answer = CliRunner().invoke(cli, [name, "--help"], prog_name="headwater")
    assert answer.exit_code == 0, answer.output
    assert "Example" in answer.output
    assert f"headwater {name}" in answer.output.split("Example")[1] or "headwater -C" in answer.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_explained(name):
    command = importlib.import_module(COMMANDS[name][0]).command
    silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


def test_help_lists_every_command_with_one_line():
    answer = CliRunner().invoke(cli, ["--help"], prog_name="headwater")
    for name, (_, line) in COMMANDS.items():
        assert name in answer.output
        assert line.split(" ")[0] in answer.output


def test_unknown_command_and_missing_repository_are_wrong_use(tmp_path, headwater_cli):
    assert headwater_cli("fly", check=False).returncode == 2
    answer = headwater_cli("down", repo=tmp_path, check=False)
    assert answer.returncode == 2
    assert "feature_store.yaml" in answer.stderr
