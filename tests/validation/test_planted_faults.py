"""Every fault that a test plants is named with view, key and cause, and after it is undone nothing is named.

Real Kafka, Redis and lake, and the command itself. The world is shared: each test puts right what it damaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.plans.plan import CODEC_VERSION
from headwater.rows.codec import HEADER, read_header
from headwater.rows.layout import layout_of
from tests.validation.planted_world import PlantedWorld, flipped, with_digest, with_word

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
KEY = b"3"


@pytest.fixture(scope="module")
def world(redis_url: str, kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedWorld]:
    world = PlantedWorld(redis_url, kafka, tmp_path_factory.mktemp("planted"))
    yield world
    world.close()


@pytest.fixture(autouse=True)
def nothing_is_named_afterwards(world: PlantedWorld):
    yield
    world.assert_clean()


def test_without_a_fault_nothing_is_named(world: PlantedWorld) -> None:
    said = world.check()
    assert (said.code, said.err) == (0, "")
    rows = {view: len(world.rows(view)) for view in ("spend", "recent", "profile")}
    assert said.out == "".join(f"✓ {v}: receipts {n} of {n} equal, rows {n} of {n} equal\n" for v, n in rows.items())


# -- rows ---------------------------------------------------------------------------------------------------------


def test_a_row_replaced_by_older_bytes_of_itself(world: PlantedWorld) -> None:
    with world.row(KEY, world.older[KEY]):
        world.assert_named(
            "spend", "defect", {"3"}, "an older copy of the row was put back", "of this key behind that",
            " online, ", "do:     headwater repair spend --entity customer=3",
        )  # fmt: skip


def test_a_row_deleted(world: PlantedWorld) -> None:
    with world.row(KEY, None):
        world.assert_named("spend", "missing online", {"3"}, "row:    there is none")


def test_a_row_that_expired_too_early(world: PlantedWorld) -> None:
    key = sorted(world.rows("recent"))[0]
    at = world.row_key(key, "recent")
    with world.redis_key(at):
        world.connection.command("PEXPIRE", at, 1)
        while world.connection.command("EXISTS", at):
            pass
        product = key.split(b"|")[1].rstrip(b"\\").decode()
        world.assert_named(
            "recent", "missing online", {key.decode()}, "expired too early",
            f"headwater repair recent --entity 'customer=0,product={product}|a'",
            entity=f"customer=0,product={product}|a",
        )  # fmt: skip


def places_of(row: bytes) -> dict[str, int]:
    """A byte of each part of a row (codec.py)."""
    layout = layout_of_spend()
    tiles = 8 * (HEADER + 3 * len(read_header(row).partitions))
    return {
        "digest": 3, "version": 8, "kind": 9, "number of partitions": 10, "length of the tail": 12,
        "definition": 16, "newest": 24, "partition": 32, "born": 40, "applied": 48, "counts": tiles,
        "first tile": tiles + 8 * layout.count_words, "tail": len(row) - 8, "last byte": len(row) - 1,
    }  # fmt: skip


def layout_of_spend():
    from tests.pipelines.stream_world import view_of

    return layout_of(view_of())


@pytest.mark.parametrize("place", list(places_of(b"\0" * 8 + bytes([CODEC_VERSION, 1]) + b"\0" * 54)))
def test_a_byte_flipped(world: PlantedWorld, place: str) -> None:
    row = world.rows()[KEY]
    with world.row(KEY, flipped(row, places_of(row)[place])):
        unreadable = place in ("version", "kind")
        words = (
            "no row that this Headwater reads" if unreadable else "bytes of the row were changed after it was written"
        )
        world.assert_named("spend", "defect", {"3"}, words)


@pytest.mark.parametrize("length", [0, 7, 31, 40, -8])
def test_a_row_cut_short(world: PlantedWorld, length: int) -> None:
    with world.row(KEY, world.rows()[KEY][:length]):
        world.assert_named("spend", "defect", {"3"})


def test_a_row_of_an_unknown_codec_version(world: PlantedWorld) -> None:
    row = bytearray(world.rows()[KEY])
    row[8] = 9
    with world.row(KEY, with_digest(row)):
        world.assert_named("spend", "defect", {"3"}, "codec version 9", "upgrade this one")


def test_a_row_of_another_definition(world: PlantedWorld) -> None:
    with world.row(KEY, with_word(world.rows()[KEY], 2, 0x1234)):
        world.assert_named("spend", "defect", {"3"}, "it has the definition 0000000000001234")


def test_a_row_changed_with_a_digest_that_fits(world: PlantedWorld) -> None:
    with world.row(KEY, world.miscounted(KEY)):
        world.assert_named("spend", "defect", {"3"}, "its own offsets give other bytes", "77 online")


def test_a_row_of_a_key_that_the_lake_has_never_seen(world: PlantedWorld) -> None:
    with world.row(b"99", world.rows()[KEY]):
        world.assert_named("spend", "missing in lake", {"99"}, "the lake never had an event")


def test_an_event_that_only_a_row_has(world: PlantedWorld) -> None:
    row = world.rows()[KEY]
    partition, _, _ = read_header(row).partitions[0]
    end = int(world.connection.command("GET", world.position_key(partition)))
    with world.row(KEY, with_word(row, HEADER + 2, end)):
        world.assert_named(
            "spend", "missing in lake", {"3"}, "an event that its topic never had", f"the topic ends at {end}",
        )  # fmt: skip


# -- rows of a BatchView ------------------------------------------------------------------------------------------


def test_a_batch_row_deleted_changed_of_an_older_snapshot_or_of_nobody(world: PlantedWorld) -> None:
    rows = world.rows("profile")
    with world.row(b"2", None, "profile"):
        world.assert_named("profile", "missing online", {"2"}, "do:     headwater materialize profile --as-of 2011-")
    with world.row(b"2", flipped(rows[b"2"], 40), "profile"):
        world.assert_named("profile", "defect", {"2"}, "bytes of the row were changed")
    with world.row(b"2", with_word(rows[b"2"], 3, read_header(rows[b"2"]).newest - 1), "profile"):
        world.assert_named("profile", "defect", {"2"}, "an older snapshot's row")
    with world.row(b"9", rows[b"2"], "profile"):
        world.assert_named("profile", "missing in lake", {"9"}, "no snapshot in the lake has its key")


# -- positions ----------------------------------------------------------------------------------------------------


def test_a_position_moved_back(world: PlantedWorld) -> None:
    [at] = world.connection.command("MGET", world.position_key(1))
    ahead = {k.decode() for k, row in world.rows().items() if dict_of(row).get(1, -1) >= int(at) - 3}
    with world.position(1, int(at) - 3):
        world.assert_named("spend", "defect", ahead, "the position of partition 1 was moved back", "start a worker")
    assert ahead


def dict_of(row: bytes) -> dict[int, int]:
    return {p: applied for p, _, applied in read_header(row).partitions}


def test_a_position_moved_past_the_topic(world: PlantedWorld) -> None:
    with world.position(0, 1000):
        world.assert_named("spend", "defect", {"position of partition 0"}, "workers stop there", "it is 1000")


def test_a_position_moved_over_events_that_no_row_has(world: PlantedWorld) -> None:
    at = int(world.connection.command("GET", world.position_key(0)))
    world.produce([{"customer": c, "product": "p", "ts": 1_320_000_000_000_000, "quantity": 1} for c in (3, 70)], 0)
    world.keep()
    with world.position(0, at + 2):
        found = world.check("spend", "--json")
        assert (found.code, found.view("spend")["differences"]) == (1, {"defect": 1, "missing online": 1})
        told = world.check("spend").out
        assert "spend customer=3: defect: the position of partition 0 was moved forward" in told
        assert "spend customer=70: missing online: the position of partition 0 was moved forward" in told
    world.catch_up()


def test_a_position_that_is_gone(world: PlantedWorld) -> None:
    with world.position(1, None):
        world.assert_named("spend", "missing online", {"position of partition 1"}, "headwater backfill spend")


# -- the lake -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partition", "offset", "why"), [(0, 5000, "the topic ends at"), (1, 3, "that place is in the table more")]
)
def test_an_event_appended_only_to_the_lake(world: PlantedWorld, partition: int, offset: int, why: str) -> None:
    with world.table(f"events/{world.topic}"):
        world.append_to_lake(customer=3, quantity=2, _partition=partition, _offset=offset)
        said = world.check("--json")
        assert said.code == 1
        for view in ("spend", "recent"):
            assert set(said.view(view)["differences"]) == {"missing online"}
        found = said.view("spend")["examples"]
        assert ("3", "missing online") in {(e["key"], e["cause"]) for e in found}
        told = world.check("spend").out
        assert "spend customer=3: missing online: an event is in the lake that did not come from the topic" in told
        assert f"partition {partition}, offset {offset}; {why}" in told


def data_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"), key=lambda f: f.stat().st_mtime)


@pytest.mark.parametrize("damage", ["removed", "cut", "emptied"])
def test_a_data_file_of_the_lake_damaged(world: PlantedWorld, damage: str) -> None:
    with world.table(f"events/{world.topic}") as folder:
        file = data_files(folder)[0]
        if damage == "removed":
            file.unlink()
        else:
            os.truncate(file, file.stat().st_size // 2 if damage == "cut" else 0)
        said = world.check("--json")
        assert said.code == 1
        for view in ("spend", "recent"):
            assert set(said.view(view)["differences"]) == {"missing in lake"}
            assert all(file.name in e["log"] for e in said.view(view)["examples"])
        assert (
            "spend customer=3: missing in lake: a data file of the lake is gone or broken" in world.check("spend").out
        )


def test_all_data_files_of_the_lake_removed(world: PlantedWorld) -> None:
    with world.table(f"events/{world.topic}") as folder:
        for file in data_files(folder):
            file.unlink()
        keys = {k.decode() for k in world.rows()}
        said = world.check("spend", "--json")
        assert (said.code, said.view("spend")["differences"]) == (1, {"missing in lake": len(keys)})


def commits(folder: Path) -> list[Path]:
    return sorted((folder / "_delta_log").glob("*.json"))


@pytest.mark.parametrize("damage", ["middle", "first", "garbage", "whole"])
def test_a_file_of_the_lakes_log_damaged(world: PlantedWorld, damage: str) -> None:
    with world.table(f"events/{world.topic}") as folder:
        log = commits(folder)
        if damage == "garbage":
            log[1].write_text("{")
        for file in {"middle": log[1:2], "first": log[:1], "garbage": [], "whole": log}[damage]:
            file.unlink()
        said = world.check("--json")
        assert said.code == 1
        assert said.err.startswith("Error: ")
        assert f"table 'events/{world.topic}' of the lake" in said.err.lower()
        assert "Restore the folder from a backup" in said.err
        assert "Traceback" not in said.err
        for view in ("spend", "recent"):
            assert said.view(view)["differences"] == {"missing in lake": len(world.rows(view))}
        # A view that does not stand on that table is checked all the same.
        assert said.view("profile")["recomputed"] == {"compared": 3, "equal": 3}
        told = world.check("spend").out
        assert "spend customer=3: missing in lake: the lake's table cannot be read" in told


def test_the_newest_commit_of_the_lakes_log_removed(world: PlantedWorld) -> None:
    with world.table(f"events/{world.topic}") as folder:
        log = commits(folder)
        log[-1].unlink()
        said = world.check("--json")
        assert said.code == 1
        assert set(said.view("spend")["differences"]) == {"missing in lake"}
        assert "3" in {e["key"] for e in said.view("spend")["examples"]}
        assert "spend customer=3: missing in lake: the table lost its newest commits" in world.check("spend").out


def test_a_file_of_a_batch_views_table_removed(world: PlantedWorld) -> None:
    with world.table("views/profile") as folder:
        data_files(folder)[-1].unlink()
        said = world.check("--json")
        assert said.code == 1
        assert said.view("profile")["differences"] == {"missing in lake": 3}
        assert said.view("spend")["differences"] == {}


def test_results_are_told_where_their_own_table_is_damaged(world: PlantedWorld) -> None:
    with world.table("checks") as folder:
        for file in commits(folder):
            file.unlink()
        said = world.check("--json")
        assert (said.code, said.view("spend")["differences"]) == (1, {})
        assert "Table 'checks' of the lake" in said.err
