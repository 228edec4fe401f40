"""Debezium's envelopes: which changes of a table are events of a source, and where the event lies in one.

A source is a stream of facts, so an inserted row (`op` c, or r of a snapshot) is an event: what `after` holds. An
updated row (u) is one only where the source says `updates="count"`; then `after` is a new event beside the earlier
ones, which stay. Deleted rows (d), truncated tables (t), messages of the log (m) and tombstones (no value) are no
events. What is no event is ignored: it is no dead letter, it is counted, and the lake keeps it with its reason.

An envelope may come as it is, or with its schema: {"schema": …, "payload": ENVELOPE}.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np

from headwater.events.decode import MAX_DEPTH, REFUSALS, Decoded, Decoder, depth_of, without_nan
from headwater.plans.plan import Source

TOMBSTONE = "a tombstone: no value"
_IGNORED = {
    "u": "op u: an update; the source counts inserts alone", "d": "op d: a deletion", "t": "op t: a truncated table",
    "m": "op m: a message of the log",
}  # fmt: skip


class _Envelope(msgspec.Struct):
    op: str | None = None
    after: msgspec.Raw = msgspec.Raw(b"null")


class _Message(_Envelope):
    payload: _Envelope | None = None


_parse = msgspec.json.Decoder(_Message).decode


def judged(op: str | None, source: Source) -> tuple[str | None, str | None]:
    """Why a change is ignored, and why it cannot be read; both None where it is an event."""
    if op in ("c", "r") or (op == "u" and source.updates == "count"):
        return None, None
    if op in _IGNORED:
        return _IGNORED[op], None
    return None, f"op: expected one of Debezium's (c, r, u, d, t, m), got {'none' if op is None else ascii(op)[:20]}"


class DebeziumDecoder:
    """Decodes the events of a source whose JSON comes in envelopes. `columns`: as of `Decoder`."""

    def __init__(self, source: Source, columns: Collection[str] | None = None) -> None:
        self._source = source
        self._rows = Decoder(source, columns)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """The columns of the events, the reasons of what cannot be read, and of what is none."""
        index, rows = [], []
        failures: dict[int, str] = {}
        ignored: dict[int, str] = {}
        for i, value in enumerate(values):
            found = None if value is None else self._opened(value)
            if isinstance(found, str):
                failures[i] = found
                continue
            reason, wrong = (TOMBSTONE, None) if found is None else judged(found.op, self._source)
            if reason is not None:
                ignored[i] = reason
            elif wrong is not None or found is None:
                failures[i] = wrong or ""
            elif (row := bytes(found.after)) == b"null":
                failures[i] = f"after: op {found.op} has no row"
            else:
                index.append(i)
                rows.append(row)
        places = np.array(index, np.int64)
        inner = self._rows.decode(rows)
        failures |= {index[i]: text for i, text in inner.failures.items()}
        return Decoded(places[inner.index], inner.columns, failures, ignored)

    def _opened(self, value: bytes) -> _Envelope | str:
        """The envelope, or why there is none."""
        if not value.strip():
            return "empty value: expected a Debezium envelope"
        try:
            value.decode("utf-8")
            if depth_of(value) > MAX_DEPTH:
                return f"nested deeper than {MAX_DEPTH} levels"
            message: Any = without_nan(value, _parse)
        except UnicodeDecodeError as error:
            return f"invalid UTF-8 at byte {error.start}"
        except REFUSALS as error:
            return str(error)
        found: _Envelope = message.payload or message
        return found


def wrapped(rows: Sequence[bytes]) -> list[bytes]:
    """Rows in JSON as the envelopes of their insertion."""
    return [b'{"before":null,"after":%b,"op":"c"}' % row for row in rows]
