"""A training set: the spine's rows, untouched and in order, and the features' values at each row's time.

Everything that can be wrong with the spine is found before anything is read. Then one source
after the other is scanned once, only the columns, keys and times that the views need, and one
view after the other is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.columns import Column
from headwater.dtypes import arrow_type
from headwater.errors import UsageError
from headwater.events.batch import Events
from headwater.history import spine as spines
from headwater.history.arrival import answer_by_arrival
from headwater.history.as_of import PlainRows, newest_rows, take
from headwater.history.local import Questions, point_in_time
from headwater.history.log import Warehouse
from headwater.history.selection import Wanted
from headwater.plans.plan import BatchView, Plan, Source, StreamView

Progress = Callable[[str], None]
"""Called with one line before each longer step."""


@dataclass(frozen=True)
class ViewRead:
    """What is read of one view.

    Attributes:
        outputs: feature -> the name of its output column.
        rename: join key -> the spine's column that holds it, where it is not the key's own name.
    """

    view: StreamView | BatchView | PlainRows
    outputs: Mapping[str, str]
    rename: dict[str, str] = field(default_factory=dict)


def reads_of(plan: Plan, wanted: Sequence[Wanted]) -> list[ViewRead]:
    """Output columns grouped by view."""
    outputs: dict[str, dict[str, str]] = {}
    for item in wanted:
        outputs.setdefault(item.view, {})[item.feature] = item.column
    return [ViewRead(plan.view(name), columns) for name, columns in outputs.items()]


def training_set(
    plan: Plan,
    warehouse: Warehouse,
    spine: pa.Table,
    reads: Sequence[ViewRead],
    *,
    time: str = spines.TIME,
    order: Sequence[str] | None = None,
    progress: Progress = lambda line: None,
) -> pa.Table:
    """The spine and, behind its columns, the output columns of `reads` (in `order`, where given).

    Raises:
        UsageError: the spine lacks a column, has it in another type, or has one named like an output.
        ReadError: a value that cannot be given.
    """
    at = spines.times(spine, time)
    known_by = spines.times(spine, spines.KNOWN_BY) if spines.KNOWN_BY in spine.column_names else None
    asked = [spines.questions(spine, r.view.name, r.view.keys, at, r.rename) for r in reads]
    _check_names(spine, reads)
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for source in _sources(plan, reads):
        mine = [i for i, r in enumerate(reads) if isinstance(r.view, StreamView) and r.view.source == source.name]
        columns |= _of_source(warehouse, source, [reads[i] for i in mine], [asked[i] for i in mine], known_by, progress)
    for read, questions in zip(reads, asked, strict=True):
        if not isinstance(read.view, StreamView):
            columns |= _of_plain(warehouse, read, questions, known_by, progress)
    for name in order if order is not None else [n for r in reads for n in r.outputs.values()]:
        spine = spine.append_column(name, columns[name])
    return spine


def _sources(plan: Plan, reads: Sequence[ViewRead]) -> list[Source]:
    names = dict.fromkeys(r.view.source for r in reads if isinstance(r.view, StreamView))
    return [plan.source(name) for name in names]


def _check_names(spine: pa.Table, reads: Sequence[ViewRead]) -> None:
    taken = set(spine.column_names)
    for name in (n for r in reads for n in r.outputs.values()):
        if name in taken:
            raise UsageError(f"The spine already has a column {name!r}, which is the name of an output. Rename it.")
        taken.add(name)


def _of_source(
    warehouse: Warehouse,
    source: Source,
    reads: Sequence[ViewRead],
    asked: Sequence[Questions],
    known_by: Column | None,
    progress: Progress,
) -> dict[str, pa.Array]:
    views = [r.view for r in reads if isinstance(r.view, StreamView)]
    features = [list(r.outputs) for r in reads]
    progress(f"reading events of {source.topic}")
    table = warehouse.events(source, views, features, asked, arrival=known_by is not None)
    events = Events.from_arrow(source, table, [n for n in table.column_names if not n.startswith("_")])
    arrived = Column.from_arrow("timestamp", table["_arrived_at"]).values if known_by is not None else None
    out: dict[str, pa.Array] = {}
    for read, view, names, questions in zip(reads, views, features, asked, strict=True):
        progress(
            f"computing {view.name}: {len(names)} features at {len(questions):,} times from {len(events):,} events"
        )
        values = _windowed(view, events, questions, names, arrived, known_by)
        out |= {read.outputs[name]: column.to_arrow() for name, column in values.items()}
    return out


def _windowed(
    view: StreamView,
    events: Events,
    questions: Questions,
    names: list[str],
    arrived: NDArray[np.int64] | None,
    known_by: Column | None,
) -> dict[str, Column]:
    if arrived is None or known_by is None or not len(questions):
        return point_in_time(view, events, questions, names)

    def answer(visible: NDArray[np.int64], rows: NDArray[np.int64]) -> list[Column]:
        found = point_in_time(view, events.take(visible), questions.take(rows), names)
        return [found[name] for name in names]

    return dict(zip(names, answer_by_arrival(arrived, known_by, answer), strict=True))


def _of_plain(
    warehouse: Warehouse, read: ViewRead, questions: Questions, known_by: Column | None, progress: Progress
) -> dict[str, pa.ChunkedArray]:
    assert not isinstance(read.view, StreamView)
    progress(f"joining {read.view.name}: {len(read.outputs)} features at {len(questions):,} times")
    plain = warehouse.snapshots(read.view, list(read.outputs)) if isinstance(read.view, BatchView) else read.view
    rows = _plain_rows(plain, list(read.outputs), questions, known_by)
    return {output: take(plain.table[name], rows) for name, output in read.outputs.items()}


def _plain_rows(plain: PlainRows, names: list[str], questions: Questions, known_by: Column | None) -> NDArray[np.int64]:
    keys = [Column.from_arrow(k.dtype, plain.table[k.name].cast(arrow_type(k.dtype))) for k in plain.keys]
    times = Column.from_arrow("timestamp", plain.table[plain.time])
    values = [
        n for n in plain.table.column_names if n not in {k.name for k in plain.keys} | {plain.time, plain.created}
    ]
    ties = [plain.table[n] for n in ([plain.created] if plain.created else []) + values]
    if known_by is None or plain.created is None or not len(questions):
        return newest_rows(keys, times, questions, plain.ttl, ties)
    created = Column.from_arrow("timestamp", plain.table[plain.created])

    def answer(visible: NDArray[np.int64], rows: NDArray[np.int64]) -> list[Column]:
        picked = [column.take(pa.array(visible)) for column in ties]
        found = newest_rows(
            [k.take(visible) for k in keys], times.take(visible), questions.take(rows), plain.ttl, picked
        )
        return [Column("int64", np.where(found < 0, found, visible[found] if len(visible) else found))]

    return answer_by_arrival(created.values, known_by, answer)[0].values
