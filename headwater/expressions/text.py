"""Text functions over object arrays of str, one Python string at a time.

Apart from `evaluate.py` because numpy has no fast text of our kind: these are loops, and each
takes the cheapest one. Characters are Unicode code points, as in DuckDB and Spark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOW, _HIGH = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_UPPER, _LOWER = str.maketrans(_LOW, _HIGH), str.maketrans(_HIGH, _LOW)


def length(values: NDArray[Any]) -> NDArray[np.int64]:
    """Code points of each text."""
    return np.fromiter(map(len, values), np.int64, len(values))


def upper(values: NDArray[Any]) -> NDArray[Any]:
    """a to z become A to Z; all else stays."""
    return _texts((s.upper() if s.isascii() else s.translate(_UPPER) for s in values), len(values))


def lower(values: NDArray[Any]) -> NDArray[Any]:
    """A to Z become a to z; all else stays."""
    return _texts((s.lower() if s.isascii() else s.translate(_LOWER) for s in values), len(values))


def substr(values: NDArray[Any], start: int, count: int | None = None) -> NDArray[Any]:
    """`count` code points (None: all) from `start`, the first being 1."""
    part = slice(start - 1, None if count is None else start - 1 + count)
    return _texts((s[part] for s in values), len(values))


def member(values: NDArray[Any], items: Iterable[Any]) -> NDArray[np.bool_]:
    """Whether each value is one of the items."""
    return np.fromiter(map(frozenset(items).__contains__, values), np.bool_, len(values))


def like(values: NDArray[Any], pattern: str) -> NDArray[np.bool_]:
    """Whether each text matches: % is any text, _ one code point, all else itself."""
    return np.fromiter(map(_matcher(pattern), values), np.bool_, len(values))


def _matcher(pattern: str) -> Callable[[str], bool]:
    inner = pattern.strip("%")
    if "_" not in pattern and "%" not in inner:
        if pattern == inner:
            return inner.__eq__
        starts, ends = pattern.startswith("%"), pattern.endswith("%")
        if starts and ends:
            return lambda s: inner in s
        return (lambda s: s.endswith(inner)) if starts else (lambda s: s.startswith(inner))
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in re.sub("%+", "%", pattern))
    found = re.compile("".join(parts), re.DOTALL).fullmatch
    return lambda s: found(s) is not None


def _texts(items: Iterable[str], count: int) -> NDArray[Any]:
    return np.fromiter(items, object, count)
