"""Quickstart from its first command to its last, twice, on a few thousand of the sample's events."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

from headwater.embedded.processes import is_alive
from headwater.embedded.servers import load_servers

CHECKOUT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(600)]


@pytest.fixture
def shop(tmp_path, headwater_cli):
    root = tmp_path / "shop"
    shutil.copytree(CHECKOUT / "feature_repo", root, ignore=shutil.ignore_patterns(".headwater*", "data"))
    sample = pq.read_table(CHECKOUT / "feature_repo" / "data" / "online_retail_sample.parquet")
    # Spread over all its weeks: the training set looks back further than any few thousand in a row.
    spread = list(range(0, sample.num_rows, sample.num_rows // 3_000))[:3_000]
    pq.write_table(sample.take(spread), tmp_path / "events.parquet")
    yield root
    headwater_cli("down", repo=root)


def _run(root: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "pipelines.quickstart",
        "--repository",
        root,
        "--data",
        root.parent / "events.parquet",
    ]
    answer = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_quickstart_goes_the_whole_way_and_a_second_run_starts_clean(shop, headwater_cli):
    told = _run(shop)

    assert re.search(r"events +3,000 from Kafka, [\d,]+ a second", told)
    assert re.search(r"freshness +p50 \d+ ms, p99 \d+ ms", told)
    for view in ("customer_spend", "product_demand", "product_country_demand"):
        equal, compared = re.search(rf"{view}: ([\d,]+) of ([\d,]+) rows compared are equal", told).groups()
        assert equal == compared != "0"
    assert "receipt of customer_spend" in told
    training = pq.read_table(shop / ".headwater" / "quickstart" / "training.parquet")
    for column in ("customer_spend__count_30d", "customer_profile__frequency"):
        assert any(training[column].to_pylist()), f"{column} is empty in the training set"
    assert set(training["churned"].to_pylist()) == {True, False}
    address, question = re.search(r"curl -s (\S+) -d '(.+)'", told).groups()
    with urlopen(address, question.encode(), timeout=10) as answer:
        assert json.load(answer)["results"]
    catalog = re.search(r"The catalog +(http://\S+)", told).group(1)
    with urlopen(catalog, timeout=10) as page:
        assert "customer_spend" in page.read().decode()

    first = load_servers(shop)
    assert {p.name for p in first.processes if is_alive(p)} == {"redis", "kafka", "worker", "sink", "server", "catalog"}
    assert "Starting clean" in _run(shop)
    assert not any(map(is_alive, first.processes))
    second = load_servers(shop)
    headwater_cli("down", repo=shop)
    assert not any(map(is_alive, second.processes))
