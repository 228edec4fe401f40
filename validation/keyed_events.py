"""The events of one view in the lake, by entity key, and those among them that no topic can have given.

Apart from the check because both the comparison and the naming of causes ask: what does the lake have of
this key?
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.events.batch import Events
from headwater.events.select import Selected, select
from headwater.online.keys import entity_key
from headwater.plans.plan import Source, StreamView
from headwater.rows.fold import key_codes
from validation.lake_side import Kept, Places

Ints = NDArray[np.int64]


class KeyedEvents:
    """Attributes:
    selected: the events that count in the view.
    codes: each event's key, as a number into `keys` (entity keys) and `values` (as `fold` names them).
    number: entity key -> that number.
    arrived: when each event came to the lake, microseconds.
    strange: events that the sink cannot have written: past the topic's end or the lake's own position, or
        one of several at one place.
    wide: how many partitions the events name.
    """

    def __init__(self, view: StreamView, source: Source, kept: Kept) -> None:
        names = [n for n in kept.table.column_names if not n.startswith("_")]
        self.selected: Selected = select(view, Events.from_arrow(source, kept.table, names))
        self.codes, self.values = key_codes(self.selected.keys)
        single = len(view.keys) == 1
        self.keys = [entity_key((k,) if single else k) for k in self.values]
        self.number = {name: i for i, name in enumerate(self.keys)}
        arrived = kept.table["_arrived_at"].combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
        self.arrived: Ints = arrived[self.selected.index]
        self.wide = 1 + int(self.selected.partition.max(initial=0))
        self.twice = self._among(_twice(kept.places))
        past = self.selected.offset >= self.by_partition(kept.positions, 0)
        if kept.ends is not None:
            past |= self.selected.offset >= self.by_partition(kept.ends, 0)
        self.strange = past | self.twice
        order = np.lexsort((self.selected.offset, self.selected.partition, self.codes))
        self._order, self._edges = order, np.searchsorted(self.codes[order], np.arange(len(self.keys) + 1))

    def of(self, key: bytes) -> Ints:
        """Where the key's events are, by partition and offset."""
        i = self.number.get(key)
        return self._order[:0] if i is None else self._order[self._edges[i] : self._edges[i + 1]]

    def by_partition(self, offsets: dict[int, int], default: int) -> Ints:
        """Each event's partition looked up."""
        table = np.full(self.wide, default, np.int64)
        for p, offset in offsets.items():
            if 0 <= p < self.wide:
                table[p] = offset
        return table[self.selected.partition]

    def _among(self, places: Places) -> NDArray[np.bool_]:
        found = np.zeros(len(self.selected), np.bool_)
        for p in np.unique(places[0]).tolist():
            mine = self.selected.partition == p
            found[mine] = np.isin(self.selected.offset[mine], places[1][places[0] == p])
        return found


def _twice(places: Places) -> Places:
    """Places that more than one record has, each once or oftener."""
    order = np.lexsort((places[1], places[0]))
    p, o = places[0][order], places[1][order]
    same = np.flatnonzero((p[1:] == p[:-1]) & (o[1:] == o[:-1]))
    return p[same], o[same]
