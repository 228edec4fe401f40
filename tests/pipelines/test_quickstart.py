"""Quickstart from its first command to its last on a few thousand of the sample's events, and how it begins anew."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

from headwater.embedded.processes import free_port, is_alive, send
from headwater.embedded.servers import load_servers
from pipelines.quickstart import claim_port, start_clean

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
    answer = _start(root)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def _start(root: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pipelines.quickstart",
        "--repository",
        root,
        *(["--data", root.parent / "events.parquet"] if (root.parent / "events.parquet").exists() else []),
    ]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_quickstart_goes_the_whole_way_and_the_next_one_starts_clean(shop, capsys):
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
    work = start_clean(shop)
    assert "Starting clean: removed" in capsys.readouterr().out
    assert not any(map(is_alive, first.processes))
    assert list((shop / ".headwater").rglob("*")) == [work]


@pytest.mark.soak
def test_quickstart_again_and_again_in_one_folder_even_after_kill_9(shop, headwater_cli):
    _run(shop)
    first = load_servers(shop)
    for process in first.processes:
        send(process, signal.SIGKILL)
    assert "Starting clean" in _run(shop)
    second = load_servers(shop)
    assert all(map(is_alive, second.processes))
    assert "Starting clean" in _run(shop)
    assert not any(map(is_alive, [*first.processes, *second.processes]))
    third = load_servers(shop)
    headwater_cli("down", repo=shop)
    assert not any(map(is_alive, third.processes))


def test_data_of_somebody_elses_making_is_moved_aside(tmp_path, capsys):
    (tmp_path / ".headwater" / "lake").mkdir(parents=True)
    start_clean(tmp_path)
    [kept] = tmp_path.glob(".headwater-kept-*")
    assert (kept / "lake").is_dir()
    assert "moved the data that was there" in capsys.readouterr().out


def test_a_port_that_another_quickstart_is_about_to_use_is_not_taken():
    usual = free_port()
    assert claim_port(usual) == usual
    assert claim_port(usual) != usual
    busy = socket.create_server(("127.0.0.1", 0))
    taken = busy.getsockname()[1]
    assert claim_port(taken) != taken
    busy.close()


def test_a_folder_that_cannot_be_written_to_is_one_error(tmp_path):
    (tmp_path / "shop").write_text("no folder")
    answer = _start(tmp_path / "shop")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == f"\nError: {tmp_path / 'shop' / '.headwater'}: Not a directory.\n"
