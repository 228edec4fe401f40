"""The Spark engine gives what the local engine gives: bit for bit but for sums of doubles in free SQL."""

import math
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from headwater.columns import Column
from headwater.errors import DefinitionError, HeadwaterError, ReadError, UsageError
from headwater.expressions.parse import parse
from headwater.lake import Lake
from headwater.plans.plan import BatchView, Field, Plan
from pipelines.local_batch import LocalEngine
from pipelines.spark_materialize import SparkEngine, start_session
from tests.history.log_factory import ALL_FUNCTIONS, FIELDS, HOUR, MINUTE, SOURCE, make_feature, make_view
from tests.history.naive import naive_answers, spec_of
from tests.pipelines.lake_factory import DAY, NOON, dirty_rows, same_bits, write_events

pytestmark = pytest.mark.spark

WINDOWS = [(HOUR, 5 * MINUTE), (30 * DAY, DAY), (None, None)]
EVERYTHING = [make_feature(*what, *WINDOWS[i % 3]) for i, what in enumerate(ALL_FUNCTIONS)]


def engines(tmp_path: Path, spark: object, rows: list[dict], name: str = "lake") -> tuple[LocalEngine, SparkEngine]:
    lake = Lake(str(tmp_path / name))
    if rows:
        write_events(lake, rows)
    plan = Plan("p", sources=(SOURCE,))
    return LocalEngine(lake, plan), SparkEngine(lake, plan, tmp_path / "spark.log", spark)


def make_batch(sql: str, **features: str) -> BatchView:
    fields = tuple(Field(name, dtype) for name, dtype in features.items())
    return BatchView("profile", ("customer",), (Field("customer", "int64"),), sql, None, fields, "0" * 16)


def test_windowed_aggregates_of_dirty_data_have_the_same_bits(tmp_path, spark) -> None:
    """4,000 events; both approximate counts below and above 256 are among them."""
    rows = dirty_rows(4000)
    local, remote = engines(tmp_path, spark, rows)
    view = make_view(*EVERYTHING)
    here, there = local.windows(view, NOON), remote.windows(view, NOON)
    same_bits(here, there)
    assert here["customer"].to_pylist() == [-(2**63), 1, 2, 3, 2**63 - 1]
    found = [here[f.name].to_pylist() for f in EVERYTHING if f.function == "approx_distinct"]
    assert min(min(f) for f in found) < 256 < max(max(f) for f in found)


def test_windowed_aggregates_equal_the_slow_loop(tmp_path, spark) -> None:
    rows = dirty_rows(500, seed=3)
    _, remote = engines(tmp_path, spark, rows)
    view = make_view(*EVERYTHING[::4], make_feature("sum", "price"), make_feature("mean", "quantity"))
    table = remote.windows(view, NOON)
    asked = [((key,), NOON) for key in table["customer"].to_pylist()]
    events = [r for r in rows if "_kind" not in r]
    expected = naive_answers(events, spec_of(view, "ts"), asked)
    for feature in view.features:
        values = table[feature.name]
        got = values.cast(pa.int64()).to_pylist() if feature.dtype == "timestamp" else values.to_pylist()
        assert got == [row[feature.name] for row in expected], feature.name


def test_where_and_derive_mean_the_same_on_both(tmp_path, spark) -> None:
    types = FIELDS | {"amount": "float64", "label": "string"}

    def expr(text: str) -> object:
        return parse(text, types, place="test")

    view = make_view(
        make_feature("sum", "amount", 30 * DAY, DAY, dtypes=types),
        make_feature("last", "label", 30 * DAY, DAY, dtypes=types, where=expr("paid OR quantity > 0")),
        make_feature("count", None, HOUR, 5 * MINUTE, where=expr("price / quantity > 1.5")),
        make_feature("approx_distinct", "amount", None, None, dtypes=types, where=expr("product LIKE 'p%'")),
        keys=("product", "customer"),
        where=expr("quantity > -3 AND product <> '9'"),
        derive=[
            ("amount", expr("quantity * price")),
            ("label", expr("upper(product) || '/' || substr(product, 1, 1)")),
        ],
    )
    local, remote = engines(tmp_path, spark, dirty_rows(2000, seed=11))
    same_bits(local.windows(view, NOON), remote.windows(view, NOON))


def test_a_sum_past_64_bits_is_an_error_on_both(tmp_path, spark) -> None:
    rows = [
        {"customer": 1, "ts": NOON - 1, "quantity": 2**62, "_partition": 0, "_offset": i} for i in range(3)
    ]  # fmt: skip
    view = make_view(make_feature("sum", "quantity"))
    for engine in engines(tmp_path, spark, rows):
        with pytest.raises(ReadError, match="64 bits"):
            engine.windows(view, NOON)


