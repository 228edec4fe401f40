"""The consistency check of a BatchView: every served row against the newest snapshot row of its key.

Apart from consistency.py because nothing is replayed here: a row has no offsets, it is the
packed form of one row of the lake's table, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.columns import Column
from headwater.errors import ReadError
from headwater.events.timestamps import format_timestamp
from headwater.online.entities import key_texts
from headwater.online.keys import entity_text
from headwater.plans.plan import BatchView
from headwater.receipts.results import DEFECTS, Example, ViewCheck
from headwater.rows.codec import digest_of, read_header
from headwater.rows.plain import encode_plain
from headwater.windows.law import effective_time
from validation.causes import shown
from validation.losses import Difference

EXAMPLES = 20


def check_snapshots(
    view: BatchView, table: pa.Table, served: Mapping[bytes, bytes], *, drawn: Sequence[bytes] | None, now: int,
    began: int = 0,
) -> ViewCheck:  # fmt: skip
    """Check one view.

    Args:
        table: all snapshots of the lake, with the definition of each row.
        served: entity key -> row.
        drawn: the keys whose receipts are compared, None for every row.
        now, began: microseconds; when the fill of the rows began.
    """
    mine = pc.fill_null(pc.equal(table["_definition"], view.state_hash), True)
    expected, earlier = newest_rows(view, table.filter(mine)), newest_rows(view, table.filter(pc.invert(mine)))
    before = set(_before(view, table.filter(mine), began)) if earlier else set()
    chosen = list(served) if drawn is None else [k for k in drawn if k in served]
    keys = served.keys() | expected.keys() | earlier.keys()
    found = {
        k: _name(view, served.get(k), expected.get(k), k in before, now)
        for k in keys
        if served.get(k) != expected.get(k) or (k not in expected and k not in served)
    }
    counts = Counter(d.cause for d in found.values())
    first = sorted(found, key=lambda k: (found[k].cause not in DEFECTS, k))[:EXAMPLES]
    return ViewCheck(
        view.name, now, len(chosen), sum(served[k] == expected.get(k) for k in chosen),
        len(keys), len(keys) - len(found), dict(counts), tuple(_example(view, k, found[k]) for k in first),
    )  # fmt: skip


def newest_rows(view: BatchView, table: pa.Table) -> dict[bytes, bytes]:
    """The row that each key must have online: of its newest snapshot, the one computed last."""
    newest = _newest(view, table)
    index = np.fromiter(newest.values(), np.int64, len(newest))
    columns = {f.name: Column.from_arrow(f.dtype, table[f.name]).take(index) for f in view.features}
    rows = encode_plain(view, columns, _times(table, "event_timestamp")[index])
    return dict(zip(newest, rows, strict=True))


def _newest(view: BatchView, table: pa.Table) -> dict[bytes, int]:
    """Entity key -> where its newest row stands."""
    keys = key_texts([Column.from_arrow(k.dtype, table[k.name]).to_list() for k in view.keys])
    order = np.lexsort((_times(table, "_created"), _times(table, "event_timestamp"))).tolist()
    return {key: i for i in order if (key := keys[i]) is not None}


def _before(view: BatchView, table: pa.Table, began: int) -> list[bytes]:
    """Keys whose newest row was computed for an earlier fill of the same definition."""
    created = _times(table, "_created")
    return [key for key, i in _newest(view, table).items() if created[i] < began]


def _times(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    values: np.ndarray[tuple[int], np.dtype[np.int64]] = Column.from_arrow("timestamp", table[name]).values
    return values


def _time_of(row: bytes) -> int:
    try:
        return read_header(row).newest
    except ReadError:
        return 2**62


def _name(view: BatchView, have: bytes | None, want: bytes | None, before: bool, now: int) -> Difference:
    again = f"headwater materialize {view.name}"
    row = "there is none" if have is None else _row_text(have)
    if want is None:
        if have is None:
            return Difference(
                "definition changed", "only an earlier definition computed the key", row,
                "its snapshots of the key are of another definition", "nothing",
            )  # fmt: skip
        return Difference(
            "missing in lake", "the row is served, and no snapshot in the lake has its key: somebody wrote it past "
            "materialize, or the snapshot was taken out of the lake", row, "it has no row of this key", again,
        )  # fmt: skip
    when = _time_of(want)
    log = f"its newest snapshot of the key is of {format_timestamp(when)}"
    if have is None:
        return _absent(view, row, log, when, before, now)
    try:
        header = read_header(have)
    except ReadError as error:
        return Difference("defect", f"the bytes are no row that this Headwater reads: {error}", row, log, again)
    if digest_of(have) != header.digest:
        return Difference(
            "defect", "bytes of the row were changed after it was written",
            f"its digest is {header.digest:016x}, its bytes have {digest_of(have):016x}", log, again,
        )  # fmt: skip
    if header.newest < when:
        return Difference("defect", "an older snapshot's row is served than the lake's newest", row, log, again)
    if header.newest > when:
        return Difference("missing in lake", "the lake lacks the snapshot that the row is of", row, log, again)
    return Difference("defect", "the row has other bytes than the lake's row of the same snapshot", row, log, again)


def _absent(view: BatchView, row: str, log: str, when: int, before: bool, now: int) -> Difference:
    if view.ttl is not None and effective_time(now, None) - view.ttl > when:
        return Difference("expired", "the snapshot is older than the view's ttl", row, log, "nothing")
    if before:
        return Difference(
            "definition changed", "the key was last computed before the view was changed and changed back",
            row, log, "nothing",
        )  # fmt: skip
    return Difference(
        "missing online", "the row was deleted, or lost by Redis", row, log,
        f"headwater materialize {view.name} --as-of {format_timestamp(when)}",
    )  # fmt: skip


def _row_text(row: bytes) -> str:
    try:
        return f"it is of the snapshot of {format_timestamp(read_header(row).newest)}"
    except ReadError:
        return f"it has {len(row)} bytes"


def _example(view: BatchView, key: bytes, found: Difference) -> Example:
    entity = entity_text(key, [k.name for k in view.keys])
    return Example(shown(key), found.cause, found.detail, entity, found.row, found.log, "", found.action)
