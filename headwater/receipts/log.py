"""Receipts of values that were served, kept in files until the check replays them.

Apart from the check because servers write it: they know neither the lake nor the check. A server writes files of
its own, one JSON array a line: first the fills that its receipts are of, each with the definition and the source
that it was filled by (a changed view stays provable), then the receipts. Keys are sampled by their hash, so all
servers keep the receipts of the same keys, and a key's whole life is proven rather than a moment of every key's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec
import xxhash

from headwater.errors import HeadwaterError
from headwater.online.published import Fill
from headwater.plans.plan import Source, StreamView
from headwater.receipts.receipt import Receipt

SUFFIX = ".receipts"
A_FILE = 200_000
"""Receipts of one file."""
MOST_FILES = 50
"""Files of one server; the oldest goes for a new one."""


class KeptFill(msgspec.Struct, frozen=True, array_like=True, tag="fill"):
    """What receipts of one fill are replayed with. `number` names it in this file."""

    number: int
    fill: Fill
    view: StreamView
    source: Source


class KeptReceipt(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """One receipt. `fill` is the number of its fill; `key` the entity key as text; `effective_time` microseconds;
    `offsets` are (partition, born, applied); `digest` 16 hex digits."""

    fill: int
    key: str
    effective_time: int
    offsets: tuple[tuple[int, int, int], ...]
    digest: str


class ReceiptLog:
    """Writes one server's files.

    Args:
        share: of all keys, 0 to 1; whether a key is sampled depends on its hash alone.
    """

    def __init__(self, folder: Path, share: float) -> None:
        self.folder, self.written = folder, 0
        self._below = int(share * 2**64)
        self._fills: dict[str, KeptFill] = {}
        self._file: IO[bytes] | None = None
        self._in_file = 0
        self._mine: list[Path] = []
        self._encoder = msgspec.json.Encoder()

    def unknown(self, receipts: Mapping[str, Sequence[Receipt]]) -> list[tuple[str, str]]:
        """The (view, fill) pairs whose record `learn` must be told before `keep`."""
        pairs = dict.fromkeys((name, some[0].fill) for name, some in receipts.items() if some)
        return [pair for pair in pairs if pair[1] not in self._fills]

    def learn(self, fill: Fill, view: StreamView, source: Source) -> None:
        """What receipts of a fill are replayed with."""
        self._fills[fill.id] = kept = KeptFill(len(self._fills), fill, view, source)
        if self._file is not None:
            self._write([kept])

    def keep(self, receipts: Iterable[Receipt]) -> None:
        """Write those that are sampled; keys without a row have nothing to prove."""
        lines = [
            KeptReceipt(
                self._fills[r.fill].number, r.key, r.effective_time,
                tuple((p, born, applied) for p, (born, applied) in r.offsets.items()), r.digest,
            )
            for r in receipts
            if r.key is not None and r.digest is not None and r.fill in self._fills and self._samples(r)
        ]  # fmt: skip
        if not lines:
            return
        if self._file is None or self._in_file >= A_FILE:
            self._begin_file()
        self._write(lines)
        self._in_file += len(lines)
        self.written += len(lines)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _samples(self, receipt: Receipt) -> bool:
        return xxhash.xxh3_64_intdigest(f"{receipt.view}:{receipt.key}".encode()) < self._below

    def _begin_file(self) -> None:
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
        self._file, self._in_file = path.open("ab"), 0
        self._mine.append(path)
        for old in self._mine[:-MOST_FILES]:
            old.unlink(missing_ok=True)
        self._mine = self._mine[-MOST_FILES:]
        self._write(self._fills.values())

    def _write(self, lines: Iterable[KeptFill | KeptReceipt]) -> None:
        assert self._file is not None
        self._file.write(self._encoder.encode_lines(lines))


def read_receipts(folder: Path) -> Iterator[tuple[KeptFill, list[KeptReceipt]]]:
    """All receipts of a folder, file by file, by fill; a last line that is cut off (a server was killed) is left out.

    Raises:
        HeadwaterError: a line that is no receipt.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        data = path.read_bytes()
        data = data[: data.rfind(b"\n") + 1]
        try:
            lines = _decoder.decode_lines(data)
        except msgspec.DecodeError as error:
            raise HeadwaterError(f"{path} is no file of receipts that this Headwater reads: {error}.") from error
        fills = {line.number: line for line in lines if isinstance(line, KeptFill)}
        receipts: dict[int, list[KeptReceipt]] = {}
        for line in lines:
            if isinstance(line, KeptReceipt):
                receipts.setdefault(line.fill, []).append(line)
        for number, some in receipts.items():
            yield fills[number], some


_decoder = msgspec.json.Decoder(KeptFill | KeptReceipt)
