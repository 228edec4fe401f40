"""Columns of lists from events of any format: which lists fit, and why others do not.

Apart from the decoders because all of them ask. A list is taken whole or not at all: an element that is null,
NaN, an infinity, past 64 bits or no time makes the event a dead letter, as another length than the schema's does.
(A column of one value has null for a NaN; a null inside of a list has no place in Feast's types.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.dtypes import element_of, shown
from headwater.events.timestamps import parse_timestamps
from headwater.plans.plan import Field

Mask = NDArray[np.bool_]


def list_column(f: Field, items: Sequence[Sequence[Any] | None]) -> tuple[Column, Mask]:
    """The column of lists (None for null), and where one does not fit; there it is empty.

    Raises:
        OverflowError: an integer past 64 bits.
    """
    given = [() if x is None else x for x in items]
    counts = np.fromiter(map(len, given), np.int64, len(given))
    valid = np.fromiter((x is not None for x in items), np.bool_, len(items))
    bad = np.zeros(len(items), np.bool_) if f.length is None else valid & (counts != f.length)
    flat, wrong = _elements(element_of(f.dtype), list(chain.from_iterable(given)))
    bad[np.repeat(np.arange(len(items)), counts)[wrong]] = True
    values = object_array(split(flat, counts))
    for i in np.flatnonzero(bad).tolist():
        values[i] = []
    return Column(f.dtype, values, None if valid.all() else valid), bad


def _elements(element: str, flat: list[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """The elements as a column holds them, and the places of those that do not fit."""
    none = np.zeros(0, np.int64)
    if element == "float64":
        doubles = np.array(flat, np.float64)
        return (doubles + 0.0).tolist(), np.flatnonzero(~np.isfinite(doubles))
    if element == "timestamp":
        times, valid, _ = parse_timestamps(flat)
        return times.tolist(), np.flatnonzero(~valid)
    if element == "int64":
        return np.array(flat, np.int64).tolist(), none
    return flat, none


def list_misfit(f: Field, items: Sequence[Any]) -> str:
    """Why a list does not fit, in words."""
    if f.length is not None and len(items) != f.length:
        return f"{f.name}: expected {shown(f.dtype, f.length)} values, got {len(items)}"
    for i, item in enumerate(items):
        if isinstance(item, float) and not math.isfinite(item):
            return f"{f.name}: element {i} is {item}; the elements of a list are finite"
        if isinstance(item, int) and not -(2**63) <= item < 2**63:
            return f"{f.name}: element {i} is an integer that does not fit 64 bits"
        if f.dtype == "list[timestamp]" and not parse_timestamps([item])[1].all():
            return f"{f.name}: element {i}, {ascii(item)[:60]}, is not an RFC 3339 timestamp of the years 1 to 9999"
    return f"{f.name}: a list that does not fit"


def split(flat: Sequence[Any], counts: NDArray[np.int64]) -> Iterable[Sequence[Any]]:
    """Elements as lists of so many each."""
    ends = np.cumsum(counts).tolist()
    return (flat[a:b] for a, b in zip([0, *ends], ends, strict=False))


def object_array(items: Iterable[Any]) -> NDArray[Any]:
    """A one-dimensional array of lists; numpy would look into them."""
    return np.fromiter(items, object)
