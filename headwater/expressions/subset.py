"""The expression subset as one table: what may be written, what it means, and for which types.

Apart from the parser because three places read it: the parser (names, what to say where
something is refused), the documentation (docs/expressions.md holds `markdown_table()`), and
whoever asks what an `op` of the tree means. The first column of the table is what a user writes.

The rules that hold for all rows:

- Types are int64, float64, string, bool, timestamp and bytes. Nothing is converted silently but
  int64 to float64, where an int64 meets a float64 (also in comparisons, as DuckDB and Spark do).
- A null operand gives null, but for AND, OR, IS NULL, CASE, COALESCE, greatest and least.
- An int64 result past 64 bits is null; a float64 result that is not finite is null; -0.0 is 0.0.
- Nothing fails while it runs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Construct:
    """One row of the table. `ops`: the names of `syntax.Call.op` that it becomes."""

    written: str
    meaning: str
    types: str
    ops: tuple[str, ...] = ()


SUBSET: tuple[Construct, ...] = (
    Construct('`name`, `"Name"`', "a column of the source or a derived one; case matters", "any"),
    Construct("`12`, `-12`", "a 64-bit integer", "int64"),
    Construct("`1.5`, `2e3`", "a double, never a decimal", "float64"),
    Construct("`'it''s'`", "text; a backslash is an ordinary character", "string"),
    Construct("`TRUE`, `FALSE`, `NULL`", "constants; NULL takes the type of its surroundings", "bool, any"),
    Construct("`TIMESTAMP '2011-01-31 08:26:00'`", "a time in UTC, up to microseconds", "timestamp"),
    Construct(
        "`a + b`, `a - b`, `a * b`, `-a`",
        "arithmetic; null where an int64 result does not fit",
        "int64, or float64 where one side is",
        ("add", "sub", "mul", "neg"),
    ),
    Construct("`a / b`", "division of doubles; null where b is 0", "numbers → float64", ("div",)),
    Construct("`a % b`", "remainder with the sign of a; null where b is 0", "int64 → int64", ("mod",)),
    Construct("`abs(a)`", "null for the smallest int64", "int64, float64", ("abs",)),
    Construct("`sqrt(a)`", "null below 0", "numbers → float64", ("sqrt",)),
    Construct(
        "`floor(a)`, `ceil(a)`",
        "the only way from a double to an integer; null where it does not fit",
        "float64 → int64",
        ("floor", "ceil"),
    ),
    Construct("`CAST(a AS DOUBLE)`", "an integer as a double", "int64 → float64", ("to_double",)),
    Construct(
        "`=`, `<>`, `<`, `<=`, `>`, `>=`",
        "comparison; text by code points; no order for bool",
        "two of one type, or two numbers → bool",
        ("eq", "ne", "lt", "le", "gt", "ge"),
    ),
    Construct("`a [NOT] BETWEEN b AND c`", "`a >= b AND a <= c`", "as comparison"),
    Construct("`a [NOT] IN (1, 2, 3)`", "equal to one of the constants, none of them NULL", "as comparison", ("in",)),
    Construct("`a IS [NOT] NULL`", "never null itself", "any → bool", ("is_null",)),
    Construct("`AND`, `OR`, `NOT`", "SQL's three-valued logic", "bool", ("and", "or", "not")),
    Construct(
        "`CASE WHEN c THEN x … ELSE y END`, `CASE a WHEN b THEN x … END`",
        "the first branch whose condition is true; null without ELSE",
        "branches of one type, or numbers",
        ("case",),
    ),
    Construct("`COALESCE(a, b, …)`", "the first that is not null", "one type, or numbers", ("coalesce",)),
    Construct("`NULLIF(a, b)`", "null where a = b, else a", "as comparison → type of a", ("case",)),
    Construct(
        "`greatest(a, b, …)`, `least(a, b, …)`",
        "nulls are skipped; null where all are null",
        "numbers, string, timestamp",
        ("greatest", "least"),
    ),
    Construct("`a || b`", "concatenation", "string", ("concat",)),
    Construct("`length(s)`", "number of code points", "string → int64", ("length",)),
    Construct("`upper(s)`, `lower(s)`", "the letters A to Z only", "string", ("upper", "lower")),
    Construct(
        "`substr(s, start[, n])`",
        "n code points from start, the first is 1; start and n constants",
        "string",
        ("substr",),
    ),
    Construct(
        "`s [NOT] LIKE 'a%_'`",
        "`%` any text, `_` one code point; case matters; a constant pattern without backslash",
        "string → bool",
        ("like",),
    ),
    Construct(
        "`date_trunc('hour', t)`",
        "the start, in UTC, of the minute, hour, day, week (Monday), month or year",
        "timestamp",
        ("date_trunc",),
    ),
)

FUNCTIONS: tuple[str, ...] = (
    "abs", "ceil", "coalesce", "date_trunc", "floor", "greatest", "least", "length", "lower", "nullif",
    "sqrt", "substr", "upper",
)  # fmt: skip
"""The functions of the subset, by the name that messages offer."""

OPERATORS = "+ - * / % || = <> < <= > >= AND OR NOT IN BETWEEN LIKE IS NULL CASE CAST(… AS DOUBLE)"

TRUNC_UNITS: tuple[str, ...] = ("minute", "hour", "day", "week", "month", "year")

MAX_TEXT = 10_000
"""Characters of an expression."""
MAX_DEPTH = 100
"""Levels of the tree: engines and Python's own stack bear it with room."""
MAX_SUBSTR = 1_000_000

REFUSED: dict[str, str] = {
    "round": "the last digit differs between engines; floor(x + 0.5) gives an integer",
    "exp": "the last digits differ between engines",
    "ln": "the last digits differ between engines",
    "log": "the last digits differ between engines",
    "pow": "the last digits differ between engines; write x * x",
    "trim": "engines differ on what white space is",
    "intdiv": "engines differ; write floor(a / b)",
    "if": "write CASE WHEN … THEN … ELSE … END",
    "ilike": "write lower(s) LIKE '…'",
    "trycast": "only CAST(an integer AS DOUBLE) converts, and it cannot fail",
    "nullsafeeq": "write a = b OR (a IS NULL AND b IS NULL)",
    "nullsafeneq": "write NOT (a = b) with IS NULL where nulls count",
    "escape": "a LIKE pattern has no escape character",
    "concat": "engines differ on nulls; write a || b",
    "interval": "timestamps are compared and truncated, not added to",
    "subquery": "an expression sees one event",
    "select": "an expression sees one event",
    "count": "aggregates are features, not expressions",
    "sum": "aggregates are features, not expressions",
    "avg": "aggregates are features, not expressions",
    "max": "aggregates are features, not expressions; write greatest(a, b)",
    "min": "aggregates are features, not expressions; write least(a, b)",
}
"""Why a common construct is not in the subset and what to write instead, by its name in lower case."""


def markdown_table() -> str:
    """The subset as the Markdown table of docs/expressions.md."""
    rows = ["| written | meaning | types |", "| --- | --- | --- |"]
    rows += [f"| {_cell(c.written)} | {_cell(c.meaning)} | {_cell(c.types)} |" for c in SUBSET]
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
