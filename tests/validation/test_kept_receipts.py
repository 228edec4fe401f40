"""Receipts that a server kept while values were served, replayed later: a row's whole life, not its last moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headwater.receipts.log import ReceiptLog, read_receipts
from headwater.receipts.receipt import Receipt
from headwater.serving.asgi import Application
from tests.history.log_factory import HOUR, make_feature
from tests.pipelines.stream_world import random_events, view_of
from tests.validation.planted_world import PlantedWorld

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
CUSTOMERS = range(8)


@pytest.fixture
def world(redis_url: str, kafka: str, tmp_path: Path) -> Iterator[PlantedWorld]:
    world = PlantedWorld(redis_url, kafka, tmp_path / "kept", events=60)
    yield world
    world.close()


def serve(world: PlantedWorld, times: int = 1) -> None:
    """A server that keeps every receipt answers this often, and stops."""

    async def ask() -> None:
        app = Application(world.redis_url, world.project, ReceiptLog(world.repository.state / "receipts", 1.0))
        asked = {"features": ["spend", "profile"], "entities": {"customer": [*CUSTOMERS, 99]}}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://serve") as http:
            for _ in range(times):
                answer = await http.post("/v1/features", json=asked)
                assert answer.status_code == 200, answer.text
                assert "receipts" not in answer.json()
        app._receipts.close()
        app._redis.close()

    asyncio.run(ask())


def more_events(world: PlantedWorld, seed: int) -> None:
    world.produce([{**e, "product": f"{e['product']}|a"} for e in random_events(40, seed=seed, customers=8)])
    world.catch_up()


def test_every_receipt_of_a_rows_life_is_replayed_from_the_lake(world: PlantedWorld) -> None:
    serve(world, times=3)
    for seed in (11, 12):
        more_events(world, seed)
        serve(world)
    # The sink has not come to the last ones yet.
    waits = world.check("spend", "--receipts", "--json").view("spend")
    assert waits["kept_receipts"]["kept"] == 40
    assert 24 <= waits["kept_receipts"]["equal"] < 40
    world.keep()
    # Another definition is served by now; what was served by the first stays provable.
    world.views = [world.hashed(view_of(features=(make_feature("count", name="n_2h", window=2 * HOUR),)))]
    world.publish()
    from pipelines.backfill import backfill

    assert backfill(world.lake, world.connection, world.kafka, world.project, ["spend"])[0].active
    serve(world)
    said = world.check("spend", "--receipts")
    assert (said.code, said.err) == (0, ""), said
    assert "receipts kept by servers: 48 of 48 equal, 32 of them different" in said.out
    assert world.check("spend", "--json").view("spend")["kept_receipts"]["kept"] == 0


def test_a_wrong_value_that_was_served_and_put_right_since_is_named(world: PlantedWorld) -> None:
    with world.row(b"3", world.miscounted(b"3")):
        serve(world)
    serve(world)
    said = world.check("spend", "--receipts", "--json")
    found = said.view("spend")
    assert (said.code, found["differences"]) == (1, {"defect": 1})
    [example] = found["examples"]
    assert (example["key"], example["entity"], example["cause"]) == ("3", "customer=3", "defect")
    assert "a served value is not what its events give" in example["detail"]
    assert found["kept_receipts"] == {"kept": 16, "equal": 15}


def test_receipts_whose_events_the_lake_has_lost_are_missing_in_lake(world: PlantedWorld) -> None:
    serve(world)
    with world.table(f"events/{world.topic}") as folder:
        sorted(folder.glob("*.parquet"), key=lambda f: f.stat().st_mtime)[0].unlink()
        found = world.check("spend", "--receipts", "--json").view("spend")
        assert set(found["differences"]) == {"missing in lake"}
        assert any("the lake has lost events that a served value was made of" in e["detail"] for e in found["examples"])


def test_all_servers_sample_the_same_keys_and_a_line_cut_off_is_left_out(world: PlantedWorld, tmp_path: Path) -> None:
    active = world.published().active["spend"]
    fill = json.loads(world.connection.command("GET", f"hw:fill:{world.project}:spend:{active.fill}"))
    from headwater.online.published import Fill

    kept = []
    for name in ("a", "b"):
        log = ReceiptLog(tmp_path / name, 0.25)
        log.learn(Fill(**fill), active.definition, world.source)
        log.keep(
            Receipt(
                "spend", {"customer": i}, str(i), 1, active.definition.state_hash, active.fill, {0: (0, i)}, "0" * 16
            )
            for i in range(400)
        )
        log.close()
        [file] = (tmp_path / name).iterdir()
        file.write_bytes(file.read_bytes() + b'["r",0,"cut')
        [(of, receipts)] = read_receipts(tmp_path / name)
        assert of.view == active.definition
        kept.append([r.key for r in receipts])
    assert kept[0] == kept[1]
    assert 60 < len(kept[0]) < 140
