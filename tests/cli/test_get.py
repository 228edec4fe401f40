"""`headwater get` against a published shop: JSON lines, tables, files of entities, wrong use."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from headwater.cli import cli
from headwater.errors import HeadwaterError
from tests.online.published_shop import NOON, SPEND, Shop

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def shop(redis_url):
    shop = Shop(redis_url)
    yield shop
    shop.connection.close()


@pytest.fixture
def repository(shop, tmp_path):
    (tmp_path / "feature_store.yaml").write_text(
        f"project: {shop.project}\nprovider: local\nonline_store: {{type: headwater.feast.OnlineStore, redis: '{shop.url}'}}\n"
    )
    return tmp_path


@pytest.fixture
def get(repository, headwater_cli):
    def run(*args, check=True):
        return headwater_cli("get", *args, repo=repository, check=check)

    return run


def test_json_prints_one_object_a_row_in_order(get):
    answer = get(
        "--features", "spend:count_1h,profile", "--entity", "customer_id=3", "--entity", "customer_id=1",
        "--as-of", "2011-12-09T12:00:00Z", "--json",
    )  # fmt: skip
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert rows == [
        {
            "customer_id": 3, "spend__count_1h": 0, "profile__recency": None, "profile__name": None,
            "profile__joined": None, "profile__gold": None,
            "_status": {"spend": "NOT_FOUND", "profile": "NOT_FOUND"},
            "_as_of": {"spend": "2011-12-09T12:00:00.000000Z", "profile": "2011-12-09T12:00:00.000000Z"},
        },
        {
            "customer_id": 1, "spend__count_1h": 2, "profile__recency": 0.1, "profile__name": "Ada 🦆",
            "profile__joined": "2011-12-04T12:00:00.000000Z", "profile__gold": True,
            "_status": {"spend": "PRESENT", "profile": "PRESENT"},
            "_as_of": {"spend": "2011-12-09T12:00:00.000000Z", "profile": "2011-12-09T12:00:00.000000Z"},
        },
    ]  # fmt: skip


def test_receipts_are_printed_on_request(get):
    answer = get("--features", "spend:count_1h", "--entity", "customer_id=1", "--receipts", "--json")
    (receipt,) = json.loads(answer.stdout)["_receipts"].values()
    assert receipt["offsets"] == {"0": [0, 12]}
    assert (receipt["view"], receipt["key"], receipt["state_hash"]) == ("spend", "1", SPEND.state_hash)


def test_a_table_shows_features_below_their_view(get):
    answer = get("--service", "churn", "--entity", "customer_id=1", "--as-of", "2011-12-09T12:00:00Z")
    assert [line.split() for line in answer.stdout.splitlines()] == [
        ["customer_id=1"],
        ["spend", "PRESENT,", "as", "of", "2011-12-09T12:00:00.000000Z"],
        ["count_1h", "2"],
        ["country_last", "Spain"],
        ["profile", "PRESENT,", "as", "of", "2011-12-09T12:00:00.000000Z"],
        ["name", "Ada", "🦆"],
    ]


def test_a_file_of_entities_of_thousands_of_rows_has_its_own_times(get, tmp_path):
    ids = [i % 4 if i % 5 else None for i in range(12_000)]
    at = pa.array([NOON + i for i in range(12_000)], pa.timestamp("us"))
    pq.write_table(pa.table({"customer_id": ids, "at": at, "note": ["x"] * 12_000}), tmp_path / "e.parquet")
    answer = get("--features", "spend", "--entities", tmp_path / "e.parquet", "--json")
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [row["customer_id"] for row in rows] == ids
    assert [row["spend__count_1h"] for row in rows] == [{1: 2, 2: 1}.get(i, 0) for i in ids]
    assert rows[7]["_as_of"] == {"spend": "2011-12-09T12:00:00.000007Z"}
    assert "Ignored columns" in answer.stderr
    assert "note" in answer.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--features", "spend", "--entity", "customer_id=abc"], 2, "type int64: expected a whole number"),
        (["--features", "spend", "--entity", "customer=1"], 2, "Did you mean 'customer_id'"),
        (["--features", "spend", "--entity", "customer_id"], 2, "expected KEY=VALUE"),
        (["--features", "spent", "--entity", "customer_id=1"], 2, "Did you mean 'spend'"),
        (["--features", "later", "--entity", "customer_id=1"], 1, "unavailable"),
        (["--features", "spend"], 2, "--entity KEY=VALUE"),
        (["--entity", "customer_id=1"], 2, "--features VIEW:FEATURE"),
        (["--features", "spend", "--entity", "customer_id=1,customer_id=2"], 2, "'customer_id' is given twice"),
        (["--features", "spend", "--service", "churn", "--entity", "customer_id=1"], 2, "got both"),
        (["--features", "spend", "--entities", "no.parquet"], 2, "no.parquet: there is no such file"),
        (["--features", "spend", "--entities", __file__], 2, "not a Parquet file"),
        (
            ["--features", "spend", "--entity", "customer_id=1", "--as-of", "now"],
            2,
            "--as-of 'now': expected a time such as",
        ),
    ],
)
def test_wrong_use_says_what_is_wrong(repository, args, code, message):
    # In this process: a process each would take most of the tests' time. cli.main turns these into exit codes.
    answer = CliRunner().invoke(cli, ["-C", str(repository), "get", *args])
    assert isinstance(answer.exception, HeadwaterError)
    assert answer.exception.exit_code == code
    assert message in str(answer.exception)
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("times", "message"),
    [(["soon"], "in column 'at', 'soon': expected a time such as"), ([None], "column 'at', got null")],
)
def test_a_file_whose_times_are_none_says_which_column(repository, tmp_path, times, message):
    pq.write_table(pa.table({"customer_id": [1], "at": pa.array(times, pa.string())}), tmp_path / "e.parquet")
    args = ["get", "--features", "spend", "--entities", str(tmp_path / "e.parquet")]
    answer = CliRunner().invoke(cli, ["-C", str(repository), *args])
    assert message in str(answer.exception)


def test_a_date_is_a_time_to_read_at(get):
    answer = get("--features", "spend", "--entity", "customer_id=9", "--as-of", "2011-12-09", "--json")
    assert json.loads(answer.stdout)["_as_of"] == {"spend": "2011-12-09T00:00:00.000000Z"}


def test_a_value_with_a_comma_belongs_to_its_key(get):
    answer = get("--features", "demand", "--entity", "customer_id=2,country=a|b\\", "--json")
    assert json.loads(answer.stdout)["demand__count"] == 1
    answer = get("--features", "demand", "--entity", "country=Korea, South,customer_id=2", "--json")
    assert json.loads(answer.stdout)["country"] == "Korea, South"


def test_a_redis_that_is_away_ends_with_3(tmp_path, headwater_cli):
    (tmp_path / "feature_store.yaml").write_text("project: x\nonline_store: {redis: 'redis://127.0.0.1:1/0'}\n")
    args = ["get", "--features", "spend", "--entity", "customer_id=1"]
    assert headwater_cli(*args, repo=tmp_path, check=False).returncode == 3
