"""The worker and the sink, watched from outside while they work on real servers."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headwater.lake import Lake
from headwater.monitoring.endpoint import MonitorAddress, monitored
from headwater.plans.plan import Expectation
from pipelines.sink import Sink, SinkSettings
from tests.conftest import feature_store_yaml
from tests.monitoring.test_endpoint import get, samples
from tests.pipelines.stream_world import World, random_events

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
POSITIVE = Expectation("between", "price", minimum=0.0)
WRONG = [b"{", b'{"customer": "x"}']


@contextlib.contextmanager
def watched(metrics) -> Iterator[Callable[[str], tuple[int, str, str]]]:
    metrics.watch_lag()
    with monitored(metrics, MonitorAddress("127.0.0.1", 0)) as at:
        yield lambda path: get(f"{at}{path}")


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def by_label(found: dict, name: str, label: str) -> dict[str, float]:
    return {dict(labels)[label]: value for (n, labels), value in found.items() if n == name}


def test_a_worker_counts_what_it_does(redis_url: str, kafka: str) -> None:
    world = World(redis_url, kafka, partitions=2, expect=[POSITIVE])
    world.publish()
    events = random_events(200)
    quarantined = sum(e["price"] < 0 for e in events)
    assert quarantined > 0
    worker = world.worker()
    with watched(worker.metrics) as ask:
        assert (ask("/ready")[0], "no plan is loaded" in ask("/ready")[2]) == (503, True)
        with world.running_worker(worker):
            until(lambda: ask("/ready")[0] == 200)
            world.produce([*events, *WRONG])

            def found() -> dict:
                return samples(ask("/metrics")[2])

            def written() -> float:
                return by_label(found(), "headwater_stream_events_total", "topic").get(world.topic, 0)

            until(lambda: written() == 202)
            until(lambda: sum(by_label(found(), "headwater_stream_position", "partition").values()) == 202)
            until(lambda: by_label(found(), "headwater_stream_lag_events", "partition") == {"0": 0, "1": 0})
            now = found()
            assert by_label(now, "headwater_stream_dead_letters_total", "topic") == {world.topic: 2}
            assert by_label(now, "headwater_stream_quarantined_total", "topic") == {world.topic: quarantined}
            assert by_label(now, "headwater_stream_freshness_seconds_count", "view") == {"spend": 202}
            assert by_label(now, "headwater_stream_flush_seconds_count", "topic")[world.topic] >= 1
            assert now["headwater_stream_rebalances_total", ()] == 1
            assert ask("/health")[0] == 200


def test_lag_is_what_the_topic_has_and_the_rows_have_not(redis_url: str, kafka: str) -> None:
    world = World(redis_url, kafka, partitions=1)
    world.publish()
    world.produce(random_events(50))
    worker = world.worker()
    worker.metrics.watch_lag()
    worker.metrics.stand({}, {(world.topic, 0): 20})
    until(lambda: worker.metrics.stand({}, {(world.topic, 0): 20}) or worker.metrics._lag.ends)
    with watched(worker.metrics) as ask:
        until(lambda: worker.metrics.stand({}, {(world.topic, 0): 20}) or worker.metrics._lag.ends)
        assert by_label(samples(ask("/metrics")[2]), "headwater_stream_lag_events", "partition") == {"0": 30}
    worker.close()


def test_an_outage_is_counted_and_makes_the_worker_unready_but_not_unhealthy(own_redis, kafka: str) -> None:
    world = World(own_redis.url, kafka, partitions=1)
    world.publish()
    worker = world.worker()
    with watched(worker.metrics) as ask, world.running_worker(worker):
        until(lambda: ask("/ready")[0] == 200)
        own_redis.kill()
        until(lambda: ask("/ready")[0] == 503)
        assert json.loads(ask("/ready")[2])["missing"][0] == "Redis does not answer"
        now = samples(ask("/metrics")[2])
        assert by_label(now, "headwater_server_away", "server")["Redis"] == 1
        assert by_label(now, "headwater_outages_total", "server") == {"Redis": 1}
        # The loop asks Redis again and again: a restart of the worker would mend nothing.
        worker.metrics.turns._last -= 3600
        until(lambda: ask("/health")[0] == 200)
        own_redis.restart()
        until(lambda: ask("/ready")[0] == 200)


def test_conflicts_and_refusals_are_counted(redis_url: str, kafka: str) -> None:
    world = World(redis_url, kafka, partitions=1)
    world.publish()
    world.produce(random_events(50))
    fill = world.published().active["spend"].fill
    worker = world.worker()
    with watched(worker.metrics) as ask, world.running_worker(worker):
        until(lambda: ask("/ready")[0] == 200)
        until(lambda: worker.events == 50)
        # As a Redis that was cut back: the next script is refused, and all is read again.
        world.connection.command("SET", f"hw:pos:{world.project}:spend:{fill}:0", 10)
        world.produce(random_events(10))
        until(lambda: by_label(samples(ask("/metrics")[2]), "headwater_stream_refusals_total", "view") == {"spend": 1})
        world.wait_until_caught_up()
        assert samples(ask("/metrics")[2])["headwater_stream_restarts_total", ()] >= 2
    world.assert_equal_to_the_slow_loop()


def test_a_sink_counts_what_it_keeps(redis_url: str, kafka: str, tmp_path: Path) -> None:
    world = World(redis_url, kafka, partitions=2, expect=[POSITIVE])
    world.publish()
    events = random_events(100)
    world.produce([*events, *WRONG])
    sink = Sink(redis_url, world.kafka, Lake(str(tmp_path)), world.project, SinkSettings(every=0.1))
    with watched(sink.metrics) as ask:
        assert ask("/ready")[0] == 503
        done: list[bool] = []

        def kept() -> bool:
            now = samples(ask("/metrics")[2])
            done[:] = [sum(by_label(now, "headwater_sink_position", "partition").values()) == 102]
            lag = by_label(now, "headwater_sink_lag_events", "partition")
            return done[0] and lag == {"0": 0, "1": 0}

        sink.run(until=kept)
        now = samples(ask("/metrics")[2])
        assert by_label(now, "headwater_sink_records_total", "topic") == {world.topic: 102}
        assert by_label(now, "headwater_sink_dead_letters_total", "topic") == {world.topic: 2}
        quarantined = sum(e["price"] < 0 for e in events)
        assert by_label(now, "headwater_sink_quarantined_total", "topic") == {world.topic: quarantined}
        assert by_label(now, "headwater_sink_delay_seconds_count", "topic") == {world.topic: 102}
        assert ask("/ready")[0] == 200


def test_the_commands_say_where_they_answer_and_log_json(redis_url: str, kafka: str, tmp_path, start_headwater) -> None:
    world = World(redis_url, kafka, partitions=1)
    world.publish()
    (tmp_path / "feature_store.yaml").write_text(feature_store_yaml(world.project, redis_url, kafka, None))
    for command in ("stream", "sink"):
        process = start_headwater("--log-format", "json", command, "--metrics-port", 0, repo=tmp_path)
        first = json.loads(line_with("Metrics: ", process))["message"]
        at = first.split()[1].removesuffix("/metrics,")
        until(lambda at=at: get(f"{at}/ready")[0] == 200)
        assert f"headwater_{command}_restarts_total" in get(f"{at}/metrics")[2]
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=120)[0].splitlines()
        assert process.returncode == 0
        assert {"seconds", "time", "message"} <= json.loads(rest[-1]).keys()


def line_with(text: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    pytest.fail(f"the process ended without saying {text!r}")


def test_a_port_that_is_taken_ends_the_command_with_one_line(
    redis_url: str, kafka: str, tmp_path, headwater_cli
) -> None:
    (tmp_path / "feature_store.yaml").write_text(feature_store_yaml("t", redis_url, kafka, None))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in ("stream", "sink"):
            said = headwater_cli(command, "--metrics-port", port, repo=tmp_path, check=False)
            assert said.returncode == 2
            assert said.stderr.startswith(f"Error: Cannot listen on 127.0.0.1:{port}: Address already in use.")
            assert len(said.stderr.splitlines()) == 1
    said = headwater_cli("stream", "--metrics-host", "0.0.0.0", repo=tmp_path, check=False)
    assert (said.returncode, "--metrics-host needs --metrics-port" in said.stderr) == (2, True)
