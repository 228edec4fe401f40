"""What README says can be typed, and is typed here: its make targets exist, and its four uses run from top to bottom."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pandas as pd
import pytest
from click.testing import CliRunner

from headwater.cli import COMMANDS, cli
from headwater.embedded.processes import free_port
from tests.conftest import delete_topics, feature_store_yaml
from tests.in_process import run_cli

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


class Typist:
    """Types README's blocks in a folder that holds the shop's repository, as a person would in the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._sessions = folder, []
        self.ports = {"6566": str(free_port()), "8600": str(free_port())}
        self._environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def type(self, language: str, block: str) -> str:
        """What a block printed; fails where it failed."""
        for usual, free in self.ports.items():
            block = block.replace(usual, free)
        command = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [sys.executable, "-c", block]
        out = self.folder / f"out{len(self._sessions)}.txt"
        with out.open("w") as file:
            # A session of its own: what a block leaves running is ended with it.
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdout=file, stderr=file, start_new_session=True
            )
            self._sessions.append(process.pid)
            code = process.wait(timeout=300)
        said = out.read_text()
        assert code == 0, f"{block}\n{said}"
        return said

    def close(self) -> None:
        for session in self._sessions:
            try:
                os.killpg(session, signal.SIGTERM)
            except ProcessLookupError:
                continue


@pytest.fixture
def typist(tmp_path: Path, headwater_cli) -> Iterator[Typist]:
    if shutil.which("curl") is None:
        pytest.fail("README shows curl: install the package curl.")
    root = tmp_path / "feature_repo"
    shutil.copytree(CHECKOUT / "feature_repo", root, ignore=shutil.ignore_patterns(".headwater*"))
    typist = Typist(tmp_path)
    yield typist
    typist.close()
    headwater_cli("down", repo=root)


def _uses() -> list[tuple[str, str]]:
    """README's blocks from Register on, each with its language."""
    text = (CHECKOUT / "README.md").read_text().split("## Register")[1].split("## Measured")[0]
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 9
    return blocks


def _few_events(path: Path) -> None:
    """The sample's customers that README asks for, and a part of the others."""
    sample = pd.read_parquet(path)
    sample[sample["customer_id"].isin([17841, 14911]) | (sample.index % 20 == 0)].to_parquet(path, index=False)


@pytest.mark.kafka
@pytest.mark.redis
def test_each_line_of_the_four_uses_does_what_it_says(tmp_path, monkeypatch, redis_url, kafka):
    root = tmp_path / "feature_repo"
    shutil.copytree(CHECKOUT / "feature_repo", root, ignore=shutil.ignore_patterns(".headwater*"))
    _few_events(root / "data" / "online_retail_sample.parquet")
    delete_topics(kafka, {"invoice_lines"})
    (root / "feature_store.yaml").write_text(feature_store_yaml("readme", redis_url, kafka, None))
    monkeypatch.chdir(tmp_path)
    said = []
    for language, block in _uses():
        if language == "python":
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as out:
                warnings.simplefilter("ignore")
                exec(block, {})
            said.append(out.getvalue())
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            # What goes on for ever, and asking it, is typed by the long test.
            if words[:1] == ["headwater"] and "&" not in words:
                answer = run_cli(*words[1:])
                assert answer.code == 0, f"{line}\n{answer.out}{answer.err}"
                said.append(answer.out)
    everything = "\n".join(said)
    assert "customer_spend                    PRESENT" in everything
    assert "✓ customer_spend: receipts" in everything
    assert "'customer_id': [17841]" in everything
    training = pd.read_parquet("training.parquet")
    assert list(training["customer_id"]) == [17841, 14911]
    assert training["customer_spend__count_30d"].gt(0).all()


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.soak
def test_the_four_uses_run_as_they_stand(typist: Typist) -> None:
    said = [typist.type(language, block) for language, block in _uses()]
    everything = "\n".join(said)
    assert "customer_spend                    PRESENT" in everything
    assert "✓ customer_spend: receipts" in everything
    training = pd.read_parquet(typist.folder / "training.parquet")
    assert list(training["customer_id"]) == [17841, 14911]
    assert training["customer_spend__count_30d"].gt(0).all()
    deadline, page = time.monotonic() + 60, ""
    while "customer_spend" not in page:
        assert time.monotonic() < deadline, "the catalog does not show its views"
        try:
            with urlopen(f"http://127.0.0.1:{typist.ports['8600']}/", timeout=20) as answer:
                page = answer.read().decode()
        except OSError:
            time.sleep(0.2)
