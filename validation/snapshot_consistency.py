"""The consistency check of a BatchView: every served row against the newest snapshot row of its key.

Apart from consistency.py because nothing is replayed here: a row has no offsets, it is the
packed form of one row of the lake's table, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from headwater.columns import Column
from headwater.errors import ReadError
from headwater.online.entities import key_texts
from headwater.plans.plan import BatchView
from headwater.receipts.results import Example, ViewCheck
from headwater.rows.codec import digest_of, read_header
from headwater.rows.plain import encode_plain
from headwater.windows.law import effective_time

EXAMPLES = 20


def check_snapshots(
    view: BatchView, table: pa.Table, served: Mapping[bytes, bytes], *, drawn: Sequence[bytes] | None, now: int
) -> ViewCheck:
    """Check one view. `table`: all snapshots of the lake; `served`: entity key -> row; `now`: microseconds."""
    expected = newest_rows(view, table)
    chosen = list(served) if drawn is None else [k for k in drawn if k in served]
    keys = served.keys() | expected.keys()
    first_served = min((_time_of(row) for row in served.values()), default=now)
    found = {
        k: _name(view, served.get(k), expected.get(k), first_served, now)
        for k in keys
        if served.get(k) != expected.get(k)
    }
    counts = Counter(cause for cause, _ in found.values())
    examples = [Example(k.decode("utf-8", "backslashreplace"), *why) for k, why in found.items()]
    return ViewCheck(
        view.name, now, len(chosen), sum(served[k] == expected.get(k) for k in chosen),
        len(keys), len(keys) - len(found), dict(counts), tuple(examples[:EXAMPLES]),
    )  # fmt: skip


def newest_rows(view: BatchView, table: pa.Table) -> dict[bytes, bytes]:
    """The row that each key must have online: of its newest snapshot, the one computed last."""
    if not table.num_rows:
        return {}
    time, created = (Column.from_arrow("timestamp", table[n]).values for n in ("event_timestamp", "_created"))
    keys = key_texts([Column.from_arrow(k.dtype, table[k.name]).to_list() for k in view.keys])
    order = np.lexsort((created, time)).tolist()
    newest = {keys[i]: i for i in order if keys[i] is not None}
    index = np.fromiter(newest.values(), np.int64, len(newest))
    columns = {f.name: Column.from_arrow(f.dtype, table[f.name]).take(index) for f in view.features}
    rows = encode_plain(view, columns, time[index])
    return {key: row for key, row in zip(newest, rows, strict=True) if key is not None}


def _time_of(row: bytes) -> int:
    try:
        return read_header(row).newest
    except ReadError:
        return 2**62


def _name(view: BatchView, have: bytes | None, want: bytes | None, first_served: int, now: int) -> tuple[str, str]:
    if want is None:
        return "missing in lake", "the row is served, and no snapshot in the lake has its key"
    when = _time_of(want)
    if have is None:
        if view.ttl is not None and effective_time(now, None) - view.ttl > when:
            return "expired", "the row's snapshot is older than the view's ttl"
        if when < first_served:
            return "definition changed", "its newest snapshot is of a time before the served definition's first"
        return "missing online", "the lake's newest snapshot has the key, and no row is served"
    try:
        header = read_header(have)
    except ReadError as error:
        return "defect", str(error)
    if digest_of(have) != header.digest:
        return (
            "defect",
            f"digest {digest_of(have):016x} does not fit the row's own, {header.digest:016x}: bytes changed",
        )
    if header.newest < when:
        return "defect", "an older snapshot's row is served than the lake's newest: materialize again"
    if header.newest > when:
        return "missing in lake", "the served row is of a snapshot that the lake does not have"
    return "defect", "the row has other bytes than the lake's row of the same snapshot"
