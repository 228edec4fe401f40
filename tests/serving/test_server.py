"""`headwater serve`, a real process asked over HTTP."""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.online.published_shop import NOON, SPEND, Shop

pytestmark = pytest.mark.redis

PRESENT = ["PRESENT", "PRESENT"]
EPOCH = ["1970-01-01T00:00:00Z"] * 2


def write_repository(folder, project, redis):
    (folder / "feature_store.yaml").write_text(f"project: {project}\nonline_store: {{redis: '{redis}'}}\n")
    return [sys.executable, "-m", "headwater", "-C", str(folder), "serve", "--port", "0"]


def start(command):
    """The process and its address."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return process, found[0]
    raise AssertionError("the server ended before it served")


def end(process):
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture(scope="module")
def shop(redis_url):
    shop = Shop(redis_url)
    yield shop
    shop.connection.close()


@pytest.fixture(scope="module")
def http(shop, tmp_path_factory):
    process, address = start(write_repository(tmp_path_factory.mktemp("serve"), shop.project, shop.url))
    with httpx.Client(base_url=address) as client:
        yield client
    end(process)


def test_feast_s_request_gets_feast_s_response(http):
    answer = http.post(
        "/get-online-features",
        json={
            "features": ["spend:count_1h", "spend:quantity_sum_1h", "profile:name", "profile:joined"],
            "entities": {"customer_id": [1, 3]},
            "full_feature_names": True,
            "as_of": "2011-12-09T12:00:00Z",
        },
    )
    assert answer.status_code == 200
    missing = ["PRESENT", "NOT_FOUND"]
    spent, snapped = (
        ["2011-12-09T11:40:00Z", "1970-01-01T00:00:00Z"],
        ["2011-12-09T11:00:00Z", "1970-01-01T00:00:00Z"],
    )
    assert answer.json() == {
        "metadata": {
            "feature_names": [
                "customer_id", "spend__count_1h", "spend__quantity_sum_1h", "profile__name", "profile__joined",
            ]
        },
        "results": [
            {"values": [1, 3], "statuses": PRESENT, "event_timestamps": EPOCH},
            {"values": [2, 0], "statuses": missing, "event_timestamps": spent},
            {"values": [5, None], "statuses": missing, "event_timestamps": spent},
            {"values": ["Ada 🦆", None], "statuses": missing, "event_timestamps": snapped},
            {"values": [(NOON - 5 * 86_400_000_000) // 1_000_000, None], "statuses": missing, "event_timestamps": snapped},
        ],
    }  # fmt: skip


def test_a_null_value_and_a_value_too_old_have_their_own_statuses(http, shop):
    ask = {"features": ["profile:recency"], "entities": {"customer_id": [2]}}
    when = {"young": NOON - 2 * 86_400_000_000, "old": NOON}
    statuses = {
        name: http.post("/get-online-features", json={**ask, "as_of": at}).json()["results"][1]["statuses"]
        for name, at in when.items()
    }
    assert statuses == {"young": ["NULL_VALUE"], "old": ["OUTSIDE_MAX_AGE"]}


def test_a_service_is_read_by_its_name_and_receipts_come_on_request(http):
    ask = {"feature_service": "churn", "features": [], "entities": {"customer_id": [1]}, "receipts": True}
    answer = http.post("/get-online-features", json=ask).json()
    assert answer["metadata"]["feature_names"] == ["customer_id", "count_1h", "country_last", "name"]
    (receipt,) = answer["receipts"]["spend"]
    assert (receipt["key"], receipt["offsets"], receipt["state_hash"]) == ("1", {"0": [0, 12]}, SPEND.state_hash)


def test_the_compact_api_answers_columns(http):
    ask = {"service": "churn", "entities": [{"customer_id": 1}, {"customer_id": None}], "as_of": [NOON, NOON + 1]}
    assert http.post("/v1/features", json=ask).json() == {
        "columns": {
            "customer_id": [1, None], "spend__count_1h": [2, 0], "spend__country_last": ["Spain", None],
            "profile__name": ["Ada 🦆", None],
        },
        "statuses": {"spend": ["PRESENT", "NOT_FOUND"], "profile": ["PRESENT", "NOT_FOUND"]},
        "as_of": {
            "spend": ["2011-12-09T12:00:00.000000Z", "2011-12-09T12:00:00.000001Z"],
            "profile": ["2011-12-09T12:00:00.000000Z", "2011-12-09T12:00:00.000001Z"],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/features", {"features": ["spent"], "entities": {"customer_id": [1]}}, 404, "Did you mean 'spend'"),
        ("/v1/features", {"features": ["spend"], "entities": {"customer_id": ["x"]}}, 400, "of type int64"),
        ("/v1/features", {"feature": ["spend"], "entities": {}}, 400, "unknown field `feature`"),
        ("/v1/features", {"features": ["later"], "entities": {"customer_id": [1]}}, 503, "unavailable"),
        ("/get-online-features", {"features": ["spend"]}, 400, "missing required field `entities`"),
        ("/get-online-features", {"entities": {"customer_id": [1]}}, 400, "one of the two"),
        ("/get-online-features", None, 400, "JSON is malformed"),
        ("/nowhere", {}, 404, "No such path"),
    ],
)
def test_an_error_is_json_with_its_status(http, path, body, status, message):
    answer = http.post(path, content=b"{nonsense" if body is None else json.dumps(body))
    assert answer.status_code == status
    assert message in answer.json()["detail"]


def test_another_method_and_a_body_without_end_are_refused(http):
    answer = http.get("/get-online-features")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert http.post("/v1/features", content=b" " * (17 << 20)).status_code == 413


def test_health_and_readiness_are_told(http, shop):
    health = http.get("/health")
    assert (health.status_code, health.json()["redis"], health.json()["plan"]) == (200, True, shop.plan.id)
    assert health.json()["plan_age_seconds"] >= 0
    assert http.get("/ready").json() == {"status": "ready", "views": ["demand", "profile", "spend"]}


def test_requests_at_once_do_not_get_each_other_s_answers(http):
    def ask(i):
        body = {"features": ["spend:count_1h", "profile:name"], "entities": {"customer_id": [i % 4] * (1 + i % 3)}}
        columns = http.post("/v1/features", json={**body, "as_of": NOON}).json()["columns"]
        return columns["customer_id"], columns["spend__count_1h"]

    with ThreadPoolExecutor(16) as pool:
        for i, (ids, counts) in enumerate(pool.map(ask, range(400))):
            assert ids == [i % 4] * (1 + i % 3)
            assert counts == [{1: 2, 2: 1}.get(i % 4, 0)] * (1 + i % 3)


def test_the_server_survives_lost_connections_and_says_when_redis_is_away(tmp_path, own_redis):
    shop = Shop(own_redis.url)
    process, address = start(write_repository(tmp_path, shop.project, own_redis.url))
    ask = {"features": ["spend:count_1h"], "entities": {"customer_id": [1]}, "as_of": NOON}
    try:
        with httpx.Client(base_url=address) as http:
            shop.connection.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert http.post("/v1/features", json=ask).json()["columns"]["spend__count_1h"] == [2]
            own_redis.stop()
            assert http.post("/v1/features", json=ask).status_code == 503
            assert http.get("/health").status_code == 503
            assert http.get("/ready").status_code == 503
            own_redis.restart()
            assert http.get("/health").json()["redis"] is True
            assert http.post("/v1/features", json=ask).json()["columns"]["spend__count_1h"] == [2]
    finally:
        shop.connection.close()
        end(process)


def test_a_redis_that_is_away_at_the_start_ends_with_3(tmp_path):
    command = write_repository(tmp_path, "x", "redis://127.0.0.1:1/0")
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert answer.returncode == 3
    assert "127.0.0.1:1" in answer.stderr


def test_a_port_that_is_taken_is_wrong_use(tmp_path, shop, http):
    command = [*write_repository(tmp_path, shop.project, shop.url)[:-1], str(http.base_url.port)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert answer.returncode == 2
    assert "--port" in answer.stderr


@pytest.mark.parametrize(
    ("place", "advice"), [(["--host", "192.0.2.1"], "with --host"), (["--port", "99999"], "0<=x<=65535")]
)
def test_an_address_that_is_none_is_wrong_use(tmp_path, shop, place, advice):
    command = [*write_repository(tmp_path, shop.project, shop.url), *place]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert answer.returncode == 2
    assert advice in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_is_no_error(tmp_path, shop, number):
    process, address = start(write_repository(tmp_path, shop.project, shop.url))
    assert httpx.get(f"{address}/health").json()["redis"] is True
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")


def test_the_server_imports_no_feast(tmp_path):
    code = (
        "import sys, headwater.serving.server; print([m for m in ('feast', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
