"""SASL/SCRAM over TLS on the real broker: every part that talks to it, and what is wrong said once at the start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from headwater.lake import Lake
from pipelines.backfill import backfill
from pipelines.dead_letters import read_dead_letters
from tests.pipelines.stream_world import World, random_events
from tests.secure_kafka import SecureKafka
from tests.validation.planted_world import run_cli

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    broker = SecureKafka(tmp_path_factory.mktemp("secure") / "kafka")
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def world(redis_url: str, secure: SecureKafka) -> World:
    return World(redis_url, secure.settings["bootstrap.servers"], partitions=2, kafka=secure.settings)


def repository(folder: Path, world: World, **kafka: str) -> Path:
    """feature_store.yaml with the world's settings, some of them changed."""
    settings = {**world.kafka, **{name.replace("_", "."): value for name, value in kafka.items()}}
    text = {
        "project": world.project, "online_store": {"redis": world.redis_url},
        "offline_store": {"lake": str(folder / "lake")}, "headwater": {"kafka": settings},
    }  # fmt: skip
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(text))
    return folder


def test_admin_producer_worker_sink_dead_letters_and_check_speak_scram_over_tls(world: World, tmp_path: Path) -> None:
    world.publish()
    world.produce([*random_events(200), b"{"])
    root = repository(tmp_path, world)
    for command in ("stream", "sink"):
        said = run_cli("-C", str(root), command, "--until-caught-up")
        assert said.code == 0, said
    world.assert_equal_to_the_slow_loop()
    assert len(read_dead_letters(world.kafka, [world.topic])) == 1
    lake = Lake(str(tmp_path / "lake"))
    assert backfill(lake, world.connection, world.kafka, world.project, ["spend"])[0].active
    checked = run_cli("-C", str(root), "check", "--json")
    assert (checked.code, checked.view("spend")["differences"], checked.err) == (0, {}, "")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sasl_password": "guessed"}, ("refused the login", "sasl.password")),
        ({"sasl_username": "nobody"}, ("refused the login", "sasl.username")),
        ({"ssl_ca_location": "STRANGER"}, ("cannot be trusted", "ssl.ca.location")),
        ({"bootstrap_servers": "no-such-host.invalid:9092"}, ("is an unknown host", "bootstrap.servers")),
        ({"sasl_pasword": "x"}, ('No such configuration property: "sasl.pasword"', "feature_store.yaml")),
        ({"ssl_ca_location": "/nowhere/ca.pem"}, ("/nowhere/ca.pem", "feature_store.yaml")),
    ],
    ids=["password", "user", "authority", "host", "setting", "file"],
)
@pytest.mark.parametrize("command", ["stream", "sink"])
def test_what_is_wrong_is_one_error_at_the_start(
    world: World, secure: SecureKafka, tmp_path: Path, command: str, wrong: dict[str, str], words: tuple[str, str]
) -> None:
    wrong = {name: value.replace("STRANGER", str(secure.stranger)) for name, value in wrong.items()}
    root = repository(tmp_path, world, **wrong)
    said = run_cli("-C", str(root), command)
    assert said.code == (2 if words[1] == "feature_store.yaml" else 3), said
    assert all(word in said.err for word in words), said.err
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1, said.err
