"""Worker and sink on librdkafka's mock broker, which machines without Java have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.embedded.mock_broker import start_mock_broker
from headwater.embedded.processes import stop
from headwater.errors import TopicChanged
from headwater.lake import Lake
from headwater.plans.topics import TopicSettings, create_topics
from tests.pipelines.stream_world import World, random_events

pytestmark = pytest.mark.redis


class MockWorld(World):
    """A mock is asked for topics as `headwater apply` asks for them."""

    def create_topic(self, partitions: int = 4) -> None:
        create_topics(self.kafka, [self.topic, f"{self.topic}.dead-letters"], TopicSettings(partitions=partitions))


@pytest.fixture
def mocks(tmp_path: Path) -> Iterator[list[str]]:
    """The addresses of two mock brokers."""
    started = [start_mock_broker(tmp_path / name) for name in ("first", "second")]
    yield [address for _, address in started]
    stop([process for process, _ in started], patience=5)


def test_worker_and_sink_work_on_a_mock_and_notice_that_it_was_started_anew(
    redis_url: str, mocks: list[str], tmp_path: Path
) -> None:
    world = MockWorld(redis_url, mocks[0])
    world.publish()
    world.produce([*random_events(300), b"no event"])
    world.catch_up()
    world.assert_equal_to_the_slow_loop()
    lake = Lake(str(tmp_path / "lake"))
    world.sink(lake)
    assert sum(lake.positions(world.topic).values()) == 301
    rows = world.rows()
    # What is started anew has an empty log, at whatever address.
    world.kafka = {"bootstrap.servers": mocks[1]}
    world.create_topic()
    world.new_producer()
    world.produce(random_events(300, seed=2))
    with pytest.raises(TopicChanged, match="made anew"):
        world.catch_up()
    assert world.rows() == rows
