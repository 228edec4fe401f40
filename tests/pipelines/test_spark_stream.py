"""Streams on Spark: the same rows, byte for byte, and the same positions as the Python worker's, whoever writes when."""

from __future__ import annotations

import contextlib
import copy
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from headwater.embedded.processes import free_port
from headwater.errors import HeadwaterError, KafkaUnreachable, MissingExtra, TopicChanged, UsageError
from headwater.online.connection import Connection
from headwater.repository import load_repository
from pipelines import feeds, spark_batches
from pipelines.caught_up import CaughtUp
from pipelines.dead_letters import read_dead_letters
from pipelines.micro_batches import BeforeLogStart
from pipelines.outages import Outages
from pipelines.partial_feeds import PartialFeed
from pipelines.partial_rows import Work
from pipelines.spark_batches import LentBatch, LentBatches, java_settings
from pipelines.spark_failures import SparkFailed, failure_in
from pipelines.spark_kafka_source import KafkaReader, Range, limited
from pipelines.spark_stream import SparkWorker, start_spark_worker
from pipelines.worker import WorkerSettings
from tests.history.log_factory import HOUR, MINUTE, make_feature
from tests.history.shop import DEFINITIONS
from tests.monitoring.test_endpoint import get, samples
from tests.pipelines.stream_world import (
    CHECKOUT,
    DAY,
    FEATURES,
    NOON,
    POSITIVE,
    World,
    produce,
    random_events,
    read_rows,
    view_of,
)  # fmt: skip

pytestmark = [pytest.mark.spark, pytest.mark.kafka, pytest.mark.redis]
PATIENCE = 200
QUICK_JAVA = "-XX:TieredStopAtLevel=1"
"""Java that lives for seconds does not win back what its second compiler takes."""
WHERE, HOLDS = POSITIVE
VIEWS = [
    view_of(),
    view_of("by_product", keys=("product",), features=(
        *FEATURES,
        make_feature("var", "price", 30 * DAY, DAY, name="price_var_30d"),
        make_feature("max", "product", HOUR, 5 * MINUTE, name="product_max_1h"),
        make_feature("approx_distinct", "customer", 30 * DAY, DAY, name="customers_30d"),
    )),
    view_of("by_both", keys=("product", "customer"), where=WHERE),
]  # fmt: skip
GARBAGE = [b"{", b'{"customer": 1}', None, b'{"customer": "x", "ts": 1}']


