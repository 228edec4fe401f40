"""`headwater apply` and `feast apply` on real servers: registry, topics, publication, and their order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from headwater.cli import Context
from headwater.cli.apply import command as apply
from headwater.cli.plan import command as plan
from headwater.definitions.registry import registry_plan, repository_plan
from headwater.errors import DefinitionErrors, HeadwaterError, Unavailable, Unreachable
from headwater.online.connection import Connection
from headwater.online.keys import fill_key, plan_key
from headwater.online.plan_store import load_published
from headwater.online.reads import FeatureReader
from headwater.repository import load_repository

pytestmark = [pytest.mark.redis, pytest.mark.kafka]

CLICKS = """
from feast import Entity, ValueType
from feast.types import Int64, UnixTimestamp
from headwater.definitions import Count, StreamSource, StreamView

user = Entity(name="user", join_keys=["id"], value_type=ValueType.INT64)
clicks = StreamSource("clicks", topic="{topic}", event_time="at", schema={{"id": Int64, "at": UnixTimestamp}})
activity = StreamView("activity", entity=user, source=clicks, features=[Count(over="{over}")])
"""


def run(command: object, repository: Path, *arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), obj=Context(str(repository)), catch_exceptions=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_apply_writes_registry_topics_and_plan(
    make_repository: Callable[..., Path], redis_url: str, kafka: str
) -> None:
    path = make_repository(definitions=CLICKS.format(topic="apply-a", over="1h"))
    repository = load_repository(path)

    said = run(apply, path)

    assert "+ view activity" in said
    assert "Created apply-a, apply-a.dead-letters in Kafka." in said
    client = AdminClient({"bootstrap.servers": kafka})
    assert len(client.list_topics(timeout=10).topics["apply-a"].partitions) == 4
    resource = ConfigResource(ResourceType.TOPIC, "apply-a")
    assert client.describe_configs([resource])[resource].result()["message.timestamp.type"].value == "LogAppendTime"
    with Connection(redis_url) as connection:
        published = load_published(connection, repository.project)
    assert published is not None
    assert published.plan == registry_plan(repository) == repository_plan(repository)
    assert list(published.active) == ["activity"]
    assert run(plan, path) == ""

    again = run(apply, path)
    assert "Created" not in again
    assert "Published" in again

    (path / "definitions.py").write_text(CLICKS.format(topic="apply-a", over="2h"))
    changes = json.loads(run(plan, path, "--json"))
    assert [c["name"] for c in changes["changed"]] == ["activity"]
    assert {d["place"] for d in changes["changed"][0]["differences"]} == {
        "feature count_1h", "feature count_2h", "state hash"
    }  # fmt: skip


def test_a_plan_whose_rows_are_of_another_codec_version_is_refused_and_apply_begins_its_fills_anew(
    make_repository: Callable[..., Path], redis_url: str
) -> None:
    path = make_repository(definitions=CLICKS.format(topic="apply-codec", over="1h"))
    repository = load_repository(path)
    run(apply, path)
    with Connection(redis_url) as connection:
        first = load_published(connection, repository.project)
        assert first is not None
        older = json.loads(connection.command("GET", plan_key(repository.project)))
        del older["codec"]
        connection.command("SET", plan_key(repository.project), json.dumps(older))
        said = (
            "its rows are of codec version 1, and those of this Headwater of 2. Publish it again with 'headwater apply'"
        )
        with pytest.raises(HeadwaterError, match=said):
            load_published(connection, repository.project)
        with pytest.raises(Unavailable, match=r"codec version 1.* Run: headwater apply"):
            FeatureReader(connection, repository.project).published()

        assert "Published" in run(apply, path)
        again = load_published(connection, repository.project)
        assert again is not None
        assert again.active["activity"].fill != first.active["activity"].fill
        was = fill_key(repository.project, "activity", first.active["activity"].fill)
        assert connection.command("EXISTS", was) == 0


def test_feast_apply_publishes_the_plan_and_creates_topics(
    make_repository: Callable[..., Path], redis_url: str, kafka: str
) -> None:
    path = make_repository()
    repository = load_repository(path)
    feast = Path(sys.executable).with_name("feast")
    done = subprocess.run([feast, "apply"], cwd=path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr

    with Connection(redis_url) as connection:
        published = load_published(connection, repository.project)
    assert published is not None
    assert published.plan == registry_plan(repository) == repository_plan(repository)
    assert {"invoice_lines", "invoice_lines.dead-letters"} <= set(
        AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
    )
    assert run(plan, path) == ""


def test_a_compacted_topic_is_refused_and_nothing_is_written(make_repository: Callable[..., Path], kafka: str) -> None:
    path = make_repository(definitions=CLICKS.format(topic="apply-compacted", over="1h"))
    new = NewTopic("apply-compacted", 1, 1, config={"cleanup.policy": "compact"})
    client = AdminClient({"bootstrap.servers": kafka})
    client.create_topics([new])["apply-compacted"].result()
    with pytest.raises(DefinitionErrors, match=r"'clicks', topic: 'apply-compacted' is compacted"):
        run(apply, path)
    assert registry_plan(load_repository(path)) is None


@pytest.mark.parametrize("server", ["redis", "kafka"])
def test_a_server_that_does_not_answer_stops_apply_before_the_registry(
    make_repository: Callable[..., Path], redis_url: str, kafka: str, server: str, impatient: None
) -> None:
    path = make_repository(definitions=CLICKS.format(topic="apply-b", over="1h"))
    yaml = path / "feature_store.yaml"
    address, nobody = {"redis": (redis_url, "redis://127.0.0.1:9/0"), "kafka": (kafka, "127.0.0.1:9")}[server]
    assert address in yaml.read_text()
    yaml.write_text(yaml.read_text().replace(address, nobody))
    with pytest.raises(Unreachable):
        run(apply, path)
    assert registry_plan(load_repository(path)) is None
