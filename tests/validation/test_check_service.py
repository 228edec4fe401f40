"""`headwater check --every`: run again and again, each run kept and shown, whatever is away in between."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headwater.embedded.processes import free_port
from headwater.errors import UsageError
from headwater.monitoring.endpoint import MonitorAddress, monitored
from headwater.repository import load_repository
from tests.conftest import feature_store_yaml
from tests.monitoring.test_endpoint import get, samples
from tests.validation.planted_world import PlantedWorld, run_cli
from validation.check_service import CheckService

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


@pytest.fixture(scope="module")
def world(redis_url: str, kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedWorld]:
    world = PlantedWorld(redis_url, kafka, tmp_path_factory.mktemp("served"), events=60)
    yield world
    world.close()


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_run_is_kept_and_counted_and_a_defect_ends_nothing(world: PlantedWorld) -> None:
    service, before = CheckService(world.repository, ["spend"], 0.2, sample=3), len(world.lake.check_history("spend"))
    thread = threading.Thread(target=service.run)
    with monitored(service.metrics, MonitorAddress("127.0.0.1", 0)) as at:
        assert get(f"{at}/ready")[0] == 503

        def now() -> dict:
            return samples(get(f"{at}/metrics")[2])

        thread.start()
        try:
            until(lambda: now()["headwater_check_runs_total", (("result", "equal"),)] >= 2)
            found, rows = now(), len(world.rows())
            assert found["headwater_check_rows_equal", (("view", "spend"),)] == rows
            assert found["headwater_check_rows_compared_total", (("view", "spend"),)] >= 2 * rows
            assert found["headwater_check_receipts_replayed_total", (("view", "spend"),)] % 3 == 0
            assert abs(found["headwater_check_last_run_timestamp_seconds", (("view", "spend"),)] - time.time()) < 60
            assert get(f"{at}/ready")[0] == 200
            missing = "headwater_check_differences", (("cause", "missing online"), ("view", "spend"))
            assert found[missing] == 0
            with world.row(b"3", None):
                until(lambda: now()[missing] == 1)
            until(lambda: now()[missing] == 0)
            assert now()["headwater_check_runs_total", (("result", "defects"),)] >= 1
        finally:
            service.stop()
            thread.join(60)
    assert not thread.is_alive()
    assert len(world.lake.check_history("spend")) >= before + 4


def test_redis_away_is_said_once_and_tried_again(
    world: PlantedWorld, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def write(redis: str) -> None:
        config = feature_store_yaml(world.project, redis, world.kafka["bootstrap.servers"], None)
        (tmp_path / "feature_store.yaml").write_text(config)

    write(f"redis://127.0.0.1:{free_port()}/0")
    service = CheckService(load_repository(tmp_path), ["spend"], 0.1)
    for _ in range(3):
        service._once()
    assert caplog.text.count("Redis at 127.0.0.1:") == 1
    assert caplog.text.count("The check is tried again every 0.1 s.") == 1
    assert service.metrics.not_ready()[0].startswith("Redis at")
    service._repository = world.repository
    service._once()
    assert "The check is whole again." in caplog.text
    assert service.metrics.not_ready() == []


def test_a_view_that_is_not_there_ends_the_service(world: PlantedWorld) -> None:
    with pytest.raises(UsageError, match="No view 'spent' to check"):
        CheckService(world.repository, ["spent"], 60).run()


def test_the_command_logs_a_line_a_view_and_stops_in_order(world: PlantedWorld, start_headwater) -> None:
    process = start_headwater(
        "--log-format", "json", "check", "spend", "--every", "1h", "--metrics-port", 0, repo=world.root
    )
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert lines[0]["message"].startswith("Metrics: http://127.0.0.1:")
    assert lines[1]["message"].startswith("Checking project ")
    assert (lines[2]["view"], lines[2]["compared"], lines[2]["differences"]) == ("spend", len(world.rows()), {})
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--every", "5"), "--every: expected a duration such as"),
        (("--every", "5m", "--json"), "are for one check"),
        (("--metrics-port", "0"), "--metrics-port needs --every"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_use(world: PlantedWorld, args: tuple[str, ...], said: str) -> None:
    answer = run_cli("-C", str(world.root), "check", *args)
    assert (answer.code, said in answer.err) == (2, True)