class SparkWorld(World):
    """A world whose events Spark applies; `other_project` is fed by Python workers."""

    def __init__(self, spark: Any, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.spark = spark

    def other_project(self) -> World:
        """The same topic and definitions in a project of their own."""
        other = World.__new__(World)
        other.__dict__.update(copy.copy(self.__dict__) | {"project": f"t{uuid.uuid4().hex[:8]}"})
        other.publish()
        return other

    def spark_worker(self, batch: int) -> SparkWorker:
        settings = WorkerSettings(batch=batch, plan_every=0.1, commit_every=0.1, retry_every=0.1)
        return SparkWorker(self.spark, self.redis_url, self.kafka, self.project, settings)

    def run(self, batch: int = 10_000, then: Iterator[None] | None = None) -> SparkWorker:
        """Spark until all is applied; `then` goes on a step whenever that is so."""
        worker, deadline = self.spark_worker(batch), time.monotonic() + PATIENCE
        caught_up = CaughtUp(self.redis_url, self.kafka, self.project)

        def done() -> bool:
            nonlocal caught_up
            assert time.monotonic() < deadline, f"{caught_up.remaining} events are left"
            if not caught_up():
                return False
            caught_up = CaughtUp(self.redis_url, self.kafka, self.project)
            return then is None or next(then, self) is self

        worker.run(until=done)
        return worker


@pytest.fixture
def make_world(spark: Any, redis_url: str, kafka: str) -> Callable[..., SparkWorld]:
    def make(**named: Any) -> SparkWorld:
        world = SparkWorld(spark, redis_url, kafka, **named)
        world.publish()
        return world

    return make


def all_rows(world: World) -> dict[str, dict[bytes, bytes]]:
    return {view.name: world.rows(view.name) for view in world.views}


def assert_values(world: World) -> None:
    for view in world.views:
        world.assert_equal_to_the_slow_loop(view.name, HOLDS if view.where is not None else None)


def amid(events: list[Any]) -> list[Any]:
    """Events with garbage among them."""
    return [x for i, e in enumerate(events) for x in ([GARBAGE[i % 4]] if i % 50 == 7 else []) + [e]]


def test_rows_are_the_workers_bytes_and_their_values_the_slow_loops(make_world) -> None:
    world = make_world(views=VIEWS)
    by_workers = world.other_project()
    world.produce(amid([*random_events(1199), {"customer": None, "product": "p1", "ts": NOON}]))
    worker = world.run(batch=700)
    assert worker.events == 1224
    letters = {x.place for x in read_dead_letters(world.kafka, [world.topic])}
    assert len(letters) == 24
    by_workers.catch_up(batch=130)
    assert all_rows(world) == all_rows(by_workers)
    assert world.counters() == by_workers.counters() == {"null_keys": 1}
    assert letters == {x.place for x in read_dead_letters(world.kafka, [world.topic])}
    assert_values(world)


def test_a_run_goes_from_worker_to_spark_and_back_and_every_row_is_the_same(make_world) -> None:
    world = make_world(views=VIEWS)
    by_workers = world.other_project()
    for seed, run in enumerate([world.catch_up, world.run, world.catch_up]):
        world.produce(amid(random_events(400, seed=seed)))
        run(batch=150 + 70 * seed)
    by_workers.catch_up()
    assert all_rows(world) == all_rows(by_workers)
    assert_values(world)


def test_a_second_writer_is_refused_and_nothing_counts_twice(make_world, monkeypatch, caplog) -> None:
    world = make_world()
    merge, merges = PartialFeed.merge, []

    def merge_late(self, partials, nexts):
        merges.append(len(partials))
        if len(merges) == 1:
            # While the executors' answer is on its way, a Python worker moves the positions.
            world.catch_up(batch=100)
        merge(self, partials, nexts)

    def more() -> Iterator[None]:
        world.produce(random_events(100, seed=9))
        yield

    monkeypatch.setattr(PartialFeed, "merge", merge_late)
    world.produce(random_events(300))
    with caplog.at_level("INFO", "headwater.stream"):
        worker = world.run(then=more())
    assert "Redis holds another position" in caplog.text
    assert worker.events == 100
    assert_values(world)


def test_new_partitions_and_what_a_transaction_took_back_are_passed_while_it_runs(make_world, monkeypatch) -> None:
    monkeypatch.setattr(spark_batches, "_PARTITIONS_EVERY", 0.2)
    world = make_world(partitions=2)
    world.produce(random_events(100))

    def happenings() -> Iterator[None]:
        producer = Producer({**world.kafka, "transactional.id": world.topic})
        producer.init_transactions(20)
        producer.begin_transaction()
        produce(producer, world.topic, random_events(60, seed=2), None, 2)
        producer.abort_transaction(20)
        yield
        [done] = world.admin.create_partitions([NewPartitions(world.topic, 4)]).values()
        done.result(20)
        while world.partitions() < 4:
            time.sleep(0.05)
        world.new_producer()
        world.produce(random_events(100, seed=3), partition=3)
        yield
        world.produce(random_events(100, seed=4))
        yield

    world.run(then=happenings())
    assert_values(world)


def test_when_a_process_of_spark_dies_the_run_begins_again_at_the_positions(make_world, caplog) -> None:
    world = make_world(partitions=1)
    world.produce(random_events(50))

    def happenings() -> Iterator[None]:
        assert kill_sources()
        world.produce(random_events(50, seed=3))
        yield

    worker = world.run(then=happenings())
    assert worker.events == 100
    assert "Beginning again at the positions" in caplog.text
    assert_values(world)


def kill_sources() -> int:
    """End Spark's processes that list offsets; how many there were."""
    killed = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself, or nobody has waited for it yet
            if "streaming_source" in " ".join(process.cmdline()):
                process.kill()
                killed += 1
    return killed


DIES = """
import os, signal
from pathlib import Path
from pipelines import feeds
from pipelines.spark_batches import LentBatches
from pipelines.spark_materialize import start_session
from pipelines.spark_stream import SparkWorker
from pipelines.worker import WorkerSettings

request = feeds.ViewFeed._request
# Redis takes two scripts of the batch, and this process is gone before it hears that of the third.
feeds.ROWS_A_SCRIPT = 3
feeds.ViewFeed._request = lambda self, chunk, i, *rest: request(self, chunk, i if i < 2 else i + 1000, *rest)
LentBatches.turn = lambda self: os.kill(os.getpid(), signal.SIGKILL)
session = start_session(Path({log!r}))
SparkWorker(session, {redis!r}, {kafka!r}, {project!r}, WorkerSettings(batch=600)).run()
"""


@pytest.mark.soak
def test_a_driver_killed_in_the_middle_of_a_batch_changes_no_value(make_world, tmp_path, monkeypatch) -> None:
    world = make_world()
    world.produce(random_events(1000))
    code = DIES.format(log=str(tmp_path / "log"), redis=world.redis_url, kafka=world.kafka, project=world.project)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, text=True, stderr=subprocess.PIPE)
    said = driver.communicate(timeout=PATIENCE)[1]
    assert driver.returncode == -signal.SIGKILL, said
    assert_goes_on_from_the_middle(world, monkeypatch)


