"""The gate: suites compiled from expectations, and which rows they find."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

from headwater.errors import HeadwaterError
from headwater.plans.plan import BatchView, Expectation, Field
from validation.gate import gate
from validation.suites import compile_suite, describe


def make_view(*expectations: Expectation, keys: tuple[Field, ...] = (Field("customer_id", "int64"),)) -> BatchView:
    return BatchView(
        name="profile",
        entities=("customer",),
        keys=keys,
        sql="SELECT 1",
        ttl=None,
        features=(Field("spend", "float64"), Field("visits", "int64"), Field("country", "string"),
                  Field("seen", "timestamp"), Field("gold", "bool")),
        state_hash="0" * 16,
        expectations=expectations,
    )  # fmt: skip


def make_table(rows: list[tuple[object, ...]]) -> pa.Table:
    names = ["customer_id", "spend", "visits", "country", "seen", "gold"]
    types = [pa.int64(), pa.float64(), pa.int64(), pa.string(), pa.timestamp("us", "UTC"), pa.bool_()]
    return pa.table({n: pa.array([r[i] for r in rows], t) for i, (n, t) in enumerate(zip(names, types, strict=True))})


GOOD = [
    (1, 10.0, 3, "France", 1_300_000_000_000_000, True),
    (2, 99.5, 1, "Spain", 1_300_000_001_000_000, False),
    (3, None, None, None, None, None),
]


def test_a_batch_that_meets_its_expectations_passes() -> None:
    view = make_view(
        Expectation("between", "spend", 0, 100),
        Expectation("in_set", "country", values=("France", "Spain")),
        Expectation("in_set", "gold", values=(True, False)),
        Expectation("between", "seen", 1_000_000_000_000_000, 2_000_000_000_000_000),
    )
    result = gate(view, make_table(GOOD))
    assert result.passed
    assert result.failures == ()
    assert result.tolerated == ()


def test_each_failure_names_expectation_count_rows_and_examples() -> None:
    rows = [*GOOD, (4, -1.0, 1, "Atlantis", None, None), (5, 100.5, 1, None, None, None)]
    view = make_view(
        Expectation("between", "spend", 0, 100),
        Expectation("in_set", "country", values=("France", "Spain")),
        Expectation("not_null", "visits"),
    )
    result = gate(view, make_table(rows))
    assert not result.passed
    assert [(f.expectation, f.unexpected, f.rows) for f in result.failures] == [
        ("'spend' is between 0 and 100", 2, (3, 4)),
        ("'country' is one of 'France', 'Spain'", 1, (3,)),
        ("'visits' is not null", 1, (2,)),
    ]
    assert result.failures[0].examples == ("customer_id=4, spend=-1.0", "customer_id=5, spend=100.5")
    assert str(result.failures[2]) == ("'visits' is not null: 1 of 5 rows break it, such as customer_id=3, visits=null")
    assert result.reasons() == {
        2: "'visits' is not null",
        3: "'spend' is between 0 and 100; 'country' is one of 'France', 'Spain'",
        4: "'spend' is between 0 and 100",
    }


def test_mostly_keeps_the_gate_open_and_reports() -> None:
    """One of three is null: two thirds are there."""
    open_, closed = (gate(make_view(Expectation("not_null", "spend", mostly=m)), make_table(GOOD)) for m in (0.6, 0.7))
    assert open_.passed
    assert [f.unexpected for f in open_.tolerated] == [1]
    assert not closed.passed


def test_a_null_join_key_closes_the_gate_without_any_expectation() -> None:
    result = gate(make_view(), make_table([*GOOD, (None, 1.0, 1, None, None, None)]))
    assert [(f.expectation, f.rows) for f in result.failures] == [("the join key 'customer_id' is not null", (3,))]


def test_two_rows_of_one_key_close_the_gate() -> None:
    result = gate(make_view(), make_table([*GOOD, (2, 1.0, 1, None, None, None)]))
    assert [(f.expectation, f.rows) for f in result.failures] == [("there is one row for each customer_id", (1, 3))]


def test_keys_of_several_columns_may_share_each_but_not_all() -> None:
    view = make_view(keys=(Field("customer_id", "int64"), Field("country", "string")))
    view = BatchView(**{**{f: getattr(view, f) for f in view.__struct_fields__}, "features": view.features[:2]})
    fine = [(1, 1.0, 1, "a", None, None), (1, 1.0, 1, "b", None, None), (2, 1.0, 1, "a", None, None)]
    assert gate(view, make_table(fine)).passed
    result = gate(view, make_table([*fine, (1, 1.0, 1, "b", None, None), (1, 1.0, 1, None, None, None)]))
    assert [(f.expectation, f.rows) for f in result.failures] == [
        ("the join key 'country' is not null", (4,)),
        ("there is one row for each customer_id, country", (1, 3)),
    ]


def test_integers_past_two_to_the_53_are_judged_exactly() -> None:
    """As doubles both would be 2**53, and neither would fail; the null would make pandas take doubles."""
    rows = [
        (1, None, 2**53, None, None, None),
        (2, None, 2**53 + 1, None, None, None),
        (3, None, None, None, None, None),
    ]
    result = gate(make_view(Expectation("between", "visits", 0, 2**53)), make_table(rows))
    assert [f.rows for f in result.failures] == [(1,)]


def test_an_empty_batch_passes() -> None:
    view = make_view(Expectation("between", "spend", 0, 100), Expectation("not_null", "visits", mostly=0.9))
    assert gate(view, make_table([])).passed


def test_a_table_in_chunks_is_judged_like_one_of_one_piece() -> None:
    table = pa.concat_tables([make_table(GOOD), make_table([(4, -5.0, None, None, None, None)])])
    result = gate(make_view(Expectation("between", "spend", 0, 100)), table)
    assert [f.rows for f in result.failures] == [(3,)]


def test_an_expectation_that_does_not_fit_its_column_is_an_error_that_names_it() -> None:
    with pytest.raises(HeadwaterError, match=r"'profile'.*'country' is between 0 and 1"):
        gate(make_view(Expectation("between", "country", 0, 1)), make_table(GOOD))


def test_the_suite_is_a_great_expectations_suite_with_telemetry_off() -> None:
    suite = compile_suite(make_view(Expectation("between", "spend", 0, None, mostly=0.9)))
    assert [e.expectation_type for e in suite.expectations] == [
        "expect_column_values_to_not_be_null", "expect_column_values_to_be_unique",
        "expect_column_values_to_be_between",
    ]  # fmt: skip
    assert suite.expectations[2].mostly == 0.9
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        (Expectation("between", "a", None, 3), "'a' is at most 3"),
        (Expectation("between", "a", 0), "'a' is at least 0"),
        (Expectation("not_null", "a", mostly=0.99), "'a' is not null (at least 0.99 of the rows)"),
    ],
)
def test_expectations_read_as_sentences(expectation: Expectation, text: str) -> None:
    assert describe(expectation) == text


def test_the_gate_works_in_a_process_without_a_main_file() -> None:
    """There PySpark's Connect, which Great Expectations would import, ends the process with exit code 0."""
    program = "from validation.suites import great_expectations as gx; gx(); import pyspark; print('went on')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "went on\n")