def test_an_empty_lake_gives_empty_snapshots(tmp_path, spark) -> None:
    batch = make_batch("SELECT customer, count(*) AS n FROM lines GROUP BY customer", n="int64")
    local, remote = engines(tmp_path, spark, [])
    view = make_view(*EVERYTHING[::6])
    same_bits(local.windows(view, NOON), remote.windows(view, NOON))
    same_bits(local.batch(batch, NOON), remote.batch(batch, NOON))


EXACT = make_batch(
    """
    WITH past AS (SELECT * FROM lines WHERE customer IS NOT NULL AND ts < :as_of AND ts > :as_of - INTERVAL 40 DAY)
    SELECT customer,
        count(*) AS lines,
        count(DISTINCT product) AS products,
        sum(quantity) AS quantity,
        date_diff('day', max(ts), :as_of) AS days,
        date_diff('hour', min(ts), :as_of) AS hours,
        CAST(max(ts) AS DATE) - CAST(min(ts) AS DATE) AS span,
        CAST(max(abs(quantity)) / 4 AS BIGINT) AS rounded,
        CAST(1.5 * count(*) AS BIGINT) AS decimal_rounded,
        sum(quantity % 7) AS remainders,
        max(quantity // 3) AS thirds,
        max(quantity % (quantity - quantity)) AS by_zero,
        sum(CAST(quantity % 1000 AS DECIMAL(10, 2)) * 1.07) AS taxed,
        max(CAST(0.1 AS DECIMAL(10, 3)) * (quantity % 100)) AS tenth,
        arg_max(product, (ts, _partition, _offset)) FILTER (product IS NOT NULL) AS last_product,
        bool_or(paid) AS any_paid,
        max(price) FILTER (paid) AS highest,
        count(*) / 7 AS seventh,
        count(*) / (count(*) - count(*)) AS nothing,
        epoch(max(ts)) AS seconds,
        epoch(:as_of - min(ts)) AS age,
        max(ts) AS seen,
        date_trunc('month', min(ts)) AS month,
        (count(*) FILTER (paid))::INTEGER AS paid_lines
    FROM past GROUP BY ALL
    """,
    lines="int64", products="int64", quantity="int64", days="int64", hours="int64", span="int64", rounded="int64",
    decimal_rounded="int64", remainders="int64", thirds="int64", by_zero="int64", taxed="float64", tenth="float64",
    last_product="string", any_paid="bool", highest="float64", seventh="float64", nothing="float64",
    seconds="float64", age="float64", seen="timestamp", month="timestamp", paid_lines="int64",
)  # fmt: skip


def test_integers_decimals_texts_and_times_of_free_sql_have_the_same_bits(tmp_path, spark) -> None:
    local, remote = engines(tmp_path, spark, dirty_rows(3000, seed=5))
    here, there = local.batch(EXACT, NOON), remote.batch(EXACT, NOON)
    assert here.num_rows == 5
    same_bits(here, there)


def test_doubles_of_free_sql_agree_within_a_billionth(tmp_path, spark) -> None:
    view = make_batch(
        """SELECT customer, sum(quantity * price) AS total, avg(price) AS mean, stddev(price) AS spread,
                  sum(price) / count(DISTINCT product) AS each, round(sum(price), 2) AS pence
           FROM lines WHERE price BETWEEN -1e6 AND 1e6 AND abs(quantity) < 10 AND customer IS NOT NULL
           GROUP BY customer ORDER BY total DESC""",
        total="float64", mean="float64", spread="float64", each="float64", pence="float64",
    )  # fmt: skip
    local, remote = engines(tmp_path, spark, dirty_rows(3000, seed=9))
    here, there = local.batch(view, NOON), remote.batch(view, NOON)
    for name in here.column_names:
        for a, b in zip(here[name].to_pylist(), there[name].to_pylist(), strict=True):
            assert math.isclose(a, b, rel_tol=1e-9)


def test_a_lake_whose_path_holds_signs_of_patterns_is_read(tmp_path, spark) -> None:
    rows = [{"customer": 1, "ts": NOON - 1, "_partition": 0, "_offset": 0}]
    view = make_batch("SELECT customer, count(*) AS n FROM lines GROUP BY 1", n="int64")
    _, remote = engines(tmp_path, spark, rows, "a {b} lake")
    assert remote.batch(view, NOON).to_pylist() == [{"customer": 1, "n": 1}]


