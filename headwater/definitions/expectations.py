"""Expectations: what should hold of a source's columns or of a view's features.

On a source they hold for one event at a time, and what fails is quarantined (with `mostly`
below 1 it is only reported). On a view they speak of features: they report, alert and gate
batches, and withhold no event. A null meets Between and InSet; NotNull is what forbids it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headwater.definitions.facts import ExpectationFacts


@dataclass(frozen=True)
class Between:
    """The column lies between `minimum` and `maximum`, both included; None leaves a side open."""

    column: str
    minimum: float | int | None = None
    maximum: float | int | None = None
    mostly: float = 1.0

    def facts(self) -> ExpectationFacts:
        """The expectation as plain data."""
        return ExpectationFacts("between", self.column, self.minimum, self.maximum, mostly=self.mostly)


@dataclass(frozen=True)
class NotNull:
    """The column has a value."""

    column: str
    mostly: float = 1.0

    def facts(self) -> ExpectationFacts:
        """The expectation as plain data."""
        return ExpectationFacts("not_null", self.column, mostly=self.mostly)


@dataclass(frozen=True)
class InSet:
    """The column is one of `values`."""

    column: str
    values: Sequence[Any]
    mostly: float = 1.0

    def facts(self) -> ExpectationFacts:
        """The expectation as plain data."""
        values = self.values if isinstance(self.values, str) else list(self.values)
        return ExpectationFacts("in_set", self.column, values=values, mostly=self.mostly)


def expectation_facts(item: object) -> ExpectationFacts:
    """The facts of an expectation; of anything else its repr, which compiling then refuses."""
    return item.facts() if isinstance(item, Between | NotNull | InSet) else ExpectationFacts(repr(item))
