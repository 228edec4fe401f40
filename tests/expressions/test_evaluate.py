"""Values worked out by hand: the rules of the subset, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headwater.columns import Column
from headwater.dtypes import Dtype
from headwater.expressions.evaluate import evaluate
from headwater.expressions.parse import parse

MIN, MAX = -(2**63), 2**63 - 1


def answer(text: str, **columns: tuple[Dtype, list[Any]]) -> list[Any]:
    """The expression's values over columns given as (type, Python values)."""
    types = {name: dtype for name, (dtype, _) in columns.items()}
    held = {name: Column.of(dtype, items) for name, (dtype, items) in columns.items()}
    length = len(next(iter(held.values()))) if held else 1
    return evaluate(parse(text, types, place="test"), held, length).to_list()


def test_integers_out_of_64_bits_are_null() -> None:
    a = ("int64", [MAX, MIN, MIN, 3_037_000_500, 2])
    b = ("int64", [1, -1, MIN, 3_037_000_500, 3])
    assert answer("a + b", a=a, b=b) == [None, None, None, 6_074_001_000, 5]
    assert answer("a - b", a=a, b=b) == [MAX - 1, MIN + 1, 0, 0, -1]
    assert answer("a * b", a=a, b=b) == [MAX, None, None, None, 6]
    assert answer("-a", a=a) == [-MAX, None, None, -3_037_000_500, -2]
    assert answer("abs(a)", a=a) == [MAX, None, None, 3_037_000_500, 2]


def test_products_at_the_border_are_exact() -> None:
    a = ("int64", [MIN, 2**62, -(2**62), 4_294_967_296, 4_294_967_296, 0, MAX])
    b = ("int64", [1, 2, 2, 2_147_483_647, -2_147_483_648, MIN, 0])
    assert answer("a * b", a=a, b=b) == [MIN, None, MIN, 4_294_967_296 * 2_147_483_647, MIN, 0, 0]


def test_the_remainder_has_the_sign_of_the_dividend() -> None:
    a, b = ("int64", [7, -7, 7, -7, 5, MIN]), ("int64", [3, 3, -3, -3, 0, -1])
    assert answer("a % b", a=a, b=b) == [1, -1, 1, -1, None, 0]


def test_division_is_of_doubles_and_null_by_zero() -> None:
    assert answer("a / b", a=("int64", [1, 7, 0, 5]), b=("int64", [2, 0, 0, -2])) == [0.5, None, None, -2.5]
    assert answer("1 / x", x=("float64", [0.0, 4.0, 5e-324])) == [None, 0.25, None]


def test_doubles_are_finite_and_never_minus_zero() -> None:
    assert answer("x * x", x=("float64", [1e308, 2.0])) == [None, 4.0]
    assert not np.signbit(answer("x * -1", x=("float64", [0.0]))).any()
    assert not np.signbit(answer("-x", x=("float64", [0.0]))).any()
    assert answer("sqrt(x)", x=("float64", [4.0, -1.0, 0.0])) == [2.0, None, 0.0]


def test_floor_and_ceil_give_integers_where_they_fit() -> None:
    x = ("float64", [1.5, -1.5, 2.0**63, -(2.0**63), 1e300, None])
    assert answer("floor(x)", x=x) == [1, -2, None, MIN, None, None]
    assert answer("ceil(x)", x=x) == [2, -1, None, MIN, None, None]
    assert all(type(v) is int for v in answer("floor(x)", x=("float64", [1.5, -0.5])))


def test_an_integer_is_compared_with_a_double_as_a_double() -> None:
    i = ("int64", [2**53 + 1, 2**53, 1])
    x = ("float64", [2.0**53, 2.0**53, 1.5])
    assert answer("i = x", i=i, x=x) == [True, True, False]
    assert answer("i < x", i=i, x=x) == [False, False, True]


def test_and_or_not_have_three_values() -> None:
    t, f, n = True, False, None
    a, b = ("bool", [t, t, t, f, f, f, n, n, n]), ("bool", [t, f, n] * 3)
    assert answer("a AND b", a=a, b=b) == [t, f, n, f, f, f, n, f, n]
    assert answer("a OR b", a=a, b=b) == [t, t, t, t, f, n, t, n, n]
    assert answer("NOT a", a=("bool", [t, f, n])) == [f, t, n]
    assert answer("a AND b AND NULL", a=("bool", [t, f]), b=("bool", [t, t])) == [n, f]


def test_nulls_compare_to_null_and_is_null_never_does() -> None:
    a = ("int64", [1, None])
    assert answer("a = 1", a=a) == [True, None]
    assert answer("a <> 0", a=a) == [True, None]
    assert answer("a IS NULL", a=a) == [False, True]
    assert answer("a IS NOT NULL", a=a) == [True, False]
    assert answer("a IN (1, 2)", a=a) == [True, None]
    assert answer("a NOT IN (1, 2)", a=a) == [False, None]
    assert answer("a BETWEEN 0 AND 5", a=a) == [True, None]


