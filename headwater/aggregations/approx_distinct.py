"""Approximate distinct counts: exact to 256 values, then HyperLogLog registers over MD5.

Order-free by construction: the state of a set of values is the sorted set of their hashes
while it has at most 256, else 2,048 registers, whichever way it was put together. The hash
is the upper 64 bits of MD5 over the value's text, which every SQL engine has too.
Estimator: O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches",
arXiv:1702.01284, algorithm 6.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from headwater.aggregations.numbers import scaled
from headwater.columns import Column, codes_of

LIMIT = 256
BITS = 11
REGISTERS = 1 << BITS
RANK_BITS = 64 - BITS
SCALE = 6
"""A double is hashed as the text of its integer at this scale, whatever the feature's scale is."""

EXACT, FULL = b"\x00", b"\x01"
"""First byte of the packed state: 8-byte little-endian hashes rising follow, or 2,048 registers."""


@lru_cache(maxsize=1 << 20)
def hash_of(text: str | bytes) -> int:
    """The upper 64 bits of MD5 over the text in UTF-8 (bytes as they are), unsigned."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.md5(data, usedforsecurity=False).digest()[:8], "big")


def hashes(column: Column) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The hash of every value, and where there is one (nulls have none).

    All doubles that do not fit 64 bits when scaled count as one value, the text None, as in the reference.
    """
    valid = column.mask()
    if column.dtype == "float64":
        column = scaled(column, SCALE)
        if column.valid is not None:
            items: list[object] = column.to_list()
            texts = np.empty(len(items), object)
            texts[:] = items
            column = Column("string", texts)
    unique, inverse = codes_of(column)
    table = np.fromiter((hash_of(_text(v)) for v in unique), np.uint64, len(unique))
    return table[inverse], valid


def _text(value: object) -> str | bytes:
    if isinstance(value, bytes):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def pack(distinct: NDArray[np.uint64]) -> bytes:
    """The packed state of a set of hashes, given sorted and each once."""
    if len(distinct) <= LIMIT:
        return EXACT + distinct.astype("<u8").tobytes()
    return FULL + registers_of(distinct).tobytes()


def merge(packed: Iterable[bytes]) -> bytes:
    """The packed state of the union of several packed states."""
    states = [p for p in packed if p]
    if len(states) == 1:
        return states[0]
    found = np.unique(np.frombuffer(b"".join([p[1:] for p in states if p[:1] == EXACT]), "<u8").astype(np.uint64))
    full = [np.frombuffer(p, np.uint8, offset=1) for p in states if p[:1] == FULL]
    if not full:
        return pack(found)
    if len(found):
        full.append(registers_of(found))
    return FULL + bytes(np.maximum.reduce(full))


def estimate_packed(packed: bytes) -> int:
    """The number that a packed state stands for (b"" is the empty set)."""
    if packed[:1] != FULL:
        return max(len(packed) - 1, 0) // 8
    return estimate(np.frombuffer(packed, np.uint8, offset=1))


def registers_of(hashed: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """2,048 HyperLogLog registers of hashes: the first 11 bits choose one, the rest gives its rank."""
    index = (hashed >> np.uint64(RANK_BITS)).astype(np.int64)
    rest = hashed & np.uint64((1 << RANK_BITS) - 1)
    # A double holds any integer below 2**53 exactly, so its binary exponent is the bit length.
    rank = (RANK_BITS + 1 - np.frexp(rest.astype(np.float64))[1]).astype(np.uint8)
    out = np.zeros(REGISTERS, np.uint8)
    np.maximum.at(out, index, rank)
    return out


def estimate(registers: NDArray[np.uint8]) -> int:
    """Ertl's improved estimate, rounded to an integer."""
    q = RANK_BITS
    histogram = np.bincount(registers, minlength=q + 2).tolist()
    z = REGISTERS * _tau((REGISTERS - histogram[q + 1]) / REGISTERS)
    for k in range(q, 0, -1):
        z = 0.5 * (z + histogram[k])
    z += REGISTERS * _sigma(histogram[0] / REGISTERS)
    return 0 if math.isinf(z) else round(0.5 / math.log(2) * REGISTERS * REGISTERS / z)


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z, last = 1.0, x, math.nan
    while z != last:
        x, last = x * x, z
        z, y = z + x * y, y + y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, last = 1.0, 1.0 - x, math.nan
    while z != last:
        x, last, y = math.sqrt(x), z, y * 0.5
        z -= (1.0 - x) * (1.0 - x) * y
    return z / 3.0
