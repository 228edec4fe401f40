"""Orders whose schemas come from a registry, and their way through admission: what tests of Avro and Protobuf share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from hypothesis import strategies as st

from headwater.events.admission import Admission, Admitted
from headwater.events.schemas import Schemas
from headwater.plans.plan import Expectation, Field, Format, Source
from tests.schema_registry import SchemaRegistry

BROKER = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
NOON = 1_699_963_200_000_000  # 2023-11-14T12:00:00Z
GARBAGE = st.one_of(st.none(), st.binary(max_size=12), st.sampled_from([b"{", b"\0\0\0\0", b"\0\0\0\xff\xff\x02"]))
"""Values that are no events of either format."""


def orders(form: Format) -> Source:
    """A source with a column of each type, the price of which is expected between 0 and 100."""
    return Source(
        name="orders", topic="orders", event_time="at", key="customer", tolerance=86_400_000_000, format=form,
        fields=(Field("at", "timestamp"), Field("customer", "int64"), Field("price", "float64"), Field("code", "string"),
                Field("paid", "bool"), Field("seen", "timestamp"), Field("blob", "bytes")),
        expectations=(Expectation("between", "price", 0, 100),),
    )  # fmt: skip


@cache
def schemas_at(url: str) -> Schemas:
    """The schemas of one registry, kept as a process keeps them."""
    return Schemas({"url": url})


def admit(registry: SchemaRegistry, source: Source, *values: bytes | None) -> Admitted:
    """What admission says of values that follow each other from offset 10."""
    n = len(values)
    admission = Admission(source, schemas_at(registry.url))
    return admission.admit(values, np.zeros(n, np.int64), np.arange(n) + 10, np.full(n, BROKER))


def reason(registry: SchemaRegistry, source: Source, value: bytes | None) -> str:
    """Why a value is not admitted: its kind and the reason."""
    [rejected] = admit(registry, source, value).rejected
    return f"{rejected.kind}: {rejected.reason}"


def assert_cuts_do_not_matter(registry: SchemaRegistry, source: Source, values: Sequence[bytes | None]) -> None:
    """Admitted one by one, and all at once: the same rows, and the same reasons."""
    admission, zero, broker = Admission(source, schemas_at(registry.url)), np.zeros(1, np.int64), np.array([BROKER])
    single = [admission.admit([v], zero, np.array([10 + i]), broker) for i, v in enumerate(values)]
    whole_batch = admit(registry, source, *values)
    assert _rows_of(whole_batch) == [r for a in single for r in _rows_of(a)]
    assert [(r.offset, r.kind, r.reason, r.raw) for r in whole_batch.rejected] == [
        (r.offset, r.kind, r.reason, r.raw) for a in single for r in a.rejected
    ]


def _rows_of(admitted: Admitted) -> list[str]:
    columns = [column.to_list() for column in admitted.events.columns.values()]
    return [repr(r) for r in zip(admitted.events.offset.tolist(), *columns, strict=True)]
