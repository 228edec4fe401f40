"""A shop on real servers whose rows, positions and lake a test may damage and put right again."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from headwater.columns import Column
from headwater.lake import Lake
from headwater.online.connection import Connection
from headwater.online.keys import position_key, row_prefix
from headwater.online.plain_writes import write_plain_rows
from headwater.online.plan_store import activate
from headwater.plans.plan import BatchView, Field, Plan
from headwater.repository import Repository, load_repository
from headwater.rows.codec import decode, digest_of, encode
from headwater.rows.layout import layout_of
from pipelines.caught_up import LakeCaughtUp
from pipelines.sink import Sink, SinkSettings
from tests.conftest import feature_store_yaml
from tests.history.log_factory import make_feature
from tests.in_process import Said, run_cli
from tests.pipelines.stream_world import NOON, World, random_events, read_rows, view_of

PROFILE = BatchView(
    "profile", ("customer",), (Field("customer", "int64"),), "", None, (Field("orders", "int64"),), "aaaa000000000009"
)  # fmt: skip
RECENT = (make_feature("count", name="n_1h"), make_feature("max", "price", name="most_1h"))


class PlantedWorld(World):
    """Views `spend` (by customer, kept for ever), `recent` (by customer and product, expiring) and `profile` (a
    BatchView): two halves of events, each applied and kept. `older` holds the rows of spend after the first."""

    def __init__(self, redis_url: str, bootstrap: str, folder: Path, events: int = 120) -> None:
        views = [
            view_of(),
            msgspec.structs.replace(view_of(features=RECENT, keys=("customer", "product")), name="recent"),
        ]
        super().__init__(redis_url, bootstrap, partitions=2, views=views, config={"retention.ms": "604800000"})
        self.root = folder
        self.root.mkdir(exist_ok=True)
        (self.root / "feature_store.yaml").write_text(feature_store_yaml(self.project, redis_url, bootstrap, None))
        self.lake = Lake(self.repository.lake)
        self.publish()
        half = random_events(events, seed=5, customers=8)
        self.produce([{**e, "product": f"{e['product']}|a"} for e in half[: events // 2]])
        if not events:
            return
        self.catch_up()
        self.keep()
        self.older = self.rows()
        self.produce([{**e, "product": f"{e['product']}|a"} for e in half[events // 2 :]])
        self.catch_up()
        self.keep()
        self.snapshots = [self.materialize(NOON - 1, [1, 2]), self.materialize(NOON, [1, 2, 3])]

    @property
    def plan(self) -> Plan:
        return Plan(self.project, (self.source,), (*self.views, PROFILE))

    @property
    def repository(self) -> Repository:
        return load_repository(self.root)

    def keep(self) -> None:
        """A sink in this process, until the lake has everything."""
        settings = SinkSettings(every=0.1, wait=0.05, retry_every=0.1)
        sink = Sink(self.redis_url, self.kafka, self.lake, self.project, settings)
        deadline, caught_up = time.monotonic() + 120, LakeCaughtUp(self.kafka, self.lake, [self.topic])
        sink.run(until=lambda: caught_up() or time.monotonic() > deadline)
        assert time.monotonic() < deadline

    def materialize(self, at: int, customers: list[int]) -> pa.Table:
        """As `headwater materialize` does after its gate: to the lake, to Redis, active."""
        table = pa.table({"customer": customers, "orders": [at % 7 + c for c in customers]})
        self.lake.append_view_snapshot(PROFILE, table, at)
        self.publish_rows(table, at)
        activate(self.connection, self.project, "profile")
        return table

    def publish_rows(self, table: pa.Table, at: int) -> None:
        """A snapshot's rows to Redis, over a connection of its own: a thread may do it."""
        published = self.published()
        fill = (published.active.get("profile") or published.filling["profile"]).fill
        columns = {n: Column.of("int64", table[n].to_pylist()) for n in table.column_names}
        with Connection(self.redis_url) as connection:
            write_plain_rows(
                connection, self.project, PROFILE, fill, [columns["customer"]], {"orders": columns["orders"]}, at
            )

    def close(self) -> None:
        """A producer that outlives the session's broker complains."""
        del self._producer, self.admin
        self.connection.close()

    # -- what the command says ----------------------------------------------------------------------------------

    def check(self, *args: str) -> Said:
        return run_cli("-C", str(self.root), "check", *args)

    def assert_clean(self) -> None:
        """Exit code 0, everything drawn and compared, everything equal."""
        said = self.check("--json")
        assert (said.code, said.err) == (0, "")
        for view in json.loads(said.out)["views"]:
            assert (view["differences"], view["examples"], view["waiting"]) == ({}, [], 0), view
            assert view["receipts"]["drawn"] == view["receipts"]["equal"] > 0
            assert view["recomputed"]["compared"] == view["recomputed"]["equal"] > 0

    def assert_named(self, view: str, cause: str, keys: set[str], *words: str, entity: str | None = None) -> None:
        """Exit code 1; the view, each key and the cause are named for people and in JSON, and no other view is."""
        said = self.check("--json")
        assert said.code == 1, said
        for other in json.loads(said.out)["views"]:
            assert other["view"] == view or other["differences"] == {}, other
        found = said.view(view)
        assert found["differences"] == {cause: len(keys)}, found
        assert {(e["key"], e["cause"]) for e in found["examples"]} == {(key, cause) for key in keys}
        for example in found["examples"]:
            assert all((example["detail"], example["action"], example["row"] or example["log"])), example
        told = self.check(view)
        assert told.code == 1
        count = "1 difference has" if len(keys) == 1 else f"{len(keys)} differences have"
        assert told.err == f"Error: {count} no innocent cause, in {view}.\n"
        for key in sorted(keys)[:1]:
            named = entity or (f"customer={key}" if key.isdigit() else key)
            assert f"    {view} {named}: {cause}: " in told.out, told.out
        for word in words:
            assert word in told.out, (word, told.out)

    # -- damage, undone at the end of a with block --------------------------------------------------------------

    def row_key(self, key: bytes, view: str = "spend") -> bytes:
        active = self.published().active[view]
        return row_prefix(self.project, view, active.definition.state_hash, active.fill) + key

    def position_key(self, partition: int, view: str = "spend") -> bytes:
        return position_key(self.project, view, self.published().active[view].fill, partition)

    def applied(self, partition: int) -> int:
        """The offset of spend's position, whether a batch is in progress or not."""
        return int(self.connection.command("GET", self.position_key(partition)).split(b"/")[0])

    def miscounted(self, key: bytes) -> bytes:
        """The row of spend with 77 in the place of its first tile's first number, and the digest that fits."""
        layout = layout_of(self.plan.stream_views()[0])
        taken = decode(layout, [self.rows()[key]])
        taken.groups[0].records[0, 1] = 77
        ((row,), _) = encode(layout, taken)
        return bytes(row)

    @contextlib.contextmanager
    def redis_key(self, key: bytes) -> Iterator[bytes]:
        """A key in Redis that may be changed; it is put back with its expiry."""
        was, ttl = self.connection.command("GET", key), self.connection.command("PTTL", key)
        try:
            yield was
        finally:
            if was is None:
                self.connection.command("DEL", key)
            else:
                self.connection.command("SET", key, was, *(("PX", ttl) if ttl > 0 else ()))

    @contextlib.contextmanager
    def row(self, key: bytes, new: bytes | None, view: str = "spend") -> Iterator[None]:
        """A row replaced (None: deleted)."""
        at = self.row_key(key, view)
        with self.redis_key(at):
            self.connection.command("DEL", at) if new is None else self.connection.command("SET", at, new)
            yield

    @contextlib.contextmanager
    def position(self, partition: int, new: int | None) -> Iterator[None]:
        at = self.position_key(partition)
        with self.redis_key(at):
            self.connection.command("DEL", at) if new is None else self.connection.command("SET", at, new)
            yield

    @contextlib.contextmanager
    def table(self, name: str) -> Iterator[Path]:
        """The folder of a lake's table, which may be damaged."""
        folder, copy = Path(self.lake.location, name), Path(self.lake.location, "saved")
        shutil.copytree(folder, copy)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            copy.rename(folder)

    def events_table(self) -> DeltaTable:
        return DeltaTable(self.lake.events_table(self.topic).uri)

    def append_to_lake(self, **changed: Any) -> None:
        """A record of the lake once more, changed, written past the sink."""
        handle = self.events_table()
        record = handle.to_pyarrow_table().slice(0, 1)
        for name, value in changed.items():
            column = pa.array([value], pa.int64()).cast(record.schema.field(name).type)
            record = record.set_column(record.column_names.index(name), name, column)
        from deltalake import write_deltalake

        write_deltalake(handle, record, mode="append")


def with_digest(row: bytes | bytearray) -> bytes:
    """The bytes with the digest that fits them."""
    return digest_of(bytes(row)).to_bytes(8, "little") + bytes(row[8:])


def flipped(row: bytes, at: int) -> bytes:
    """One bit of one byte turned."""
    changed = bytearray(row)
    changed[at] ^= 1
    return bytes(changed)


def with_word(row: bytes, word: int, value: int) -> bytes:
    """An 8-byte word replaced, and the digest made to fit."""
    words = np.frombuffer(row, np.int64).copy()
    words[word] = value
    return with_digest(words.tobytes())


__all__ = ["PROFILE", "PlantedWorld", "flipped", "read_rows", "with_digest", "with_word"]
