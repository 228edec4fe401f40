"""`headwater check` beside its findings: what may be asked, what is kept, and what it says when there is nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pyarrow as pa
import pytest

from headwater.embedded.processes import free_port
from headwater.lake.records import Gap
from headwater.online.plan_store import load_published, publish
from headwater.plans.plan import Plan
from marketplace.app import repository_app
from tests.conftest import feature_store_yaml
from tests.history.log_factory import make_feature
from tests.in_process import run_cli
from tests.pipelines.stream_world import NOON, view_of
from tests.validation.planted_world import PROFILE, PlantedWorld

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


@pytest.fixture(scope="module")
def world(redis_url: str, kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedWorld]:
    world = PlantedWorld(redis_url, kafka, tmp_path_factory.mktemp("checked"), events=60)
    yield world
    world.close()


def at(root: Path, *args: str):
    return run_cli("-C", str(root), "check", *args)


def repository(root: Path, project: str, redis: str, kafka: str | None) -> Path:
    (root / "feature_store.yaml").write_text(feature_store_yaml(project, redis, kafka, None))
    return root


def test_a_sample_draws_so_many_receipts_and_compares_everything(world: PlantedWorld) -> None:
    rows = len(world.rows("recent"))
    for asked, drawn in ((3, 3), (10_000, rows)):
        found = world.check("recent", "--sample", str(asked), "--json").view("recent")
        assert found["receipts"] == {"drawn": drawn, "equal": drawn}
        assert found["recomputed"] == {"compared": rows, "equal": rows}


def test_only_the_named_views_are_checked_each_once(world: PlantedWorld) -> None:
    said = world.check("recent", "spend", "recent", "--json")
    assert [v["view"] for v in json.loads(said.out)["views"]] == ["recent", "spend"]


def test_an_unknown_view_is_wrong_use_with_the_nearest_names(world: PlantedWorld) -> None:
    said = world.check("spent")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Error: No view 'spent' to check. Did you mean 'spend'?")


def test_a_sample_of_nothing_is_wrong_use(world: PlantedWorld) -> None:
    assert world.check("--sample", "0").code == 2


def test_each_run_is_kept_and_the_catalog_and_status_show_the_last(world: PlantedWorld) -> None:
    before = len(world.lake.check_history("spend"))
    world.check("spend")
    with world.row(b"3", None):
        world.check("spend")
    history = world.lake.check_history("spend")
    assert len(history) == before + 2
    assert [(r.defects, r.compared - r.compared_equal) for r in history[:2]] == [(1, 1), (0, 0)]
    assert abs(history[0].checked_at - time.time_ns() // 1000) < 60_000_000
    assert world.lake.latest_checks()["spend"] == history[0]
    page, api = browse(world.root, "/views/spend"), browse(world.root, "/api/views/spend")
    assert "1 defect" in page
    assert "customer=3" in page
    assert "headwater repair spend --entity customer=3" in page
    assert json.loads(api)["check"]["differences"] == {"missing online": 1}
    assert "1 defect, " in line_of("spend", run_cli("-C", str(world.root), "status").out)
    world.check("spend")
    assert "defect" not in line_of("spend", run_cli("-C", str(world.root), "status").out)


def browse(root: Path, path: str) -> str:
    """A page of the catalog, by its own application."""
    import asyncio

    async def get() -> str:
        app = repository_app(str(root))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                answer = await client.get(path, timeout=30)
                assert answer.status_code == 200, answer.text
                return answer.text

    return asyncio.run(get())


def line_of(view: str, text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{view} "))


def test_lost_offsets_are_named_until_somebody_accepts_them(world: PlantedWorld) -> None:
    world.lake.append_gap(world.topic, Gap(0, 2, 4, 1_700_000_000_000_000))
    named = world.check("spend", "--json")
    assert (named.code, named.view("spend")["differences"]) == (1, {"missing in lake": 1})
    assert "spend partition 0: missing in lake: retention took events" in world.check("spend").out
    assert world.check("spend", "--accept-gaps").code == 0
    assert world.check("--json").code == 0


def test_a_view_that_is_filling_has_nothing_to_compare_and_says_so(world: PlantedWorld) -> None:
    later = world.hashed(msgspec.structs.replace(view_of(features=(make_feature("count", name="m"),)), name="later"))
    plan = Plan(world.project, (world.source,), (*world.plan.views, later))
    publish(world.connection, world.kafka, plan)
    published = load_published(world.connection, world.project)
    assert published is not None
    assert "later" in published.filling
    said = world.check("later")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("✓ later: receipts 0 of 0 equal, rows 0 of 0 equal\n    nothing of it is served yet")
    assert "later" not in world.lake.latest_checks()
    whole = world.check("--json")
    assert (whole.code, whole.view("later")["recomputed"]) == (0, {"compared": 0, "equal": 0})
    assert whole.view("spend")["recomputed"]["compared"] > 0
    world.publish()


def test_a_project_without_a_plan_without_views_and_without_events(redis_url: str, kafka: str, tmp_path: Path) -> None:
    world = PlantedWorld(redis_url, kafka, tmp_path / "empty", events=0)
    said = world.check("--json")
    assert (said.code, said.view("spend")["recomputed"]) == (0, {"compared": 0, "equal": 0})
    publish(world.connection, world.kafka, Plan(world.project))
    assert (world.check().code, world.check().out) == (0, "Nothing to check: the project has no view.\n")
    assert world.check("--json").out == '{"views":[]}\n'
    missing = at(repository(tmp_path, "nobody", redis_url, kafka))
    assert missing.code == 1
    assert missing.err == "Error: Project 'nobody' has no plan in Redis. Publish one with 'headwater apply'.\n"
    world.close()


def test_a_snapshot_that_is_just_being_published_is_no_difference(world: PlantedWorld) -> None:
    table = pa.table({"customer": [1, 2, 3, 4], "orders": [9, 9, 9, 9]})
    world.lake.append_view_snapshot(PROFILE, table, NOON + 1)
    publishing = threading.Timer(0.5, world.publish_rows, (table, NOON + 1))
    publishing.start()
    said = world.check("profile", "--json")
    publishing.join()
    assert (said.code, said.view("profile")["recomputed"]) == (0, {"compared": 4, "equal": 4})


def test_rows_past_the_lake_wait_for_a_sink_that_moves_and_not_for_one_that_stands_still(world: PlantedWorld) -> None:
    world.produce([{"customer": 3, "product": "p", "ts": NOON, "quantity": 1}], 0)
    world.catch_up()
    still = world.check("spend", "--json")
    assert (still.code, still.view("spend")["differences"], still.view("spend")["waiting"]) == (0, {}, 1)
    told = world.check("spend").out
    assert "1 row is not compared, because the sink has not kept its last events yet: customer=3" in told
    keeping = threading.Timer(0.5, world.keep)
    keeping.start()
    found = world.check("spend", "--json").view("spend")
    keeping.join()
    assert found["waiting"] == 0


def test_redis_away_is_exit_code_3(world: PlantedWorld, tmp_path: Path) -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    said = at(repository(tmp_path, world.project, away, world.kafka["bootstrap.servers"]))
    assert said.code == 3
    assert said.err.startswith("Error: Redis at 127.0.0.1:")


def test_with_kafka_away_the_rest_is_checked_and_the_exit_code_says_that_it_is_not_all(
    world: PlantedWorld, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.online.topic_facts.TIMEOUT", 1.0)
    repository(tmp_path, world.project, redis_url, f"127.0.0.1:{free_port()}")
    (tmp_path / ".headwater").symlink_to(world.root / ".headwater")
    said = at(tmp_path, "--json")
    assert (said.code, said.view("spend")["differences"]) == (3, {})
    assert said.err.startswith("Error: Kafka did not answer")
    assert "nothing is proven. Start Kafka, then check again." in said.err
    assert said.view("spend")["notes"] == [
        "Kafka was not asked: whether positions and events lie past the topic's end is not known."
    ]
    # A BatchView has no topic, so all of it was compared; and a defect is one, whoever is away.
    assert at(tmp_path, "profile").code == 0
    with world.row(b"3", None):
        found = at(tmp_path, "--json")
    assert (found.code, found.view("spend")["differences"]) == (1, {"missing online": 1})


def test_a_process_of_its_own_ends_with_the_code(world: PlantedWorld, headwater_cli) -> None:
    assert world.check().code == 0
    with world.row(b"3", None):
        answer = headwater_cli("check", "spend", repo=world.root, check=False)
    assert answer.returncode == 1
    assert "spend customer=3: missing online" in answer.stdout
