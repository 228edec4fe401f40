"""/metrics, /health and /ready beside a loop: what they answer, and what is said where they cannot listen."""

from __future__ import annotations

import json
import random
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from headwater.errors import UsageError
from headwater.monitoring.endpoint import MonitorAddress, Turns, monitored
from headwater.monitoring.histograms import Histogram, histogram_family


class Loop:
    """A loop that does nothing; its label is as awkward as a topic's name may never be."""

    def __init__(self) -> None:
        self.turns, self.missing, self.histogram = Turns(), ["no plan is loaded"], Histogram((0.5, 1.0))

    def collect(self):
        family = GaugeMetricFamily("loop_things", "Things\nof a \\ loop.", labels=["name"])
        family.add_metric(['a "quoted"\n\\ name'], 3)
        yield family
        yield histogram_family("loop_seconds", "Times.", ("name",), {("x",): self.histogram})

    def not_ready(self) -> list[str]:
        return self.missing


def get(url: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type, body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = [s for family in text_string_to_metric_families(text) for s in family.samples]
    names = [(s.name, tuple(sorted(s.labels.items()))) for s in found]
    assert len(set(names)) == len(names), "a series twice"
    return dict(zip(names, (s.value for s in found), strict=True))


def test_metrics_are_prometheus_text_that_its_own_parser_reads() -> None:
    loop = Loop()
    loop.histogram.add(np.array([0.2, 0.5, 0.7, 3.0]))
    with monitored(loop, MonitorAddress("127.0.0.1", 0)) as at:
        status, kind, text = get(f"{at}/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    found = samples(text)
    assert found["loop_things", (("name", 'a "quoted"\n\\ name'),)] == 3
    buckets = [found["loop_seconds_bucket", (("le", le), ("name", "x"))] for le in ("0.5", "1.0", "+Inf")]
    assert buckets == [2, 3, 4]
    assert found["loop_seconds_count", (("name", "x"),)] == 4
    assert found["loop_seconds_sum", (("name", "x"),)] == pytest.approx(4.4)
    assert found["headwater_loop_age_seconds", ()] >= 0
    assert found["process_resident_memory_bytes", ()] > 0


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    with monitored(Loop(), MonitorAddress("127.0.0.1", 0)) as at:
        _, kind, text = get(f"{at}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_health_fails_when_the_loop_stands_still_and_only_then() -> None:
    loop = Loop()
    with monitored(loop, MonitorAddress("127.0.0.1", 0, stalled_after=30.0)) as at:
        assert get(f"{at}/health")[0] == 200
        loop.turns._last -= 31
        status, _, body = get(f"{at}/health")
        assert status == 503
        assert "has not turned for 31 s; 30 s are allowed" in json.loads(body)["detail"]
        loop.turns.turned()
        assert get(f"{at}/health")[0] == 200


def test_ready_names_what_is_missing() -> None:
    loop = Loop()
    with monitored(loop, MonitorAddress("127.0.0.1", 0)) as at:
        assert (get(f"{at}/ready")[0], json.loads(get(f"{at}/ready")[2])["missing"]) == (503, ["no plan is loaded"])
        loop.missing = []
        assert get(f"{at}/ready")[0] == 200


def test_another_path_names_those_that_there_are() -> None:
    with monitored(Loop(), MonitorAddress("127.0.0.1", 0)) as at:
        status, _, body = get(f"{at}/metric")
    assert status == 404
    assert "There are: /metrics, /health, /ready." in body


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"Cannot listen on 127.0.0.1:{port}: .*in use. .*--metrics-port"
        with pytest.raises(UsageError, match=said), monitored(Loop(), MonitorAddress("127.0.0.1", port)):
            pytest.fail("it listens")


def test_a_histogram_counts_a_batch_as_a_loop_over_its_values_does() -> None:
    pick = random.Random(5)
    for _ in range(50):
        bounds = sorted({pick.choice([0.1, 0.5, 1, 2, 5, 10, 50]) for _ in range(pick.randrange(1, 6))})
        batches = [[pick.choice([0.0, 0.1, 0.3, 1, 2, 2.5, 7, 60, -1]) for _ in range(pick.randrange(5))] for _ in "ab"]
        histogram = Histogram(bounds)
        for batch in batches:
            histogram.add(np.array(batch, np.float64))
        values = batches[0] + batches[1]
        assert [n for _, n in histogram.buckets()] == [*(sum(v <= b for v in values) for b in bounds), len(values)]
        assert histogram.sum == pytest.approx(sum(values))
