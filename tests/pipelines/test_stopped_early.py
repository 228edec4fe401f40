"""`--until-caught-up`: 0 says that it has caught up, so being stopped before says something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.lake import Lake
from tests.conftest import feature_store_yaml
from tests.pipelines.stream_world import World, random_events
from tests.pipelines.test_servers_away import positions, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


@pytest.mark.parametrize("what", ["stream", "sink"])
def test_who_is_stopped_before_it_has_caught_up_ends_with_130(
    redis_url: str, kafka: str, tmp_path: Path, start_headwater: Callable[..., Any], what: str
) -> None:
    world = World(redis_url, kafka)
    world.publish()
    world.produce(random_events(5_000))
    (tmp_path / "feature_store.yaml").write_text(feature_store_yaml(world.project, redis_url, kafka, None))
    lake = Lake(str(tmp_path / ".headwater" / "lake"))
    process = start_headwater(
        what, "--until-caught-up", "--batch", "1", repo=tmp_path
    )  # a batch an event: it takes long
    if what == "stream":
        wait_for(lambda: sum(positions(world).values()) > 0, "the worker does not work")
    else:
        wait_for(lambda: sum(lake.positions(world.topic).values()) > 0, "the sink does not work")
    process.terminate()
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert said.endswith("Stopped.\n")


def test_a_worker_without_a_broker_at_its_start_ends_with_3(
    redis_url: str, tmp_path: Path, headwater_here: Any, impatient: None
) -> None:
    (tmp_path / "feature_store.yaml").write_text(feature_store_yaml("shop", redis_url, "127.0.0.1:1", None))
    answer = headwater_here("stream", repo=tmp_path, check=False)
    assert answer.returncode == 3
    assert answer.stderr.startswith("Error: Kafka did not answer at 127.0.0.1:1: ")