def test_files_written_before_a_column_was_added_have_nulls_in_it(tmp_path, spark) -> None:
    import msgspec

    local, remote = engines(tmp_path, spark, [{"customer": 1, "ts": NOON - 1, "_partition": 0, "_offset": 0}])
    wider = msgspec.structs.replace(SOURCE, fields=(*SOURCE.fields, Field("channel", "string")))
    local._plan = remote._plan = Plan("p", sources=(wider,))
    view = make_batch(
        "SELECT customer, max(channel) AS channel, count(*) AS n FROM lines GROUP BY 1", channel="string", n="int64"
    )
    same_bits(local.batch(view, NOON), remote.batch(view, NOON))
    assert remote.batch(view, NOON).to_pylist() == [{"customer": 1, "channel": None, "n": 1}]


def test_sql_that_spark_cannot_run_is_an_error_that_names_view_and_engine(tmp_path, spark) -> None:
    _, remote = engines(tmp_path, spark, dirty_rows(20))
    view = make_batch("SELECT customer, list_zip([1], [2])[1][1] AS n FROM lines", n="int64")
    with pytest.raises((HeadwaterError, DefinitionError), match=r"'profile'.*[Ss]park"):
        remote.batch(view, NOON)


def test_without_java_the_error_names_the_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UsageError, match="default-jre-headless"):
        start_session(tmp_path / "spark.log")


def test_lists_and_newest_values_have_the_same_bits(tmp_path, spark) -> None:
    lists = {"vector": "list[float64]", "names": "list[string]", "times": "list[timestamp]", "blobs": "list[bytes]",
             "flags": "list[bool]", "numbers": "list[int64]"}  # fmt: skip
    dtypes = {**FIELDS, **lists}
    source = msgspec.structs.replace(SOURCE, fields=tuple(Field(name, dtype) for name, dtype in dtypes.items()))
    rows = [
        {"customer": i % 3, "ts": NOON - HOUR * (i % 30), "product": None if i % 2 else f"p{i}", "quantity": i,
         "vector": None if i % 5 == 0 else [i / 3, 5e-324], "names": ["é", ""][: i % 3], "times": [i, -i],
         "blobs": [b"\0", b""], "flags": None if i % 7 == 0 else [True, False], "numbers": [2**63 - 1] * (i % 2),
         "_partition": i % 2, "_offset": i // 2}
        for i in range(90)
    ]  # fmt: skip
    lake = Lake(str(tmp_path / "lake"))
    write_events(lake, rows, source)
    plan = Plan("p", sources=(source,))
    functions = [(f, name) for f in ("first", "last", "latest") for name in (*lists, "product", "quantity")]
    made = [make_feature(*what, *WINDOWS[i % 3], dtypes=dtypes) for i, what in enumerate(functions)]
    newest = [make_feature("latest", name, None, dtypes=dtypes) for name in dtypes if name not in ("customer", "ts")]
    stale = msgspec.structs.replace(make_view(*newest), ttl=HOUR - 1)
    for view in (make_view(*made), stale):
        here = LocalEngine(lake, plan).windows(view, NOON + 1)
        there = SparkEngine(lake, plan, tmp_path / "spark.log", spark).windows(view, NOON + 1)
        same_bits(here, there)
        asked = [((key,), NOON + 1) for key in here["customer"].to_pylist()]
        fresh = rows if view.ttl is None else [r for r in rows if r["ts"] >= NOON + 1 - view.ttl]
        for feature in view.features:
            column = Column.from_arrow(feature.dtype, here[feature.name])
            expected = naive_answers(fresh, spec_of(view, "ts"), asked)
            assert column.to_list() == [row[feature.name] for row in expected], feature.name
    assert here["product_latest_None"].null_count
    sql = "SELECT customer, arg_max(vector, quantity) AS vector, arg_max(names, quantity) AS names, [max(ts)] AS times FROM lines WHERE vector IS NOT NULL GROUP BY customer"  # noqa: E501
    batch = make_batch(sql, vector="list[float64]", names="list[string]", times="list[timestamp]")
    local, remote = LocalEngine(lake, plan), SparkEngine(lake, plan, tmp_path / "spark.log", spark)
    same_bits(local.batch(batch, NOON), remote.batch(batch, NOON))
    short = msgspec.structs.replace(batch, features=(Field("vector", "list[float64]", 3), *batch.features[1:]))
    with pytest.raises(HeadwaterError, match=r"'vector' is list\[float64\] of 3, and its SQL returns a list of 2"):
        local.batch(short, NOON)
    nulls = make_batch("SELECT customer, [max(price)] AS prices FROM lines GROUP BY customer", prices="list[float64]")
    with pytest.raises(HeadwaterError, match="returns a null, NaN or an infinity in a list"):
        local.batch(nulls, NOON)
