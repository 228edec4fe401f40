"""The values of many records in one piece of memory: what the compiled code reads, and a sequence to all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Payloads(Sequence[bytes | None]):
    """Record i is `data[ends[i]:ends[i + 1]]`, or None where `null[i]`.

    Attributes:
        data: uint8, all values behind each other.
        ends: int64[n + 1], from 0.
        null: bool[n], the records without a value.
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]
    null: NDArray[np.bool_]

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Payloads:
        """These values; as they are where they are payloads already."""
        if isinstance(values, Payloads):
            return values
        ends, null = np.zeros(len(values) + 1, np.int64), np.zeros(len(values), np.bool_)
        try:
            joined = b"".join(values)  # type: ignore[arg-type]
        except TypeError:
            null[:] = [v is None for v in values]
            values = [v or b"" for v in values]
            joined = b"".join(values)  # type: ignore[arg-type]
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=ends[1:])  # type: ignore[arg-type]
        return cls(np.frombuffer(joined, np.uint8), ends, null)

    @classmethod
    def concat(cls, parts: Iterable[Sequence[bytes | None]]) -> Payloads:
        """The values of several batches, one behind the other."""
        found = [cls.of(part) for part in parts]
        if len(found) == 1:
            return found[0]
        firsts = np.cumsum([0, *(len(p.data) for p in found)])
        ends = [p.ends[1:] + first for p, first in zip(found, firsts[:-1], strict=True)]
        return cls(
            np.concatenate([p.data for p in found] or [np.empty(0, np.uint8)]),
            np.concatenate([np.zeros(1, np.int64), *ends]),
            np.concatenate([p.null for p in found] or [np.empty(0, np.bool_)]),
        )

    def select(self, index: NDArray[np.int64]) -> list[bytes | None]:
        """The values at `index`."""
        return [self._at(i) for i in index.tolist()]

    def __len__(self) -> int:
        return len(self.null)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(index, slice):
            return [self._at(i) for i in range(len(self))[index]]
        return self._at(range(len(self))[index])

    def __iter__(self) -> Iterator[bytes | None]:
        return map(self._at, range(len(self)))

    def _at(self, i: int) -> bytes | None:
        return None if self.null[i] else self.data[self.ends[i] : self.ends[i + 1]].tobytes()
