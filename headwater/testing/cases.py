"""One case: records of a topic, how they come to two workers, and when features are read.

Plain data, so that a case can be printed, and run again on every path.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from headwater.dtypes import element_of
from headwater.events.admission import Admission, Admitted
from headwater.plans.plan import Source

Form = Literal["full", "integer times", "sparse", "cut off", "tombstone"]
FORMS: tuple[Form, ...] = ("full", "sparse", "integer times", "cut off", "tombstone")
"""How an event is written: all its fields; nulls left out and an unknown field added; timestamps as
microseconds; and two that are no events: JSON cut off in the middle, and no value at all."""
BROKEN: tuple[Form, ...] = ("cut off", "tombstone")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the topic. `values` are by column (timestamps int microseconds); columns left out are null."""

    partition: int
    offset: int
    broker_time: int
    values: Mapping[str, Any]
    form: Form = "full"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A micro-batch: `worker` gets the next `count` records of a partition.

    `again`: how many records before them it gets once more, as after a crash. `forgets`: it has lost the
    rows that it had in memory.
    """

    worker: int
    partition: int
    count: int
    again: int = 0
    forgets: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """Records in the order of the broker's times of arrival, offsets rising in each partition.

    What `deliveries` leave over comes to worker 0 in one last batch. Every key of the records is read at
    every time of `reads` (int microseconds).
    """

    records: tuple[Record, ...]
    deliveries: tuple[Delivery, ...]
    reads: tuple[int, ...]

    def keys(self, names: Sequence[str]) -> list[Key]:
        """The keys that the records name, those with a null left out."""
        found = dict.fromkeys(tuple(r.values.get(n) for n in names) for r in self.records)
        return [key for key in found if None not in key]


def payload(record: Record, source: Source) -> bytes | None:
    """The record's value as a producer writes it."""
    if record.form == "tombstone":
        return None
    fields = {f.name: _written(record.values.get(f.name), f.dtype, record.form) for f in source.fields}
    if record.form == "sparse":
        fields = {name: value for name, value in fields.items() if value is not None}
        fields["a field that no schema has"] = {"nested": [1, None]}
    if source.envelope is not None:
        envelope = {"before": None, "after": fields, "op": "c", "ts_ms": 0}
        fields = {"schema": {"type": "struct"}, "payload": envelope} if record.form == "sparse" else envelope
    text = json.dumps(fields, ensure_ascii=record.form == "sparse").encode()
    return text[: len(text) // 2] if record.form == "cut off" else text


def admit(admission: Admission, records: Sequence[Record]) -> Admitted:
    """The records through the source's admission, as one batch."""
    places = [
        np.array([getattr(r, name) for r in records], np.int64) for name in ("partition", "offset", "broker_time")
    ]
    return admission.admit([payload(r, admission.source) for r in records], *places)


def time_text(micros: int) -> str:
    """RFC 3339 in UTC with microseconds; written here and not by the product, which reads it."""
    return (EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _written(value: Any, dtype: str, form: Form) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_written(v, element_of(dtype), form) for v in value]
    if dtype == "bytes":
        return base64.b64encode(value).decode()
    if dtype == "timestamp" and form != "integer times":
        return time_text(value)
    return value
