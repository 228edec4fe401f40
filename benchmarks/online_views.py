"""The two views that `online.py` reads, with all their values: one without windows, one of windows over events.

Apart from online.py because it is data: what each store is given. The values of the windowed view are computed
here by pandas' groupby over the events, so that neither store's own code says what is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from headwater.columns import Column
from headwater.durations import DAY, HOUR
from headwater.events.batch import Events
from headwater.events.select import select
from headwater.plans.plan import BatchView, Feature, Field, Source, StreamView, View, batch_state_hash
from headwater.plans.plan import stream_state_hash as state_hash_of
from headwater.rows.fold import fold
from headwater.rows.layout import layout_of
from headwater.rows.plain import encode_plain
from headwater.windows.law import hop_of, window_start

FEATURES = 50
NOW = 1_767_225_600_000_000 // DAY * DAY + 13 * HOUR + 1_234_567
"""The time that windows are read at, microseconds."""
HISTORY = 40 * DAY
KEYS = (Field("user_id", "int64"),)
AMOUNTS = ("price", "cost", "weight", "rating")
WINDOWS = {"1h": HOUR, "1d": DAY, "30d": 30 * DAY}
SCALE = 6


@dataclass
class Filled:
    """A view and what its store holds: the rows of users 0 to n - 1, and every feature's values by user."""

    view: View
    rows: list[bytes | None]
    values: dict[str, Column]
    sources: tuple[Source, ...] = ()
    as_of: int | None = None
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = [f"{self.view.name}:{f.name}" for f in self.view.outputs()]


def plain(users: int) -> Filled:
    """50 columns without windows: every sixth an integer, two strings, the others doubles."""
    random = np.random.default_rng(1)
    made: dict[str, Column] = {}
    for i in range(FEATURES):
        if i % 25 == 24:
            made[f"f{i}"] = Column.of("string", [f"text {n}" for n in random.integers(0, 1_000, users)])
        elif i % 6 == 5:
            made[f"f{i}"] = Column.of("int64", random.integers(0, 10**12, users).tolist())
        else:
            made[f"f{i}"] = Column.of("float64", random.random(users).tolist())
    view = BatchView("facts", ("user",), KEYS, "", None, tuple(Field(n, c.dtype) for n, c in made.items()), "")
    view = BatchView(view.name, view.entities, view.keys, "", None, view.features, batch_state_hash(view))
    return Filled(view, list(encode_plain(view, made, NOW)), made)


def windowed(users: int, events_each: int) -> Filled:
    """50 features over windows of 1 h, 1 d and 30 d: sum, mean, least and greatest of four amounts, two counts.

    A user's events lie anywhere in 40 days, a third of them in the last one, so that every window has some.
    """
    events = _events(users, events_each)
    source = Source("sales", "sales", "at", "user_id", DAY, (*KEYS, Field("at", "timestamp"), *_fields()))
    view = _windowed_view(source)
    rows: list[bytes | None] = [None] * users
    for row in fold(layout_of(view), select(view, events), born=0):
        rows[row.key[0]] = row.data
    return Filled(view, rows, _values(view, events, users), (source,), NOW)


def _fields() -> list[Field]:
    return [Field(name, "float64") for name in AMOUNTS]


def _windowed_view(source: Source) -> StreamView:
    features = [_feature(f"count_{n}", "count", None, w) for n, w in (("1h", HOUR), ("30d", 30 * DAY))]
    for column in AMOUNTS:
        for name, window in WINDOWS.items():
            features += [_feature(f"{column}_{f}_{name}", f, column, window) for f in ("sum", "mean", "min", "max")]
    view = StreamView("sales_lately", ("user",), KEYS, source.name, None, (), tuple(features), "")
    return StreamView(
        view.name, view.entities, view.keys, view.source, None, (), view.features, state_hash_of(view, source)
    )


def _feature(name: str, function: str, column: str | None, window: int) -> Feature:
    dtype = None if column is None else "float64"
    return Feature(
        name, function, column, dtype, window, hop_of(window), None, SCALE, "int64" if dtype is None else dtype
    )


def _events(users: int, each: int) -> Events:
    random = np.random.default_rng(2)
    count = users * each
    before = np.where(random.random(count) < 1 / 3, random.integers(0, DAY, count), random.integers(0, HISTORY, count))
    time = np.sort(NOW - 1 - before)
    user = random.integers(0, users, count)
    columns = {"user_id": Column("int64", user), "at": Column("timestamp", time)}
    for name in AMOUNTS:
        columns[name] = Column("float64", random.gamma(2, 20, count).round(2))
    return Events("sales", columns, np.zeros(count, np.int64), np.arange(count), time)


def _values(view: StreamView, events: Events, users: int) -> dict[str, Column]:
    """Every feature of every user at NOW, by pandas. Sums are of whole millionths, as the window law wants them."""
    frame = pd.DataFrame({name: column.values for name, column in events.columns.items()})
    for name in AMOUNTS:
        frame[f"{name}_whole"] = np.floor(frame[name] * 10.0**SCALE + 0.5).astype(np.int64)
    groups: dict[int, Any] = {}
    for window in WINDOWS.values():
        groups[window] = frame[frame["at"] >= window_start(NOW, window, hop_of(window))].groupby("user_id")
    return {f.name: _column(f, groups[f.window or 0], users) for f in view.features}


def _column(feature: Feature, group: Any, users: int) -> Column:
    count = group.size().reindex(range(users), fill_value=0).to_numpy()
    if feature.function == "count":
        return Column("int64", count)
    if feature.function in ("min", "max"):
        values = group[feature.column].agg(feature.function).reindex(range(users)).to_numpy()
    else:
        sums = group[f"{feature.column}_whole"].sum().reindex(range(users), fill_value=0).to_numpy()
        values = sums / (10**SCALE * (count.clip(1) if feature.function == "mean" else 1))
    return Column("float64", np.where(count > 0, values, 0.0), count > 0)
