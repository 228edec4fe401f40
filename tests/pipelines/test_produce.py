"""Producing, and the two listings of what came of it, on a real broker through the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.online.connection import Connection
from headwater.online.plan_store import publish
from headwater.plans.plan import Expectation, Field, Plan, Source
from headwater.repository import load_repository

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SALES = Source(
    name="sales", topic="produce-sales", event_time="at", key="customer", tolerance=86_400_000_000,
    fields=(Field("at", "timestamp"), Field("customer", "int64"), Field("price", "float64"), Field("code", "string"),
            Field("blob", "bytes")),
    expectations=(Expectation("between", "price", 0, None),),
)  # fmt: skip


@pytest.fixture
def repo(make_repository: Callable[..., Path], kafka: str) -> Iterator[Path]:
    """A repository whose only source is SALES, its topic new and of one partition."""
    root: Path = make_repository(definitions="")
    admin = AdminClient({"bootstrap.servers": kafka})
    names = [SALES.topic, SALES.topic + ".dead-letters"]
    for done in admin.create_topics([NewTopic(n, 1, 1) for n in names]).values():
        done.result(20)
    repository = load_repository(root)
    with Connection(repository.need_redis()) as connection:
        publish(connection, repository.kafka, Plan(repository.project, sources=(SALES,)))
    yield root
    for done in admin.delete_topics(names).values():
        done.result(20)
    while set(names) & set(admin.list_topics(timeout=10).topics):
        time.sleep(0.02)


def records(kafka: str, count: int) -> list[tuple[bytes | None, dict[str, object]]]:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "test", "auto.offset.reset": "error"})
    consumer.assign([TopicPartition(SALES.topic, 0, 0)])
    out: list[tuple[bytes | None, dict[str, object]]] = []
    while len(out) < count:
        out += [(m.key(), json.loads(m.value())) for m in consumer.consume(count - len(out), timeout=10)]
    consumer.close()
    return out


def test_rows_become_json_events_in_file_order_with_keys(repo: Path, kafka: str, headwater_here: Callable) -> None:
    file = repo / "sales.parquet"
    pq.write_table(pa.table({
        "at": pa.array([datetime(2011, 12, 9, 12, 50), datetime(2011, 12, 9, 12, 50, 0, 123456)], pa.timestamp("us")),
        "customer": pa.array([7, None], pa.int32()), "price": [1.5, float("nan")], "code": ['é"\n', None],
        "blob": [b"\xff", None], "other": [1, 2],
    }), file)  # fmt: skip
    headwater_here("produce", file, repo=repo)
    assert records(kafka, 2) == [
        (b"7", {"at": "2011-12-09T12:50:00Z", "customer": 7, "price": 1.5, "code": 'é"\n', "blob": "/w=="}),
        (None, {"at": "2011-12-09T12:50:00.123456Z", "customer": None, "price": None, "code": None, "blob": None}),
    ]


def test_what_is_produced_comes_back_from_the_lake_as_it_was(repo: Path, headwater_here: Callable) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    zoned = [now - timedelta(days=400, minutes=n) for n in range(500)]
    sales = pa.table({
        "at": pa.array(zoned, pa.timestamp("us")), "customer": list(range(500)), "price": [n / 7 for n in range(500)],
        "code": [None if n % 5 == 0 else f"c{n}" for n in range(500)], "blob": [bytes([n % 256]) for n in range(500)],
    })  # fmt: skip
    pq.write_table(sales, repo / "sales.parquet")
    headwater_here("produce", SALES.topic, repo / "sales.parquet", repo=repo)
    headwater_here("sink", "--until-caught-up", repo=repo)
    headwater_here("events", SALES.topic, "-o", repo / "out.parquet", repo=repo)
    out = pq.read_table(repo / "out.parquet")
    assert out.column_names == [*sales.column_names, "_partition", "_offset", "_broker_time", "_arrived_at"]
    assert out["_offset"].to_pylist() == list(range(500))
    for name in ("customer", "price", "code", "blob"):
        assert out[name].to_pylist() == sales[name].to_pylist()
    assert out["at"].cast(pa.int64()).to_pylist() == sales["at"].cast(pa.int64()).to_pylist()


def test_shift_to_now_moves_by_whole_days_and_not_into_the_future(
    repo: Path, kafka: str, headwater_here: Callable
) -> None:
    times = [datetime(2011, 12, 9, 23, 59, 59), datetime(2011, 12, 1, 0, 0, 1)]
    file = repo / "sales.parquet"
    pq.write_table(pa.table({"at": pa.array(times, pa.timestamp("us")), "customer": [1, 2]}), file)
    headwater_here("produce", file, "--shift-to-now", repo=repo)
    newest, other = (datetime.fromisoformat(str(e["at"])) for _, e in records(kafka, 2))
    assert newest - other == times[0] - times[1]
    assert (newest.hour, newest.minute, newest.second) == (23, 59, 59)
    assert timedelta(0) <= datetime.now(UTC) - newest < timedelta(days=1, minutes=5)


def test_rate_paces_the_events(repo: Path, headwater_here: Callable) -> None:
    file = repo / "sales.parquet"
    pq.write_table(pa.table({"at": pa.array([datetime(2011, 1, 1)] * 60, pa.timestamp("us"))}), file)
    answer = headwater_here("produce", file, "--rate", "40", repo=repo)
    seconds = float(answer.stdout.split(" in ")[1].split(" s ")[0])
    assert 1.3 <= seconds < 5


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"customer": [1]}, "has its event time in 'at'; the file has no such column"),
        ({"at": [1], "customer": [1.5]}, "Column 'customer' of the file is Float64; source 'sales' expects int64"),
        ({"at": [1], "code": [1]}, "Column 'code' of the file is Int64; source 'sales' expects string"),
    ],
)
def test_a_file_that_does_not_fit_is_wrong_use(
    repo: Path, headwater_here: Callable, columns: dict[str, list[object]], said: str
) -> None:
    pq.write_table(pa.table(columns), repo / "sales.parquet")
    answer = headwater_here("produce", repo / "sales.parquet", repo=repo, check=False)
    assert answer.returncode == 2
    assert said in answer.stderr


def test_unknown_topics_and_files_are_wrong_use_and_an_absent_broker_is_3(
    repo: Path, headwater_here: Callable, impatient: None
) -> None:
    file = repo / "sales.parquet"
    pq.write_table(pa.table({"at": [1]}), file)
    answer = headwater_here("produce", "sale", file, repo=repo, check=False)
    assert (answer.returncode, "No source has the topic 'sale'" in answer.stderr) == (2, True)
    answer = headwater_here("produce", repo / "none.parquet", repo=repo, check=False)
    assert (answer.returncode, "There is no file" in answer.stderr) == (2, True)
    config = repo / "feature_store.yaml"
    config.write_text(config.read_text().replace(load_repository(repo).kafka["bootstrap.servers"], "127.0.0.1:1"))
    answer = headwater_here("produce", file, repo=repo, check=False)
    assert (answer.returncode, "Kafka did not answer" in answer.stderr) == (3, True)


def test_rejected_events_are_listed_once_with_their_reasons(repo: Path, kafka: str, headwater_here: Callable) -> None:
    from headwater.events.admission import Rejected
    from pipelines.dead_letters import DeadLetters

    producer = Producer({"bootstrap.servers": kafka})
    for value in (b'{"at": 5, "price": 1}', b"{", b'{"at": 5, "price": -1}', b"\xff", None):
        producer.produce(SALES.topic, value)
    producer.flush(20)
    letters = DeadLetters(load_repository(repo).kafka)
    # As a worker that crashed between the dead letters and the position does: twice, and before the sink.
    for _ in range(2):
        letters.send(SALES.topic, [Rejected(1, 0, 1, "dead-letter", "truncated", b"{")])
    letters.close()
    alone = json.loads(headwater_here("dead-letters", "--json", repo=repo).stdout)
    assert alone == [{"topic": SALES.topic, "partition": 0, "offset": 1, "kind": "dead-letter", "reason": "truncated",
                      "raw": "{", "raw_base64": None, "key": None, "key_base64": None, "broker_time": None,
                      "replayed_as": None}]  # fmt: skip
    headwater_here("sink", "--until-caught-up", repo=repo)
    listed = json.loads(headwater_here("dead-letters", "list", "--json", repo=repo).stdout)
    assert [(x["offset"], x["kind"], x["raw"], x["raw_base64"]) for x in listed] == [
        (1, "dead-letter", "{", None),
        (2, "quarantine", '{"at": 5, "price": -1}', None),
        (3, "dead-letter", None, "/w=="),
        (4, "dead-letter", None, None),
    ]
    assert "price: expected a value at least 0, got -1.0" in headwater_here("dead-letters", repo=repo).stdout
    headwater_here("events", "sales", "-o", repo / "bad.parquet", "--dead-letters", repo=repo)
    bad = pq.read_table(repo / "bad.parquet")
    assert bad.column_names == ["_partition", "_offset", "_broker_time", "_arrived_at", "_kind", "_reason", "_raw"]
    assert bad["_raw"].to_pylist() == [b"{", b'{"at": 5, "price": -1}', b"\xff", None]
