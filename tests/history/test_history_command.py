"""`headwater history` as a process: files in, files out, exit codes."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.cli import cli
from headwater.definitions.registry import load_settled, write_registry
from headwater.errors import UsageError
from headwater.lake import Lake
from headwater.repository import load_repository
from tests.history.shop import DEFINITIONS, fill_lake


@pytest.fixture(scope="module")
def repo(make_repository):
    """Applied to the registry alone: training needs neither broker nor Redis."""
    root = make_repository(definitions=DEFINITIONS, servers=False)
    contents, plan = load_settled(load_repository(root))
    write_registry(load_repository(root), contents)
    fill_lake(Lake(load_repository(root).lake), plan.source("lines"))
    return root


@pytest.fixture
def spine(tmp_path):
    at = pa.array([dt.datetime(2011, 12, 9, 12)] * 3, pa.timestamp("us"))
    pq.write_table(
        pa.table({"customer_id": [1, None, 1], "event_timestamp": at, "row": ["a", "b", "c"]}), tmp_path / "s.parquet"
    )
    return tmp_path / "s.parquet"


def test_a_service_becomes_a_file_with_the_spine_and_its_features(repo, spine, tmp_path, headwater_cli):
    out = tmp_path / "out.parquet"
    said = headwater_cli("history", spine, "--service", "churn", "-o", out, repo=repo)
    assert "3 rows" in said.stdout
    table = pq.read_table(out)
    assert table.select(["customer_id", "event_timestamp", "row"]).equals(pq.read_table(spine))
    assert table["spend__count_1d"].to_pylist() == [2, 0, 2]
    assert table.column_names[3:] == ["spend__count_1d", "profile__lines", "profile__favourite"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet", "s.parquet"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--features", "spent"], "Did you mean 'spend'"),
        (["--service", "chrun"], "Did you mean 'churn'"),
        ([], "either --features VIEW:FEATURE,… or --service NAME"),
        (["--features", "pairs"], "no column 'stock_code', a join key of view 'pairs'"),
    ],
)
def test_wrong_use_says_why_and_leaves_the_old_file(repo, spine, tmp_path, arguments, said):
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")
    with pytest.raises(UsageError) as refused:
        run_here(repo, "history", spine, *arguments, "-o", out)
    assert said in str(refused.value)
    assert refused.value.exit_code == 2
    assert out.read_bytes() == b"old"


def test_a_missing_spine_is_wrong_use(repo, tmp_path):
    with pytest.raises(UsageError, match=r"There is no file .*no\.parquet"):
        run_here(repo, "history", tmp_path / "no.parquet", "--features", "spend", "-o", tmp_path / "o.parquet")


def run_here(repo, *arguments):
    """The command in this process: a process of its own would import Feast again for every case."""
    cli(["-C", str(repo), *map(str, arguments)], prog_name="headwater", standalone_mode=False)
