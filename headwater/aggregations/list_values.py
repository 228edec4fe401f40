"""A list as a value of a row: its bytes, equal for equal lists on every path.

Apart from the components because it is a format of its own. Little endian:

====================  ======================================================================
int64, timestamp      8 bytes each, signed
float64               the bits of each double (finite, never -0.0)
bool                  a byte each, 0 or 1
string, bytes         how many there are (u32), the length of each (u32), then their bytes (strings in UTF-8)
====================  ======================================================================

An empty list is no bytes, which a row tells from null.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from headwater.dtypes import element_of

_FIXED = {"int64": "<i8", "timestamp": "<i8", "float64": "<f8", "bool": "|b1"}


def pack_list(values: Sequence[Any], dtype: str) -> bytes:
    """The bytes of a list of type `dtype` ("list[int64]")."""
    kind = _FIXED.get(element_of(dtype))
    if kind is not None:
        return np.array(values, kind).tobytes()
    if not values:
        return b""
    texts = [v if isinstance(v, bytes) else v.encode("utf-8", "surrogatepass") for v in values]
    return b"".join([np.array([len(texts), *map(len, texts)], "<u4").tobytes(), *texts])


def unpack_list(data: bytes, dtype: str) -> list[Any]:
    """The inverse of `pack_list`."""
    element = element_of(dtype)
    if element in _FIXED:
        found: list[Any] = np.frombuffer(data, _FIXED[element]).tolist()
        return found
    if not data:
        return []
    count = int.from_bytes(data[:4], "little")
    ends = list(accumulate(np.frombuffer(data, "<u4", count, 4).tolist(), initial=4 + 4 * count))
    items = [data[a:b] for a, b in pairwise(ends)]
    return items if element == "bytes" else [v.decode("utf-8", "surrogatepass") for v in items]
