"""`materialize` on a real lake and a real Redis: gate, lake, rows, switch, and a kill between them."""

import re
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pytest
from click.testing import CliRunner

from headwater.cli.materialize import command, parse_as_of
from headwater.errors import DefinitionError, GateClosed, HeadwaterError, UsageError
from headwater.lake import Lake
from headwater.online.connection import Connection
from headwater.online.keys import entity_key, plan_id_key, plan_key, row_prefix
from headwater.online.plan_store import load_published, publish
from headwater.online.published import Active, PublishedPlan
from headwater.plans.plan import CODEC_VERSION, BatchView, Expectation, Field, Plan, batch_state_hash
from headwater.repository import Repository
from headwater.rows.plain import PlainReader
from pipelines.materialize import Materialized, materialize
from tests.history.log_factory import HOUR, SOURCE, make_feature, make_view
from tests.pipelines.lake_factory import DAY, NOON, write_events

pytestmark = pytest.mark.redis

SQL = """
    SELECT customer, count(*) AS lines, sum(price) AS spend, max(product) AS product,
           date_diff('day', max(ts), :as_of) AS days
    FROM lines WHERE ts < :as_of AND customer IS NOT NULL GROUP BY customer
"""
FEATURES = {"lines": "int64", "spend": "float64", "product": "string", "days": "int64"}
CUSTOMERS = (Field("customer", "int64"),)
ROWS = [
    {"customer": 1, "product": "A", "price": 2.5, "ts": NOON - 3 * DAY, "_partition": 0, "_offset": 0},
    {"customer": 1, "product": "B", "price": 4.0, "ts": NOON - HOUR, "_partition": 0, "_offset": 1},
    {"customer": 2, "product": None, "price": None, "ts": NOON - 2 * DAY, "_partition": 1, "_offset": 0},
]


def make_profile(*expectations: Expectation, sql: str = SQL, features: dict[str, str] | None = None) -> BatchView:
    fields = tuple(Field(name, dtype) for name, dtype in (features or FEATURES).items())
    view = BatchView("profile", ("customer",), CUSTOMERS, sql, None, fields, "", expectations=expectations)
    return msgspec.structs.replace(view, state_hash=batch_state_hash(view))


class World:
    """A repository of one source and one BatchView, applied."""

    def __init__(self, folder: Path, redis_url: str, view: BatchView, rows: list[dict] = ROWS) -> None:
        self.project = f"t{uuid.uuid4().hex[:8]}"
        lake = str(folder / "lake")
        self.repository = Repository(folder, self.project, "", {}, redis_url, lake)
        self.lake, self.connection = Lake(lake), Connection(redis_url)
        if rows:
            write_events(self.lake, rows)
        self.apply(view)

    def apply(self, view: BatchView) -> None:
        self.view = view
        publish(self.connection, None, Plan(self.project, sources=(SOURCE,), views=(view,)))

    def run(self, as_of: int = NOON, names: tuple[str, ...] = (), engine: str = "local") -> list[Materialized]:
        return materialize(self.repository, names, as_of, engine)

    def online(self, *customers: int) -> list[dict | None]:
        """The rows that readers have now, None where there is none."""
        published = load_published(self.connection, self.project)
        active = published.active.get("profile")
        if active is None:
            return [None] * len(customers)
        view = active.definition
        prefix = row_prefix(self.project, "profile", view.state_hash, active.fill)
        rows = self.connection.command("MGET", *(prefix + entity_key((c,)) for c in customers))
        read = PlainReader(view).read(rows, [2**62] * len(rows))
        return [
            None if row is None else {name: values[i] for name, values in read.values.items()} | {"at": read.newest[i]}
            for i, row in enumerate(rows)
        ]

    def snapshots(self) -> list[dict]:
        table = self.lake.read_view(self.view)
        times = table["event_timestamp"].cast(pa.int64()).to_pylist()
        rows = table.drop_columns(["event_timestamp", "_created"]).to_pylist()
        return sorted(({"at": t, **row} for t, row in zip(times, rows, strict=True)), key=lambda r: [*r.values()][:2])


@pytest.fixture
def make_world(tmp_path, redis_url) -> Iterator[Callable[..., World]]:
    """A factory of worlds; each has its own project, and a folder of its own where one is named."""
    worlds: list[World] = []

    def make(view: BatchView, rows: list[dict] = ROWS, folder: str = ".") -> World:
        worlds.append(World(tmp_path / folder, redis_url, view, rows))
        return worlds[-1]

    yield make
    for world in worlds:
        world.connection.close()


ONE = {"lines": 2, "spend": 6.5, "product": "B", "days": 0}
TWO = {"lines": 1, "spend": None, "product": None, "days": 2}


