"""The operators of a StreamView: what is aggregated, over which windows. One statistic, one class.

They only carry what was written; `plans/aggregates.py` checks and types them, and
`aggregations/` computes them. All take by keyword:

- `over`: windows such as `["1h", "30d"]`; left out, or "all", means the lifetime window.
- `where`: a condition in the expression subset; only events for which it is true enter.
- `name`: overrides the feature's name. With several windows it is the stem: `{name}_{window}`.
- `hop`: overrides the hop of all these windows (the window law chooses it otherwise).

Names are `{column}_{function}_{window}`, without the column for Count, without the function for Latest, and without
the window for the lifetime: `amount_sum_1h`, `count_1h`, `country_last`, `country`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as _field
from typing import ClassVar

from headwater.definitions.facts import OperatorFacts

Windows = str | Sequence[str] | None


@dataclass(frozen=True)
class Operator:
    """What all operators share."""

    function: ClassVar[str] = ""
    over: Windows = _field(default=None, kw_only=True)
    where: str | None = _field(default=None, kw_only=True)
    name: str | None = _field(default=None, kw_only=True)
    hop: str | None = _field(default=None, kw_only=True)

    def facts(self) -> OperatorFacts:
        """The operator as plain data."""
        return OperatorFacts(
            function=self.function,
            column=getattr(self, "column", None),
            over=self.over,
            where=self.where,
            name=self.name,
            hop=self.hop,
            scale=getattr(self, "scale", None),
            n=getattr(self, "n", None),
            limit=getattr(self, "limit", None),
            q=getattr(self, "q", None),
        )


@dataclass(frozen=True)
class OfColumn(Operator):
    """What operators share that take the values of a column; nulls do not enter."""

    column: str


@dataclass(frozen=True)
class OfNumbers(OfColumn):
    """What operators share that compute with exact numbers.

    A double enters as the integer `floor(x * 10**scale + 0.5)`, scale 0 to 15.
    """

    scale: int = _field(default=6, kw_only=True)


@dataclass(frozen=True)
class Count(Operator):
    """The number of events, nulls or not: int64, 0 where there are none."""

    function: ClassVar[str] = "count"


@dataclass(frozen=True)
class Sum(OfNumbers):
    """The exact sum of a numeric column: int64 of int64, float64 of float64; null where there are none.

    A double enters as the integer `floor(x * 10**scale + 0.5)`, scale 0 to 15.
    """

    function: ClassVar[str] = "sum"


@dataclass(frozen=True)
class Mean(OfNumbers):
    """The exact mean of a numeric column, rounded once: float64; null where there are none.

    A double enters as the integer `floor(x * 10**scale + 0.5)`, scale 0 to 15.
    """

    function: ClassVar[str] = "mean"


@dataclass(frozen=True)
class Var(OfNumbers):
    """The exact sample variance (with n - 1) of a numeric column, rounded once: float64; null below two values.

    A double enters as the integer `floor(x * 10**scale + 0.5)`, scale 0 to 15.
    """

    function: ClassVar[str] = "var"


@dataclass(frozen=True)
class Stddev(OfNumbers):
    """The square root of Var, rounded to the nearest double: float64; null below two values."""

    function: ClassVar[str] = "stddev"


@dataclass(frozen=True)
class Min(OfColumn):
    """The least value of a column, of the column's type; null where there are none."""

    function: ClassVar[str] = "min"


@dataclass(frozen=True)
class Max(OfColumn):
    """The greatest value of a column, of the column's type; null where there are none."""

    function: ClassVar[str] = "max"


@dataclass(frozen=True)
class First(OfColumn):
    """The oldest value of a column that is not null, by (event time, partition, offset)."""

    function: ClassVar[str] = "first"


@dataclass(frozen=True)
class Last(OfColumn):
    """The newest value of a column that is not null, by (event time, partition, offset)."""

    function: ClassVar[str] = "last"


@dataclass(frozen=True)
class Latest(OfColumn):
    """The column's value in the newest event, null where it is null there; null where there are none.

    Newest is by event time, partition and offset. `Last` passes over nulls, this does not: several of them always
    come from one event. Its name is the column's. In `features` the column's name alone says the same: "country".
    """

    function: ClassVar[str] = "latest"


@dataclass(frozen=True)
class LastN(OfColumn):
    """The newest n values of a column that are not null, newest first: a list, empty where there are none.

    By (event time, partition, offset); n from 1 to 1,000.
    """

    function: ClassVar[str] = "last_n"
    n: int


@dataclass(frozen=True)
class Distinct(OfColumn):
    """The number of distinct values, exact up to `limit`: int64, 0 where there are none.

    A window with more values than that says `limit`, so a value of `limit` means "that many or more". The limit goes
    from 1 to 10,000; ApproxDistinct has none.
    """

    function: ClassVar[str] = "distinct"
    limit: int = _field(default=1000, kw_only=True)


@dataclass(frozen=True)
class TopK(OfColumn):
    """The n values that came most often, as pairs [value, count]: by count falling, then by value rising.

    Empty where there are none. Null where the window holds more than `limit` distinct values (1 to 10,000), for
    counts are exact or not given. n from 1 to 1,000.
    """

    function: ClassVar[str] = "top_k"
    n: int
    limit: int = _field(default=1000, kw_only=True)


@dataclass(frozen=True)
class ApproxQuantile(OfNumbers):
    """The q-quantile of a numeric column by nearest rank, q from 0 to 1: float64; null where there are none.

    Within 1/128 of the value of that rank, and exact for integers below 128. A double enters as the integer
    `floor(x * 10**scale + 0.5)`, scale 0 to 15. Two of one column and window need another `name`.
    """

    function: ClassVar[str] = "approx_quantile"
    q: float


@dataclass(frozen=True)
class ApproxDistinct(OfColumn):
    """The number of distinct values: int64, exact to 256, then within some 2.3 %; 0 where there are none."""

    function: ClassVar[str] = "approx_distinct"


def operator_facts(item: object) -> OperatorFacts:
    """The facts of an operator, or of a column's name; of anything else its repr, which compiling then refuses."""
    if isinstance(item, str):
        item = Latest(item)
    return item.facts() if isinstance(item, Operator) else OperatorFacts(repr(item))