class DriverGone(BaseException):
    pass


def test_a_batch_that_redis_took_a_part_of_is_finished_by_another_run(make_world, monkeypatch) -> None:
    """As where the driver is killed, without a Spark of its own to kill."""

    def gone(self: LentBatches) -> None:
        raise DriverGone

    world, request = make_world(), feeds.ViewFeed._request
    world.produce(random_events(1000))
    with monkeypatch.context() as broken:
        broken.setattr(feeds, "ROWS_A_SCRIPT", 3)
        broken.setattr(
            feeds.ViewFeed,
            "_request",
            lambda self, chunk, i, *rest: request(self, chunk, i if i < 2 else i + 1000, *rest),
        )
        broken.setattr(LentBatches, "turn", gone)
        with pytest.raises(DriverGone):
            world.run(batch=600)
    assert_goes_on_from_the_middle(world, monkeypatch)


def assert_goes_on_from_the_middle(world: SparkWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scripts of the first batch are in Redis; the next run, of another cut, makes every value right."""
    fill = world.published().active["spend"].fill
    at = world.connection.command("GET", f"hw:pos:{world.project}:spend:{fill}:0")
    assert re.fullmatch(rb"0/.+/2", at)
    assert len(world.rows()) == 6
    looked, overlaps = [], PartialFeed.overlaps

    def overlaps_seen(self, partials):
        found = overlaps(self, partials)
        looked.append(len(found))
        return found

    # Of another cut, so that some rows lie in the middle of a batch.
    monkeypatch.setattr(PartialFeed, "overlaps", overlaps_seen)
    world.run(batch=250)
    assert max(looked) > 0
    assert_values(world)


def test_what_retention_took_is_named_through_spark(make_world) -> None:
    world = make_world(partitions=1)
    world.produce(random_events(100))
    [done] = world.admin.delete_records([TopicPartition(world.topic, 0, 50)]).values()
    done.result(20)
    place = (world.topic, 0)
    lent = LentBatches(world.spark, world.kafka, "g", [world.topic], lambda _: {place: 0}, 100, Outages(None))
    try:
        assert lent.restart()
        batches: dict[str, Any] = {}
        while not batches:
            batches = lent.poll(100, 0.1)
        batch = batches[world.topic]
        assert isinstance(batch, LentBatch)
        with pytest.raises(BeforeLogStart, match=re.escape(f"{world.topic}[0]")):
            batch.parts(Work(world.source, ()))
    finally:
        lent.close()


def test_the_command_runs_on_spark_and_ends_well_when_it_is_told_to(
    make_repository, headwater_here, start_headwater, monkeypatch
) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)
    repo = make_repository(definitions=DEFINITIONS)
    headwater_here("apply", repo=repo)
    repository = load_repository(repo)
    line = b'{"stock_code": "A", "quantity": 2, "ts": "2011-12-01T10:00:00Z", "price": 1.5, "customer_id": %d}'
    produce(Producer(repository.need_kafka()), "history_lines", [line % (i % 9) for i in range(500)], None, 4)
    produce(Producer(repository.need_kafka()), "history_lines", [b"{", b"[]", b"null"], None, 4)
    port = free_port()
    process = start_headwater("stream", "--engine", "spark", "--batch", "200", "--metrics-port", str(port), repo=repo)
    redis, kafka = repository.need_redis(), repository.need_kafka()
    caught_up, deadline = CaughtUp(redis, kafka, repository.project), time.monotonic() + PATIENCE
    while not caught_up():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    topic = (("topic", "history_lines"),)
    while (counted := samples(get(f"http://127.0.0.1:{port}/metrics")[2])).get(
        ("headwater_stream_events_total", topic)
    ) != 503:
        assert time.monotonic() < deadline, counted
        time.sleep(0.05)
    assert counted["headwater_stream_dead_letters_total", topic] == 3
    assert counted["headwater_stream_quarantined_total", topic] == 0
    assert counted["headwater_stream_flush_seconds_count", topic] >= 1
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert "503 events in" in said
    assert "Traceback" not in said
    with Connection(redis) as connection:
        rows = rows_of(connection, repository.project, "spend")
    assert len(rows) == 9


def rows_of(connection: Connection, project: str, view: str) -> dict[bytes, bytes]:
    from headwater.online.plan_store import load_published

    published = load_published(connection, project)
    assert published is not None
    active = published.active[view]
    return read_rows(connection, project, active.definition, active.fill)


def test_without_java_the_command_says_what_to_install(make_repository, monkeypatch) -> None:
    repository = load_repository(make_repository())
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UsageError, match=r"default-jre-headless.*--engine python") as raised:
        start_spark_worker(repository, WorkerSettings())
    assert raised.value.exit_code == 2


def test_without_pyspark_the_command_names_the_extra(make_repository, monkeypatch) -> None:
    repository = load_repository(make_repository())
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingExtra, match=re.escape("headwater[spark]")):
        start_spark_worker(repository, WorkerSettings())


def test_a_pyspark_without_limits_for_python_sources_is_too_old(make_repository, monkeypatch) -> None:
    import pyspark

    repository = load_repository(make_repository())
    monkeypatch.setattr(pyspark, "__version__", "4.1.2")
    with pytest.raises(UsageError, match=re.escape("need PySpark 4.2 or newer, and 4.1.2 is installed")):
        start_spark_worker(repository, WorkerSettings())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--conf", "a=b"], "is a setting of Spark"),
        (["--engine", "spark", "--conf", "ab"], "expected KEY=VALUE"),
        (["--batch", "1000001"], "at most 1000000 with --engine python"),
    ],
)
def test_options_that_do_not_go_together_are_refused(make_repository, headwater_here, options, message) -> None:
    answer = headwater_here("stream", *options, repo=make_repository(), check=False)
    assert answer.returncode == 2
    assert message in answer.stderr


def test_a_long_range_is_read_by_several_tasks_and_a_limit_is_shared_by_what_there_is() -> None:
    reader = KafkaReader({"startingOffsets": "{}", "maxOffsetsPerTrigger": "10"})
    assert reader.partitions({"t": {"0": 5, "1": 9}}, {"t": {"0": 200_010, "1": 9}}) == [
        Range("t", 0, 5, 100_005), Range("t", 0, 100_005, 200_005), Range("t", 0, 200_005, 200_010),
    ]  # fmt: skip
    start, ends = {"t": {"0": 10, "1": 0, "2": 7}}, {"t": {"0": 310, "1": 101, "2": 7}}
    assert limited(start, ends, 401) == ends
    # 300 and 101 are left; of 40, the least that is due to either is rounded up, so that both get on.
    assert limited(start, ends, 40) == {"t": {"0": 40, "1": 11, "2": 7}}
    assert limited(start, ends, 1) == {"t": {"0": 11, "1": 1, "2": 7}}


def test_settings_of_kafka_are_spelled_as_sparks_own_connector_wants_them() -> None:
    """The connector itself cannot be had here, so no more than the spelling is tested."""
    assert java_settings(
        {"bootstrap.servers": "b:1", "security.protocol": "SASL_SSL", "sasl.mechanisms": "SCRAM-SHA-512",
         "sasl.username": "me", "sasl.password": 'p"w', "ssl.ca.location": "/ca.pem"}
    ) == {
        "bootstrap.servers": "b:1", "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": 'org.apache.kafka.common.security.scram.ScramLoginModule required '
        'username="me" password="p\\"w";',
        "ssl.truststore.type": "PEM", "ssl.truststore.location": "/ca.pem",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x\nheadwater.errors.KafkaUnreachable: gone\nat java", KafkaUnreachable, "gone"),
        ("x\npipelines.micro_batches.BeforeLogStart: lines-[1][3]\n", BeforeLogStart, r"lines-\[1\]\[3\]"),
        ("  File\nheadwater.errors.TopicChanged: Topic 't' is gone\n", TopicChanged, "Topic 't' is gone"),
        ("headwater.errors.MissingExtra: Reading needs x", HeadwaterError, "^Reading needs x"),
        ("Job aborted: out of memory\nmore", SparkFailed, "^Spark failed: Job aborted: out of memory$"),
        ("", SparkFailed, "^Spark failed: it is gone$"),
    ],
)
def test_what_failed_in_an_executor_is_the_error_that_it_was(text: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        raise failure_in(text)