def test_a_batch_that_passes_is_in_the_lake_and_in_redis(make_world) -> None:
    world = make_world(make_profile(Expectation("between", "spend", 0, 100)))
    assert world.run() == [Materialized("profile", NOON, rows=2, written=2)]
    assert world.snapshots() == [{"at": NOON, "customer": 1, **ONE}, {"at": NOON, "customer": 2, **TWO}]
    assert world.online(1, 2, 3) == [{**ONE, "at": NOON}, {**TWO, "at": NOON}, None]


def test_running_again_at_the_same_time_replaces_the_snapshot(make_world) -> None:
    world = make_world(make_profile())
    world.run()
    first = world.snapshots(), world.online(1, 2)
    write_events(world.lake, [{"customer": 2, "price": 1.0, "ts": NOON - 1, "_partition": 1, "_offset": 1}])
    world.run()
    assert len(world.snapshots()) == 2
    assert world.online(1, 2) == [first[1][0], {**TWO, "lines": 2, "spend": 1.0, "days": 0, "at": NOON}]


def test_an_older_snapshot_does_not_replace_newer_rows_online(make_world) -> None:
    world = make_world(make_profile())
    world.run(NOON)
    [result] = world.run(NOON - 2 * HOUR)
    assert (result.rows, result.written) == (2, 0)
    assert world.online(1) == [{**ONE, "at": NOON}]
    assert [row["lines"] for row in world.snapshots()] == [1, 1, 2, 1]


def test_several_times_are_a_snapshot_each_and_the_newest_is_served(make_world) -> None:
    world = make_world(make_profile())
    times = [str(NOON), str(NOON - 2 * DAY + HOUR), str(NOON)]
    words = ["profile", *(word for time in times for word in ("--as-of", time))]
    answer = CliRunner().invoke(command, words, obj=SimpleNamespace(repository=lambda: world.repository))
    assert answer.exit_code == 0, answer.output
    assert [(row["at"], row["customer"]) for row in world.snapshots()] == [
        (NOON - 2 * DAY + HOUR, 1), (NOON - 2 * DAY + HOUR, 2), (NOON, 1), (NOON, 2),
    ]  # fmt: skip
    assert world.online(1) == [{**ONE, "at": NOON}]


def test_a_closed_gate_publishes_nothing_and_keeps_the_failing_rows(make_world) -> None:
    view = make_profile(Expectation("between", "spend", 0, 5), Expectation("not_null", "product"))
    world = make_world(view)
    with pytest.raises(GateClosed) as raised:
        world.run()
    text = str(raised.value)
    assert raised.value.exit_code == 1
    assert "'spend' is between 0 and 5: 1 of 2 rows break it, such as customer=1, spend=6.5" in text
    assert "'product' is not null: 1 of 2 rows break it, such as customer=2, product=null" in text
    assert f"{world.repository.lake}/quarantine/profile" in text
    assert world.snapshots() == []
    assert world.online(1, 2) == [None, None]
    from deltalake import DeltaTable

    kept = DeltaTable(f"{world.repository.lake}/quarantine/profile").to_pyarrow_table().sort_by("customer").to_pylist()
    assert [(row["customer"], row["spend"], row["_reason"]) for row in kept] == [
        (1, 6.5, "'spend' is between 0 and 5"), (2, None, "'product' is not null"),
    ]  # fmt: skip


def test_a_row_that_stands_twice_closes_the_gate(make_world) -> None:
    world = make_world(make_profile(sql="SELECT customer, 1 AS n FROM lines", features={"n": "int64"}))
    with pytest.raises(GateClosed, match="there is one row for each customer: 2 of 3 rows"):
        world.run()


def test_a_changed_view_is_read_as_before_until_its_rows_are_all_written(make_world) -> None:
    world = make_world(make_profile())
    world.run()
    changed = make_profile(sql=SQL.replace("count(*)", "10 * count(*)"))
    world.apply(changed)
    assert world.online(1) == [{**ONE, "at": NOON}]
    [result] = world.run(NOON + 1)
    assert result.activated
    assert world.online(1, 2) == [{**ONE, "lines": 20, "at": NOON + 1}, {**TWO, "lines": 10, "at": NOON + 1}]


def test_a_closed_gate_of_a_changed_view_leaves_the_old_rows_to_readers(make_world) -> None:
    world = make_world(make_profile())
    world.run()
    world.apply(make_profile(Expectation("between", "lines", 0, 5), sql=SQL.replace("count(*)", "10 * count(*)")))
    with pytest.raises(GateClosed):
        world.run(NOON + 1)
    assert world.online(1) == [{**ONE, "at": NOON}]