def test_case_takes_the_first_true_branch() -> None:
    a = ("int64", [1, 5, None, 0])
    assert answer("CASE WHEN a > 3 THEN 'big' WHEN a > 0 THEN 'small' END", a=a) == ["small", "big", None, None]
    assert answer("CASE a WHEN 1 THEN 10 WHEN 5 THEN 0.5 ELSE a END", a=a) == [10.0, 0.5, None, 0.0]


def test_coalesce_nullif_greatest_and_least() -> None:
    a, b = ("int64", [1, None, None, 4]), ("int64", [2, 3, None, -1])
    assert answer("COALESCE(a, b)", a=a, b=b) == [1, 3, None, 4]
    assert answer("COALESCE(a, 0)", a=a) == [1, 0, 0, 4]
    assert answer("NULLIF(a, 4)", a=a) == [1, None, None, None]
    assert answer("greatest(a, b)", a=a, b=b) == [2, 3, None, 4]
    assert answer("least(a, b)", a=a, b=b) == [1, 3, None, -1]


def test_text_is_counted_in_code_points() -> None:
    s = ("string", ["abc", "ñ🤦🏼x", "", None])
    assert answer("length(s)", s=s) == [3, 4, 0, None]
    assert answer("substr(s, 2, 2)", s=s) == ["bc", "🤦🏼", "", None]
    assert answer("substr(s, 3)", s=s) == ["c", "🏼x", "", None]
    assert answer("upper(s)", s=s) == ["ABC", "ñ🤦🏼X", "", None]
    assert answer("lower('ÀBC')") == ["Àbc"]
    assert answer("s || '!'", s=s) == ["abc!", "ñ🤦🏼x!", "!", None]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("abc", ["abc"]), ("a%", ["abc", "a\nc", "a.c"]), ("%c", ["abc", "a\nc", "a.c"]), ("%b%", ["abc"]),
        ("a_c", ["abc", "a\nc", "a.c"]), ("_", ["🤦"]), ("a.c", ["a.c"]),
        ("%", ["abc", "a\nc", "a.c", "🤦", "", "ABC"]),
        ("%%", ["abc", "a\nc", "a.c", "🤦", "", "ABC"]), ("", [""]), ("a%c", ["abc", "a\nc", "a.c"]),
    ],
)  # fmt: skip
def test_like_matches_the_whole_text(pattern: str, matched: list[str]) -> None:
    texts = ["abc", "a\nc", "a.c", "🤦", "", "ABC"]
    found = answer(f"s LIKE '{pattern}'", s=("string", texts))
    assert [t for t, ok in zip(texts, found, strict=True) if ok] == matched


def test_date_trunc_goes_by_the_calendar_in_utc() -> None:
    at = ("timestamp", [1_322_697_599_999_999, -1, None])  # 2011-11-30 23:59:59.999999, 1969-12-31 23:59:59.999999
    assert answer("date_trunc('minute', at)", at=at) == [1_322_697_540_000_000, -60_000_000, None]
    assert answer("date_trunc('hour', at)", at=at) == [1_322_694_000_000_000, -3_600_000_000, None]
    assert answer("date_trunc('day', at)", at=at) == [1_322_611_200_000_000, -86_400_000_000, None]
    assert answer("date_trunc('week', at)", at=at) == [1_322_438_400_000_000, -259_200_000_000, None]  # Mondays
    assert answer("date_trunc('month', at)", at=at) == [1_320_105_600_000_000, -2_678_400_000_000, None]
    assert answer("date_trunc('year', at)", at=at) == [1_293_840_000_000_000, -31_536_000_000_000, None]


def test_constants_fill_the_length_and_no_rows_are_no_trouble() -> None:
    assert evaluate(parse("1 + 1", {}, place="test"), {}, 3).to_list() == [2, 2, 2]
    none: dict[str, tuple[Dtype, list[Any]]] = {"a": ("int64", []), "s": ("string", []), "x": ("float64", [])}
    for text in ["a * a + 1", "a % 2", "s || 'x'", "upper(s) LIKE 'a%'", "x / 2", "floor(x)", "a IN (1)", "s IN ('a')"]:
        assert answer(text, **none) == []


def test_bytes_compare_and_choose() -> None:
    a, b = ("bytes", [b"a", None, b"\xff"]), ("bytes", [b"a", b"b", b"b"])
    assert answer("a = b", a=a, b=b) == [True, None, False]
    assert answer("COALESCE(a, b)", a=a, b=b) == [b"a", b"b", b"\xff"]


def test_the_columns_given_are_left_as_they_were() -> None:
    a = Column.of("int64", [1, None, MAX])
    before = a.values.copy()
    for text in ["-a", "a * 2", "COALESCE(a, 5)", "NULLIF(a, 1)", "a + a", "abs(a)"]:
        evaluate(parse(text, {"a": "int64"}, place="test"), {"a": a}, 3)
    assert (a.values == before).all()
    assert a.mask().tolist() == [True, False, True]
