"""`headwater up` and `down` with a real Kafka and a real Redis."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.embedded.processes import is_alive
from headwater.embedded.servers import load_servers

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


def _bare_repository(folder: Path) -> Path:
    folder.mkdir()
    (folder / "feature_store.yaml").write_text("project: shop\nprovider: local\n")
    return folder


@pytest.fixture
def repository(tmp_path, headwater_cli):
    root = _bare_repository(tmp_path / "repo")
    yield root
    headwater_cli("down", repo=root)


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory, headwater_cli):
    """One for several tests: each start of a broker takes seconds."""
    root = _bare_repository(tmp_path_factory.mktemp("up") / "repo")
    yield root
    headwater_cli("down", repo=root)


def test_up_may_be_repeated_and_what_died_comes_back_on_its_port_with_its_data(shared_repository, headwater_cli):
    headwater_cli("up", repo=shared_repository)
    first = load_servers(shared_repository)
    admin = AdminClient({"bootstrap.servers": first.bootstrap_servers})
    admin.create_topics([NewTopic("orders", 1)])["orders"].result(10)
    producer = Producer({"bootstrap.servers": first.bootstrap_servers})
    producer.produce("orders", b"kept")
    assert producer.flush(10) == 0
    with redis.Redis.from_url(first.redis_url) as connection:
        connection.set("kept", "yes")

    headwater_cli("up", repo=shared_repository)
    assert load_servers(shared_repository) == first

    for process in first.processes:
        os.kill(process.pid, signal.SIGKILL)
    while any(map(is_alive, first.processes)):
        time.sleep(0.01)
    headwater_cli("up", repo=shared_repository)
    again = load_servers(shared_repository)
    assert (again.bootstrap_servers, again.redis_url) == (first.bootstrap_servers, first.redis_url)
    assert again.incarnation == first.incarnation
    with redis.Redis.from_url(again.redis_url) as connection:
        assert connection.get("kept") == b"yes"
    consumer = Consumer({"bootstrap.servers": again.bootstrap_servers, "group.id": "g"})
    consumer.assign([TopicPartition("orders", 0, 0)])
    assert consumer.poll(20).value() == b"kept"
    consumer.close()


def test_redis_started_by_up_keeps_rows_and_listens_on_loopback_alone(shared_repository, headwater_cli):
    headwater_cli("up", repo=shared_repository)
    with redis.Redis.from_url(load_servers(shared_repository).redis_url) as connection:
        settings = connection.config_get("append*", "maxmemory-policy", "bind")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


def test_down_ends_all_and_spares_a_stranger_that_took_over_an_id(shared_repository, headwater_cli):
    headwater_cli("up", repo=shared_repository)
    servers = load_servers(shared_repository)
    record = shared_repository / ".headwater" / "servers.json"
    told = json.loads(record.read_text())
    # As if a process of ours had ended and the system had given its id to somebody else: here this very test.
    told["processes"].append({"name": "worker", "pid": os.getpid(), "started": "another time", "log": "worker.log"})
    record.write_text(json.dumps(told))

    answer = headwater_cli("down", repo=shared_repository)

    assert answer.stdout == "Stopped: redis, kafka.\n"
    assert not any(is_alive(process) for process in servers.processes)
    assert headwater_cli("down", repo=shared_repository).stdout == "Nothing was running.\n"


def test_up_starts_only_what_the_file_leaves_out(tmp_path, headwater_cli, redis_url, kafka):
    root = _bare_repository(tmp_path / "given")
    (root / "feature_store.yaml").write_text(
        f"project: shop\nonline_store: {{type: headwater.feast.OnlineStore, redis: '{redis_url}'}}\n"
        f"headwater: {{kafka: {{bootstrap.servers: '{kafka}'}}}}\n"
    )
    assert kafka in headwater_cli("up", repo=root).stdout
    assert load_servers(root).processes == []


def test_down_erase_removes_local_data(repository, headwater_cli):
    headwater_cli("up", "--broker", "mock", repo=repository)
    headwater_cli("down", "--erase", repo=repository)
    assert not (repository / ".headwater").exists()


def test_mock_broker_carries_events_and_says_its_limits(repository, headwater_cli):
    answer = headwater_cli("up", "--broker", "mock", repo=repository)
    assert "no transactions" in answer.stderr
    address = load_servers(repository).bootstrap_servers
    AdminClient({"bootstrap.servers": address}).list_topics(timeout=10)
    producer = Producer({"bootstrap.servers": address})
    producer.produce("orders", b"x", partition=0)
    assert producer.flush(10) == 0


def test_a_second_broker_of_another_kind_is_refused(repository, headwater_cli):
    headwater_cli("up", "--broker", "mock", repo=repository)
    answer = headwater_cli("up", "--broker", "kafka", repo=repository, check=False)
    assert answer.returncode == 2
    assert "a mock broker runs" in answer.stderr


@pytest.mark.parametrize("missing", ["java", "redis-server"])
def test_a_missing_part_is_one_error_that_names_its_package(tmp_path, headwater_cli, monkeypatch, missing):
    root = _bare_repository(tmp_path / "bare")
    tools = tmp_path / "bin"
    tools.mkdir()
    if missing == "java":
        (tools / "redis-server").symlink_to("/usr/bin/redis-server")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    answer = headwater_cli("up", repo=root, check=False)
    headwater_cli("down", repo=root)
    assert answer.returncode == 2
    assert {"java": "default-jre-headless", "redis-server": "redis-server"}[missing] in answer.stderr
    assert "Traceback" not in answer.stderr
