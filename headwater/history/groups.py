"""Join keys as small integers: the same code for the same key in the spine and in the events.

Apart because windows and as-of joins both need it, and everything behind it is arithmetic
over one int64 array instead of comparisons of tuples of strings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.dtypes import arrow_type
from headwater.events.batch import concat_columns

NO_KEY = -1
"""The code of a key with a null in it."""


def codes(
    left: Sequence[Column], right: Sequence[Column], sizes: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Codes of two sides' keys (a column a join key): int64[left rows], int64[right rows], and their bound.

    Equal keys have equal codes, from 0 and below the bound; a key with a null has NO_KEY. Where
    there are no join keys (an entity-less view), all rows have the code 0.
    """
    total, bound = np.zeros(sum(sizes), np.int64), 1
    for one, other in zip(left, right, strict=True):
        more, more_bound = _codes_of(concat_columns([one, other]))
        if bound == 1:
            total, bound = np.where(total < 0, NO_KEY, more), more_bound
            continue
        null = (total < 0) | (more < 0)
        total, bound = _dense(np.where(null, 0, total * more_bound + more), bound * more_bound)
        total = np.where(null, NO_KEY, total)
    return total[: sizes[0]], total[sizes[0] :], bound


def _codes_of(column: Column) -> tuple[NDArray[np.int64], int]:
    values = column.values
    if column.dtype in ("int64", "timestamp", "bool"):
        found, bound = _of_integers(values.astype(np.int64, copy=False), column.valid)
    else:
        found, bound = _encode(pa.array(values, arrow_type(column.dtype)))
    return (found, bound) if column.valid is None else (np.where(column.valid, found, NO_KEY), bound)


def _of_integers(values: NDArray[np.int64], valid: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], int]:
    known = values if valid is None else values[valid]
    if not len(known):
        return np.zeros(len(values), np.int64), 1
    low, high = int(known.min()), int(known.max())
    if high - low < 4 * len(values) + 1024:
        return np.clip(values, low, high) - low, high - low + 1
    return _encode(pa.array(values))


def _dense(values: NDArray[np.int64], bound: int) -> tuple[NDArray[np.int64], int]:
    if bound < 4 * len(values) + 1024:
        return values, bound
    return _encode(pa.array(values))


def _encode(array: pa.Array) -> tuple[NDArray[np.int64], int]:
    encoded = array.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary) or 1
