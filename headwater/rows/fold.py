"""Rows of many keys at once, from events alone: backfill, and the check's replay.

The same tables, laws and codec as the worker's, so equal events give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.events.select import Selected
from headwater.rows.layout import RowLayout
from headwater.rows.table import RowTable

EVENTS_A_SLICE = 100_000
BYTES_A_SLICE = 256 << 20


@dataclass(frozen=True, slots=True)
class FoldedRow:
    """One row computed from events: its join key values, and its bytes."""

    key: tuple[Any, ...]
    data: bytes


def key_items(keys: Sequence[Column]) -> list[Any]:
    """Each event's key as a dictionary's key: the value itself for one join key, else a tuple."""
    if len(keys) == 1:
        items: list[Any] = keys[0].values.tolist()
        return items
    return list(zip(*(k.values.tolist() for k in keys), strict=True))


def key_codes(keys: Sequence[Column]) -> tuple[NDArray[np.int64], list[Any]]:
    """A number for each event's key, and the keys by number, in order of first appearance."""
    codes: dict[Any, int] = {}
    items = key_items(keys)
    found = np.fromiter((codes.setdefault(k, len(codes)) for k in items), np.int64, len(items))
    return found, list(codes)


def fold(
    layout: RowLayout, events: Selected, *, born: int | Mapping[Any, Mapping[int, int]] | None
) -> Iterator[FoldedRow]:
    """The row of every key, from its events.

    `born`: as in `RowTable.fold`; or, by key and partition, the born offsets that rows claim for themselves.
    """
    codes, keys = key_codes(events.keys)
    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    rows_a_slice = max(1, BYTES_A_SLICE // RowTable(layout, 1).bytes_a_row)
    first = 0
    while first < len(order):
        last = _slice_end(sorted_codes, first, rows_a_slice)
        mine = order[first:last]
        low, high = int(sorted_codes[first]), int(sorted_codes[last - 1]) + 1
        table = RowTable(layout, high - low)
        rows, _ = table.numbers(keys[low:high])
        table.fold(codes[mine] - low, events.take(mine), born=None if isinstance(born, Mapping) else born)
        if isinstance(born, Mapping):
            table.claim_born(rows, [born.get(k, {}) for k in keys[low:high]])
        for key, data in zip(keys[low:high], table.encode(rows)[0], strict=True):
            yield FoldedRow(key if len(events.keys) > 1 else (key,), bytes(data))
        first = last


def _slice_end(codes: NDArray[np.int64], first: int, rows: int) -> int:
    """Where a slice ends that begins at `first`: at a key's end, at about so many events or rows."""
    by_rows = int(np.searchsorted(codes, codes[first] + rows))
    if by_rows - first <= EVENTS_A_SLICE:
        return by_rows
    cut = int(codes[first + EVENTS_A_SLICE])
    return int(np.searchsorted(codes, max(cut, int(codes[first]) + 1)))
