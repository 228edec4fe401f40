"""docker-compose.yml and the Dockerfile: valid, complete, and true to the command line that they call."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from headwater.cli import COMMANDS, cli
from headwater.embedded.kafka_jars import KAFKA_VERSION
from headwater.monitoring.endpoint import MonitorAddress, monitored
from headwater.repository import load_repository
from pipelines.loop_metrics import LoopMetrics
from pipelines.outages import Outages

CHECKOUT = Path(__file__).resolve().parent.parent
SERVICES = ["kafka", "redis", "worker", "sink", "server", "catalog"]


def _compose() -> dict:
    return yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())


def test_compose_file_is_valid():
    if shutil.which("docker-compose") is None:
        pytest.fail("There is no docker-compose: install the package docker-compose.")
    answer = subprocess.run(
        ["docker-compose", "config", "-q"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_a_health_check(name):
    assert _compose()["services"][name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", ["worker", "sink", "server", "catalog"])
def test_health_check_asks_the_port_that_the_command_listens_on(name):
    told = subprocess.run(
        ["docker-compose", "config"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )  # fmt: skip
    service = yaml.safe_load(told.stdout)["services"][name]
    options = dict(pairwise(service["command"]))
    port = options.get("--metrics-port") or options["--port"]
    assert f"urlopen('http://127.0.0.1:{port}/health'" in service["healthcheck"]["test"][-1]


def test_health_check_of_a_loop_fails_where_it_has_stalled_and_where_nobody_listens():
    _, *python, code = _compose()["services"]["worker"]["healthcheck"]["test"]
    assert python == ["python", "-c"]
    metrics = LoopMetrics("headwater_stream", {}, Outages(logging.getLogger("test")))

    def asked(address: str) -> int:
        called = [sys.executable, "-c", code.replace("http://127.0.0.1:9100", address)]
        return subprocess.run(called, capture_output=True, check=False).returncode

    with monitored(metrics, MonitorAddress("127.0.0.1", 0, stalled_after=60)) as at:
        metrics.turns.turned()
        assert asked(at) == 0
    assert asked(at) == 1
    with monitored(metrics, MonitorAddress("127.0.0.1", 0, stalled_after=0)) as at:
        assert asked(at) == 1


@pytest.mark.parametrize("name", ["apply", "worker", "sink", "server", "catalog"])
def test_service_runs_a_real_command_with_real_options(name):
    service = _compose()["services"][name]
    _, _, command, *rest = service["command"]
    assert command in COMMANDS
    told = CliRunner().invoke(cli, [command, "--help"], prog_name="headwater").output
    assert [word for word in rest if word.startswith("--") and word not in told] == []


def test_containers_run_the_same_kafka_as_up_does():
    assert _compose()["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    pom = (CHECKOUT / "headwater/embedded/pom.xml").read_text()
    assert f"<artifactId>kafka_2.13</artifactId>\n      <version>{KAFKA_VERSION}</version>" in pom


def test_containers_repository_names_the_services_of_the_compose_file(tmp_path):
    shutil.copy(CHECKOUT / "docker" / "feature_store.yaml", tmp_path)
    repository = load_repository(tmp_path)
    assert repository.need_redis() == "redis://redis:6379/0"
    assert repository.need_kafka() == {"bootstrap.servers": "kafka:9092"}


def test_dockerfile_copies_what_exists_and_installs_extras_that_exist():
    text = (CHECKOUT / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert [name for name in copied if not (CHECKOUT / name).exists()] == []
    assert {"headwater", "pipelines", "validation", "marketplace", "feature_repo"} <= set(copied)
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = set(re.search(r'"\.\[(.*)\]"', text).group(1).split(","))
    assert installed <= set(extras)
    # What the health checks of worker and sink ask.
    assert "monitoring" in installed
