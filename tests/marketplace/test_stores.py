"""The real reader of facts: what it shows as parts come and go."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from headwater.errors import UsageError
from headwater.lake import Lake
from headwater.online.connection import Connection
from headwater.online.keys import plan_key
from headwater.online.published import Active, PublishedPlan
from headwater.plans.plan import CODEC_VERSION, Plan
from headwater.receipts.results import ViewCheck
from headwater.repository import load_repository
from marketplace.facts import Freshness, Unknown
from marketplace.stores import StoreFacts


def write_repository(root: Path, project: str, redis: str | None) -> Path:
    online = "{type: headwater.feast.OnlineStore" + (f", redis: '{redis}'" if redis else "") + "}"
    (root / "feature_store.yaml").write_text(
        f"project: {project}\nprovider: local\nregistry: .headwater/registry.db\nonline_store: {online}\n"
        "offline_store: {type: headwater.feast.OfflineStore}\nentity_key_serialization_version: 3\nheadwater: {}\n"
    )
    return root


@pytest.fixture
def shop(make_plan: Callable[..., Plan]) -> Plan:
    return make_plan()


@pytest.mark.redis
def test_a_published_plan_is_shown_with_its_checks_and_states(tmp_path: Path, redis_url: str, shop: Any) -> None:
    project = f"t{uuid.uuid4().hex[:8]}"
    plan = msgspec.structs.replace(shop, project=project)
    connection = Connection(redis_url)
    published = PublishedPlan(
        "1", plan, {"customer_spend": Active("f1", plan.view("customer_spend"))}, codec=CODEC_VERSION
    )
    connection.command("SET", plan_key(project), msgspec.json.encode(published))
    connection.close()
    repository = load_repository(write_repository(tmp_path, project, redis_url))
    check = ViewCheck("customer_spend", 1_700_000_000_000_000, 10, 10, 40, 40, {}, ())
    Lake(repository.lake).append_checks([check])
    facts = StoreFacts(lambda: repository).read()
    assert (facts.plan, facts.origin) == (plan, "the published plan")
    assert facts.measured("customer_spend").check == check
    assert facts.measured("customer_spend").state == "active"
    assert facts.measured("product_demand").state == "unavailable"
    assert facts.measured("product_demand").check == Unknown("no check was recorded yet; run 'headwater check'")
    assert facts.measured("customer_profile").freshness == Unknown("it was not materialized yet")
    assert facts.measured("customer_profile").lag == Unknown("a batch view reads no topic")


@pytest.mark.redis
def test_the_last_plan_stays_while_redis_is_away_and_nothing_counts_as_served(
    tmp_path: Path, own_redis: Any, shop: Any
) -> None:
    plan = msgspec.structs.replace(shop, project="away")
    connection = Connection(own_redis.url)
    published = PublishedPlan(
        "1", plan, {"customer_spend": Active("f1", plan.view("customer_spend"))}, codec=CODEC_VERSION
    )
    connection.command("SET", plan_key("away"), msgspec.json.encode(published))
    connection.close()
    repository = load_repository(write_repository(tmp_path, "away", own_redis.url))
    reader = StoreFacts(lambda: repository)
    assert reader.read().measured("customer_spend").state == "active"
    own_redis.stop()
    facts = reader.read()
    assert (facts.plan, facts.origin) == (plan, "the published plan as it was last read")
    assert isinstance(facts.measured("customer_spend").state, Unknown)
    assert isinstance(facts.measured("customer_spend").freshness, Unknown)
    own_redis.restart()
    assert reader.read().origin == "the published plan"


@pytest.mark.redis
def test_a_batch_view_is_as_fresh_as_its_newest_snapshot(tmp_path: Path, redis_url: str, shop: Any) -> None:
    project = f"t{uuid.uuid4().hex[:8]}"
    plan = msgspec.structs.replace(shop, project=project)
    connection = Connection(redis_url)
    connection.command("SET", plan_key(project), msgspec.json.encode(PublishedPlan("1", plan, {}, codec=CODEC_VERSION)))
    connection.close()
    repository = load_repository(write_repository(tmp_path, project, redis_url))
    hour = 3_600_000_000
    now = time.time_ns() // 1000
    for at in (now - hour, now - 5 * hour):
        table = pa.table({"customer_id": [1, 2], "frequency": [3, 4], "monetary": [1.0, None]})
        Lake(repository.lake).append_view_snapshot(plan.view("customer_profile"), table, at)
    fresh = StoreFacts(lambda: repository).read().measured("customer_profile").freshness
    assert isinstance(fresh, Freshness)
    assert 3_600_000 <= fresh.ms < 3_660_000


def test_redis_away_and_nothing_applied_is_an_empty_catalog_that_names_the_address(tmp_path: Path) -> None:
    root = write_repository(tmp_path, "shop", "redis://user:secret@127.0.0.1:1/0")
    facts = StoreFacts(lambda: load_repository(root)).read()
    assert (facts.plan, facts.plan_unknown) == (None, None)
    assert facts.problems == ("Online facts are unknown: Redis is not reachable at 127.0.0.1:1.",)


def test_a_configuration_that_breaks_later_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    root = write_repository(tmp_path, "shop", None)
    reader = StoreFacts(lambda: load_repository(root))
    (root / "feature_store.yaml").write_text("project: [")
    facts = reader.read()
    assert facts.project == "shop"
    assert facts.problems[0].startswith("The repository's configuration cannot be read: ")
    with pytest.raises(UsageError, match="not valid YAML"):
        StoreFacts(lambda: load_repository(root))
