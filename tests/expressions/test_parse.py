"""What the parser makes of text, and what it says of text that is outside of the subset."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headwater.dtypes import Dtype
from headwater.errors import DefinitionError
from headwater.expressions.parse import parse
from headwater.expressions.subset import FUNCTIONS, SUBSET, markdown_table
from headwater.expressions.syntax import Call, Expr, Literal, Ref

COLUMNS: dict[str, Dtype] = {
    "quantity": "int64", "unit_price": "float64", "country": "string", "paid": "bool", "invoice_ts": "timestamp",
    "Odd name": "int64",
}  # fmt: skip
PLACE = "where of view 'customer_spend'"


def parsed(text: str) -> Expr:
    return parse(text, COLUMNS, place=PLACE)


def error(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        parsed(text)
    message = str(caught.value)
    assert message.startswith(f"{PLACE}: ")
    return message


def test_an_integer_meets_a_double_as_a_double() -> None:
    quantity, price = Ref("quantity", "int64"), Ref("unit_price", "float64")
    widened = Call("to_double", (quantity,), "float64")
    assert parsed("quantity * unit_price") == Call("mul", (widened, price), "float64")
    assert parsed("unit_price > 5") == Call("gt", (price, Literal("5.0", "float64")), "bool")
    assert parsed("quantity / 2") == Call("div", (widened, Literal("2.0", "float64")), "float64")


def test_literals_have_exact_types() -> None:
    assert parsed("12") == Literal(12, "int64")
    assert parsed("-9223372036854775808") == Literal(-(2**63), "int64")
    assert parsed("1.50") == Literal("1.5", "float64")
    assert parsed("-0.0") == Literal("0.0", "float64")
    assert parsed("2e3") == Literal("2000.0", "float64")
    assert parsed("'it''s \\ all'") == Literal("it's \\ all", "string")
    assert parsed("TIMESTAMP '1970-01-01 00:00:01.000002'") == Literal(1_000_002, "timestamp")


def test_sugar_becomes_the_plain_constructs() -> None:
    assert parsed("quantity BETWEEN 1 AND 5") == parsed("quantity >= 1 AND quantity <= 5")
    assert parsed("quantity NOT IN (1, 2)") == parsed("NOT quantity IN (1, 2)")
    assert parsed("NULLIF(quantity, 0)") == parsed("CASE WHEN quantity = 0 THEN NULL ELSE quantity END")
    assert parsed("CASE country WHEN 'France' THEN 1 END") == parsed("CASE WHEN country = 'France' THEN 1 END")
    assert parsed("unit_price::DOUBLE") == Ref("unit_price", "float64")
    assert parsed('"Odd name" % 2').dtype == "int64"
    assert parsed("paid AND (quantity > 0 AND unit_price > 0)") == parsed("paid AND quantity > 0 AND unit_price > 0")


def test_the_tree_survives_json() -> None:
    tree = parsed("CASE WHEN paid THEN floor(unit_price) ELSE NULL END + -1")
    assert msgspec.json.decode(msgspec.json.encode(tree), type=Expr) == tree


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("quantity % 7", "int64"), ("-quantity", "int64"), ("abs(unit_price)", "float64"), ("sqrt(4)", "float64"),
        ("floor(unit_price)", "int64"), ("floor(quantity)", "int64"), ("country || '!'", "string"),
        ("length(country)", "int64"), ("upper(substr(country, 1, 2))", "string"), ("country LIKE 'U%'", "bool"),
        ("date_trunc('month', invoice_ts)", "timestamp"), ("COALESCE(quantity, 0.5)", "float64"),
        ("greatest(quantity, 1, NULL)", "int64"), ("invoice_ts >= TIMESTAMP '2011-01-01'", "bool"),
        ("paid = TRUE OR NULL", "bool"), ("NULLIF(quantity, 0.5)", "int64"), ("CAST(NULL AS DOUBLE)", "float64"),
    ],
)  # fmt: skip
def test_every_construct_has_its_type(text: str, dtype: str) -> None:
    assert parsed(text).dtype == dtype


def test_an_unknown_column_is_named_with_its_neighbours() -> None:
    message = error("quantty > 0")
    assert "unknown column 'quantty'" in message
    assert "Did you mean 'quantity'?" in message
    assert "The expression: quantty > 0" in message
    assert "Did you mean 'quantity'?" in error("Quantity > 0")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 = '1'", "int64 and string do not go together"),
        ("true = 1", "bool and int64 do not go together"),
        ("country > 5", "int64 and string do not go together"),
        ("country || 1", "expected string, got int64"),
        ("invoice_ts + 1", "int64 and timestamp do not go together"),
        ("invoice_ts = '2011-01-01'", "string and timestamp do not go together"),
        ("quantity AND paid", "expected bool, got int64"),
        ("CASE WHEN quantity THEN 1 END", "expected bool, got int64"),
        ("CASE WHEN paid THEN 1 ELSE 'x' END", "int64 and string do not go together"),
        ("unit_price % 2", "expected int64, got float64"),
        ("paid < TRUE", "bool has no order"),
        ("-country", "expected int64 or float64, got string"),
        ("length(quantity)", "expected string, got int64"),
        ("greatest(paid, TRUE)", "got bool"),
        ("NULL", "NULL alone has no type"),
        ("NULL + NULL", "NULL alone has no type"),
        ("NULL = NULL", "NULL alone has no type"),
        ("9223372036854775808", "does not fit a 64-bit integer"),
        ("1e400", "does not fit a double"),
        ("TIMESTAMP '2011-02-30'", "is no time"),
        ("TIMESTAMP 'yesterday'", "expected TIMESTAMP 'YYYY-MM-DD HH:MM:SS' in UTC"),
        ("quantity IN (1, NULL)", "none of them NULL"),
        ("quantity IN (unit_price)", "IN takes constants"),
        ("quantity IN (SELECT 1)", "not in the subset"),
        ("country LIKE 'a\\%'", "no backslash"),
        ("country LIKE country", "constant text"),
        ("country LIKE 'a' ESCAPE 'b'", "no escape character"),
        ("substr(country, 0, 2)", "start from 1"),
        ("substr(country, quantity)", "whole constants"),
        ("substr(country, 1, -1)", "length from 0"),
        ("date_trunc('quarter', invoice_ts)", "knows minute, hour, day, week, month, year"),
        ("date_trunc('hour', quantity)", "expected timestamp, got int64"),
        ("CAST(unit_price AS BIGINT)", "floor(x) and ceil(x)"),
        ("CAST(quantity AS VARCHAR)", "CAST is allowed from integers to DOUBLE only"),
        ("CAST('1' AS DOUBLE)", "expected int64 or float64, got string"),
        ("TRY_CAST(quantity AS DOUBLE)", "not in the subset"),
        ("paid IS TRUE", "IS is allowed with NULL only"),
        ("t.quantity > 0", "columns are written by their name alone"),
        ("floor(unit_price, 2)", "'decimals'"),
    ],
)
def test_wrong_types_and_forms_are_refused(text: str, said: str) -> None:
    assert said in error(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("round(unit_price)", "floor(x + 0.5)"),
        ("trim(country)", "white space"),
        ("quantity // 2", "floor(a / b)"),
        ("quantity ^ 2", "x * x"),
        ("quantity ** 2", "x * x"),
        ("if(paid, 1, 2)", "write CASE WHEN"),
        ("country ILIKE 'a%'", "lower(s) LIKE"),
        ("concat(country, 'x')", "write a || b"),
        ("sum(quantity)", "aggregates are features"),
        ("max(quantity)", "greatest(a, b)"),
        ("quantity IS DISTINCT FROM 1", "IS NULL"),
        ("invoice_ts + INTERVAL 1 DAY", "compared and truncated"),
        ("(SELECT 1)", "sees one event"),
        ("md5(country)", "not in the subset"),
        ("no_such_function(quantity)", "not in the subset"),
        ("random()", "not in the subset"),
        ("quantity AS q", "not in the subset"),
        ("quantity q", "not in the subset"),
        ("*", "not in the subset"),
        ("?", "not in the subset"),
        ("[quantity]", "not in the subset"),
        ("quantity & 1", "not in the subset"),
        ("x -> x", "not in the subset"),
        ("country COLLATE nocase = 'a'", "not in the subset"),
        ("exp(unit_price)", "last digits"),
        ("ln(unit_price)", "last digits"),
        ("log(10, unit_price)", "last digits"),
    ],
)
def test_what_is_outside_of_the_subset_says_what_is_allowed(text: str, said: str) -> None:
    message = error(text)
    assert said in message
    assert "Allowed are + - * /" in message
    assert "date_trunc" in message


@pytest.mark.parametrize("text", ["", "  ", "quantity >", "quantity > > 1", "'abc", "quantity; quantity", "SELECT 1"])
def test_what_is_not_one_expression_is_refused(text: str) -> None:
    error(text)


def test_what_is_too_large_is_refused() -> None:
    assert "nested too deeply" in error("-(" * 2_000 + "quantity" + ")" * 2_000)
    assert "nested too deeply" in error(" + ".join(["quantity"] * 200))
    assert "too many" in error(" OR ".join(["paid"] * 5_000))
    assert parsed(" OR ".join(["paid"] * 500)).dtype == "bool"
    assert "NUL" in error("country = 'a\0'")


def test_the_documentation_holds_the_table() -> None:
    document = Path(__file__).parents[2].joinpath("docs", "expressions.md").read_text()
    assert markdown_table() in document


def test_the_table_names_every_function() -> None:
    written = " ".join(c.written.lower() for c in SUBSET)
    assert [name for name in FUNCTIONS if f"{name}(" not in written] == []
