"""What a hurried person is told: the nearest command, the folder that is not there, the server that has gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headwater.cli import Context, cli
from headwater.cli.servers import what_ended
from headwater.embedded.processes import free_port, stop
from headwater.embedded.redis_server import start_redis
from headwater.embedded.servers import record_process
from headwater.errors import HeadwaterError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "feature_store.yaml").write_text("project: shop\nprovider: local\n")
    return root


def test_an_unknown_command_names_the_nearest() -> None:
    answer = CliRunner().invoke(cli, ["statu"], prog_name="headwater")
    assert answer.exit_code == 2
    assert "There is no command 'statu'. Did you mean 'status'?" in answer.output


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    answer = CliRunner().invoke(cli, ["-C", str(tmp_path / "nowhere"), "status"])
    assert f"there is no folder {tmp_path / 'nowhere'}" in str(answer.exception)


@pytest.mark.parametrize(
    "words",
    [
        ["status"], ["get", "--features", "v", "--entity", "k=1"], ["produce", "f.parquet"], ["stream"], ["sink"],
        ["check"], ["serve"], ["events", "t", "-o", "o.parquet"], ["dead-letters"], ["backfill", "v"], ["materialize"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_servers_that_were_never_started_are_a_part_that_cannot_be_reached(repository: Path, words: list[str]) -> None:
    # The file itself will do for its folder.
    answer = CliRunner().invoke(cli, ["-C", str(repository / "feature_store.yaml"), *words])
    assert isinstance(answer.exception, HeadwaterError), answer.output
    assert answer.exception.exit_code == 3
    assert "Start local servers with 'headwater up'" in str(answer.exception)


@pytest.mark.redis
def test_a_server_of_up_that_has_gone_is_named_with_what_to_do(repository: Path) -> None:
    process = start_redis(repository / ".headwater" / "redis", free_port())
    record_process(repository, process)
    assert what_ended(Context(str(repository))) == ""
    stop([process])
    said = what_ended(Context(str(repository)))
    assert "redis" in said
    assert process.log in said
    assert "'headwater up' brings" in said


def test_a_folder_that_cannot_be_written_is_one_line_and_wrong_use(repository: Path, headwater_cli: Any) -> None:
    (repository / ".headwater").write_text("a file where a folder should be")
    answer = headwater_cli("up", repo=repository, check=False)
    assert answer.returncode == 2
    assert answer.stderr == f"Error: {repository / '.headwater' / 'servers.json'}: Not a directory.\n"
