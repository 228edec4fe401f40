"""Every program that a page shows runs: taken out of the HTML, as it stands, in a process of its own."""

from __future__ import annotations

import ast
import asyncio
import html
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketplace.app import repository_app
from marketplace.snippets import EntityRows, serving_snippet, training_snippet

DEFINITIONS = """
from feast import Entity, FeatureService, ValueType
from feast.types import Float64, Int64, UnixTimestamp

from headwater.definitions import Count, StreamSource, StreamView, Sum

buyer = Entity(name="buyer", join_keys=["buyer_id"], value_type=ValueType.INT64)
purchases = StreamSource(
    name="purchases", topic="catalog_purchases", event_time="at", key="buyer_id", tolerance="1d",
    schema={"buyer_id": Int64, "amount": Float64, "at": UnixTimestamp},
)
buyer_spend = StreamView(
    name="buyer_spend", entity=buyer, source=purchases, features=[Count(over=["30d"]), Sum("amount")],
    owner="growth@shop.example", description="What a buyer spent.",
)
loyalty = FeatureService(name="loyalty", features=[buyer_spend])
"""


def snippet_of(page: str, name: str) -> str:
    """The program in a page's <pre data-snippet=NAME>."""
    found = re.search(rf'<pre data-snippet="{name}"[^>]*><code>(.*?)</code></pre>', page, re.DOTALL)
    assert found, f"no snippet {name!r} on the page"
    return html.unescape(found[1])


def run_program(text: str, folder: Path) -> str:
    """What a program prints; it must end without an error."""
    answer = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"{text}\n{answer.stderr}"
    return answer.stdout


def get_page(root: Path, address: str) -> str:
    async def ask() -> str:
        transport = httpx.ASGITransport(repository_app(str(root)))
        async with httpx.AsyncClient(transport=transport, base_url="http://catalog") as client:
            for _ in range(20):
                response = await client.get(address)
                if response.status_code != 503:
                    break
                time.sleep(0.5)
            assert response.status_code == 200, response.text
            return response.text

    return asyncio.run(ask())


@pytest.fixture
def purchases(tmp_path: Path) -> Path:
    """Three purchases of the last hours, as a file: buyer 1 for 10.0 and 2.5, buyer 2 for 4.0."""
    now = datetime.now(UTC).replace(microsecond=0)
    table = pa.table({
        "buyer_id": [1, 2, 1],
        "amount": [10.0, 4.0, 2.5],
        "at": pa.array([now - timedelta(hours=3), now - timedelta(hours=2), now - timedelta(hours=1)],
                       pa.timestamp("us", "UTC")),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "purchases.parquet")
    return tmp_path / "purchases.parquet"


@pytest.mark.kafka
@pytest.mark.redis
def test_the_snippets_of_a_page_run_and_give_the_same_values(
    make_repository: Callable[..., Path], headwater_here: Any, purchases: Path, tmp_path: Path
) -> None:
    root = make_repository(definitions=DEFINITIONS)
    headwater_here("apply", repo=root)
    headwater_here("produce", "catalog_purchases", purchases, repo=root)
    headwater_here("stream", "--until-caught-up", repo=root)
    headwater_here("sink", "--until-caught-up", repo=root)
    for address in ("/views/buyer_spend", "/services/loyalty"):
        page = get_page(root, address)
        assert "placeholders" not in page
        rows = [ast.literal_eval(line) for line in run_program(snippet_of(page, "serving"), tmp_path).splitlines()]
        served = {row["buyer_id"]: (row["buyer_spend__count_30d"], row["buyer_spend__amount_sum"]) for row in rows}
        assert served == {1: (2, 12.5), 2: (1, 4.0)}
        trained = run_program(snippet_of(page, "training"), tmp_path)
        lines = {line.split()[0]: line.split()[1:] for line in trained.splitlines() if len(line.split()) == 3}
        buyers = [int(b) for b in lines["buyer_id"]]
        counts = [int(c) for c in lines["buyer_spend__count_30d"]]
        sums = [float(s) for s in lines["buyer_spend__amount_sum"]]
        assert {b: (c, s) for b, c, s in zip(buyers, counts, sums, strict=True)} == served


@pytest.mark.parametrize("name", ['say "hi"', "it's", "back\\slash", "line\nbreak", "plain", "\"'"])
def test_a_snippet_is_python_whatever_things_are_called(name: str) -> None:
    asked = EntityRows(({name: name}, {name: 1}), 1_700_000_000_000_000, True)
    for snippet in (training_snippet, serving_snippet):
        for service in (None, name):
            tree = ast.parse(snippet(name, [f"{name}:x"], service, asked))
            assert name in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