@pytest.mark.parametrize("step", ["gate", "write_plain_rows", "activate"])
def test_killed_before_any_step_and_run_again_the_values_are_those_of_one_run(
    make_world, tmp_path, redis_url, step
) -> None:
    world = make_world(make_profile())
    world.run(NOON - DAY)
    world.apply(make_profile(sql=SQL.replace("count(*)", "10 * count(*)")))
    before = world.online(1, 2)
    program = f"""
        import os, signal
        import pipelines.materialize as m
        from headwater.repository import Repository
        from pathlib import Path
        setattr(m, {step!r}, lambda *a: os.kill(os.getpid(), signal.SIGKILL))
        m.materialize(Repository(Path({str(tmp_path)!r}), {world.project!r}, "", {{}}, {redis_url!r},
                                 {world.repository.lake!r}), (), {NOON})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=100)
    assert done.returncode == -9
    assert world.online(1, 2) == before, "a killed run changes nothing for readers"
    world.run()
    assert world.online(1, 2) == [{**ONE, "lines": 20, "at": NOON}, {**TWO, "lines": 10, "at": NOON}]
    assert [row["lines"] for row in world.snapshots()] == [1, 1, 20, 10]


def test_a_stream_view_goes_to_the_lake_alone(make_world) -> None:
    world = make_world(make_profile())
    stream = make_view(make_feature("sum", "price", 2 * DAY, HOUR), make_feature("count", None, HOUR))
    published = PublishedPlan(
        "id", Plan(world.project, (SOURCE,), (stream,)), {"spend": Active("f", stream)}, codec=CODEC_VERSION
    )
    world.connection.command("SET", plan_key(world.project), msgspec.json.encode(published))
    world.connection.command("SET", plan_id_key(world.project), "id")
    keys = world.connection.command("DBSIZE")
    [result] = world.run(names=("spend",))
    assert (result.rows, result.written) == (2, None)
    assert world.connection.command("DBSIZE") == keys
    [table] = [Lake(world.repository.lake).table("views/spend").open().to_pyarrow_table().sort_by("customer")]
    rows = table.drop_columns(["event_timestamp", "_created", "_definition"]).to_pylist()
    name = f"price_sum_{2 * DAY}"
    assert rows == [
        {"customer": 1, name: 4.0, f"None_count_{HOUR}": 1}, {"customer": 2, name: None, f"None_count_{HOUR}": 0},
    ]  # fmt: skip


@pytest.mark.spark
def test_spark_publishes_the_same_rows(make_world, spark) -> None:
    worlds = [make_world(make_profile(), folder=name) for name in ("local", "spark")]
    materialize(worlds[0].repository, (), NOON, "local")
    materialize(worlds[1].repository, ("profile",), NOON, "spark", session=spark)
    assert worlds[0].online(1, 2) == worlds[1].online(1, 2) == [{**ONE, "at": NOON}, {**TWO, "at": NOON}]
    assert worlds[0].snapshots() == worlds[1].snapshots()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT customer, 'x' AS n FROM lines", "returns 'n' as string, declared is int64"),
        ("SELECT customer, 1 AS m FROM lines", "no column named 'n'"),
        ("SELECT customer, sum(quantity) * 9 AS n FROM lines GROUP BY 1", "does not fit int64"),
        (
            "SELECT customer, CAST(max(product) AS BIGINT) AS n FROM lines GROUP BY 1",
            "'profile'.*local engine.*Could not",
        ),
    ],
)
def test_a_result_that_is_not_as_declared_names_view_and_column(make_world, sql, message) -> None:
    rows = [{**row, "quantity": 2**62} for row in ROWS]
    world = make_world(make_profile(sql=sql, features={"n": "int64"}), rows)
    with pytest.raises((DefinitionError, HeadwaterError), match=message):
        world.run()


def test_wrong_use_is_told_with_what_there_is(make_world, tmp_path, redis_url) -> None:
    world = make_world(make_profile())
    with pytest.raises(UsageError, match=r"no view 'profil'\. Did you mean 'profile'"):
        world.run(names=("profil",))
    nothing = Repository(tmp_path, "unapplied" + world.project, "", {}, redis_url, world.repository.lake)
    with pytest.raises(UsageError, match="headwater apply"):
        materialize(nothing, (), NOON)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2011-12-09T12:50:00Z", 1_323_435_000_000_000), ("2011-12-09T13:50:00+01:00", 1_323_435_000_000_000),
        ("2011-12-09 12:50:00", 1_323_435_000_000_000), ("2011-12-09", 1_323_388_800_000_000), (None, 2 * 10**15),
    ],
)  # fmt: skip
def test_times_are_read_in_utc(text, micros) -> None:
    assert parse_as_of(text, 2 * 10**15) == micros


@pytest.mark.parametrize("text", ["yesterday", "2011-13-01", "2033-05-20T00:00:00Z", ""])
def test_times_that_are_none_or_more_than_a_day_ahead_are_refused(text) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        parse_as_of(text, 2 * 10**15)
