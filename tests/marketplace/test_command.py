"""`headwater catalog` as a process: it answers without any server, and says why where it cannot start."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson


def test_the_catalog_starts_without_redis_and_kafka_and_says_what_is_unknown(
    make_repository: Callable[..., Path], start_headwater: Any
) -> None:
    process = start_headwater("catalog", "--port", "0", repo=make_repository(servers=False))
    line = process.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert url, line
    with urllib.request.urlopen(url[0] + "health", timeout=30) as answer:
        health = orjson.loads(answer.read())
    assert health["status"] == "degraded"
    assert "No Redis runs" in health["problems"][0]
    with urllib.request.urlopen(url[0], timeout=30) as answer:
        assert b"Nothing is registered yet" in answer.read()


def test_a_port_in_use_is_wrong_use_and_names_the_option(
    make_repository: Callable[..., Path], headwater_cli: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = headwater_cli(
            "catalog", "--port", taken.getsockname()[1], repo=make_repository(servers=False), check=False
        )
    assert answer.returncode == 2
    assert "Choose another port with --port" in answer.stderr
