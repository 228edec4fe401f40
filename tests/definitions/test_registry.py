"""Definitions survive Feast's registry: what is read back compiles to the plan that was written."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner
from feast import FeatureStore

from headwater.definitions import facts
from headwater.definitions.registry import load_settled, registry_plan, write_registry
from headwater.errors import DefinitionErrors
from headwater.plans.diff import differences
from headwater.plans.plan import Plan
from headwater.repository import Repository, load_repository
from tests.in_process import run_cli

SHOP = Path(__file__).resolve().parents[2] / "feature_repo"
STORE = """
project: shop
provider: local
registry: {registry}
online_store: {{type: sqlite, path: .headwater/online.db}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""


def make_shop(folder: Path, registry: str = ".headwater/registry.db") -> Repository:
    """The shop's definitions on Feast's own stores, so that nothing is published."""
    shutil.copy(SHOP / "definitions.py", folder / "definitions.py")
    (folder / "feature_store.yaml").write_text(STORE.format(registry=registry))
    return load_repository(folder)


def edit(repository: Repository, old: str, new: str) -> None:
    path = repository.root / "definitions.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def applied(repository: Repository) -> Plan:
    contents, plan = load_settled(repository)
    write_registry(repository, contents)
    return plan


@pytest.mark.parametrize(
    "registry", [".headwater/registry.db", "{registry_type: sql, path: 'sqlite:///{folder}/registry.sqlite'}"]
)
def test_the_shops_plan_comes_back_from_the_registry(tmp_path: Path, registry: str) -> None:
    repository = make_shop(tmp_path, registry.replace("{folder}", str(tmp_path)))
    assert registry_plan(repository) is None
    assert registry_plan(repository) is None, "looking makes nothing"

    plan = applied(repository)

    assert registry_plan(repository) == plan
    assert {v.name for v in plan.views} == {
        "customer_profile", "customer_spend", "product_country_demand", "product_demand"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('Last("invoice_ts"),', ""),
        ('tolerance="1d"', 'tolerance="2d"'),
        ("entities=[product, market]", "entities=[market, product]"),
        ('freshness="10s"', 'freshness="20s"'),
        ('"tier": "silver"', '"tier": "bronze"'),
        ("quantity > 0 AND invoice_ts < :as_of", "invoice_ts < :as_of"),
        ('["recency_days", "frequency", "monetary"]', '["monetary"]'),
        ('ttl="30d"', 'ttl="31d"'),
    ],
)
def test_any_edit_is_a_difference_until_it_is_applied(tmp_path: Path, old: str, new: str) -> None:
    repository = make_shop(tmp_path)
    before = applied(repository)
    edit(repository, old, new)

    after = applied(repository)

    assert differences(before, after) != []
    assert differences(registry_plan(repository), after) == []


def test_what_is_removed_from_the_files_is_removed_from_the_registry(tmp_path: Path) -> None:
    repository = make_shop(tmp_path)
    applied(repository)
    path = repository.root / "definitions.py"
    text = path.read_text()
    path.write_text(text[: text.index("churn = FeatureService")])
    applied(repository)
    plan = registry_plan(repository)
    assert plan is not None
    assert plan.services == ()


def test_a_wrong_definition_writes_nothing(tmp_path: Path) -> None:
    repository = make_shop(tmp_path)
    edit(repository, 'Sum("amount", over=["30d"])', 'Sum("amont", over=["30d"])')
    with pytest.raises(DefinitionErrors, match="no column 'amont'"):
        applied(repository)
    assert not (tmp_path / ".headwater").exists()


@pytest.mark.filterwarnings("ignore")
def test_feasts_sdk_reads_the_views_with_their_schema_and_facts(tmp_path: Path) -> None:
    repository = make_shop(tmp_path)
    applied(repository)
    store = FeatureStore(repo_path=str(tmp_path))
    view = store.get_stream_feature_view("customer_spend")
    assert {f.name: str(f.dtype) for f in view.features}["amount_sum_1h"] == "Float64"
    assert [f.name for f in view.entity_columns] == ["customer_id"]
    assert facts.facts_of(view).where == "customer_id IS NOT NULL AND quantity > 0"
    assert store.get_data_source("invoice_lines").topic == "invoice_lines"
    profile = store.get_feature_view("customer_profile")
    assert {f.name: str(f.dtype) for f in profile.features} == {
        "recency_days": "Int64", "frequency": "Int64", "monetary": "Float64", "basket_value": "Float64",
    }  # fmt: skip
    service = store.get_feature_service("churn")
    assert [p.name for p in service.feature_view_projections] == ["customer_spend", "customer_profile"]


def feast_apply(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`feast apply` in this process, which has imported Feast; tests/plans/test_apply.py starts the program itself."""
    from feast.cli.cli import cli

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(cli, ["apply"])
    sys.modules.pop("definitions", None)
    assert done.exit_code == 0, done.output


def test_after_feast_apply_a_fresh_plan_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_shop(tmp_path)
    feast_apply(tmp_path, monkeypatch)

    plan = run_cli("-C", str(tmp_path), "plan")
    assert (plan.code, plan.out) == (0, "")
    assert "Nothing changes" in plan.err
    assert registry_plan(repository) is not None


def test_feast_apply_of_a_service_given_as_text_leaves_no_difference(tmp_path: Path) -> None:
    repository = make_shop(tmp_path)
    path = repository.root / "definitions.py"
    text = path.read_text()
    text = text[: text.index("churn = FeatureService")]
    path.write_text(text + 'm = FeatureService(name="m", features=["customer_spend:count_1h", "customer_profile"])\n')
    plan = applied(repository)
    assert registry_plan(repository) == plan
    assert [view for view, _ in plan.service("m").features] == ["customer_spend", "customer_profile"]
