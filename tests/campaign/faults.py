"""The faults of a campaign, each a function of the world; what goes on beside them are events, reads and kills."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from headwater.online.plan_store import load_published
from tests.campaign.world import CampaignWorld

Fault = Callable[[CampaignWorld], None]
SESSION = 6.0
"""Seconds after which Kafka gives a frozen worker's partitions to others."""


def nothing(world: CampaignWorld) -> None:
    """Only the kills, if they are armed."""
    time.sleep(4)


def workers_join_and_leave(world: CampaignWorld) -> None:
    """Two more workers, then two go in order."""
    world.workers.size += 2
    world.workers.look()
    time.sleep(3)
    world.workers.size -= 2
    for _ in range(2):
        world.workers.leave_one()
        time.sleep(0.5)


def worker_frozen(world: CampaignWorld) -> None:
    """SIGSTOP past the session, then SIGCONT: it wakes with a batch in hand and positions that others moved."""
    with world.workers.one_frozen(world.pick):
        time.sleep(SESSION + world.pick.uniform(2, 4))
    time.sleep(1)


def redis_killed_and_cut(world: CampaignWorld) -> None:
    """kill -9, the append-only file cut at a random byte, and a start; synced always and each second in turn."""
    fsync = world.pick.choice(["always", "everysec"])
    world.wait(lambda: world.connection.command("CONFIG", "SET", "appendfsync", fsync) == b"OK", "Redis is away")
    time.sleep(world.pick.uniform(1, 3))
    world.own_redis.kill()
    files = (world.own_redis.data_dir / "appendonlydir").glob("*.incr.aof")
    log = max(files, key=lambda f: int(f.name.split(".")[-3]))
    size = log.stat().st_size
    # Mostly the last seconds, as after a crash; sometimes far back.
    lost = world.pick.randrange(1, min(size, 3_000_000)) if world.pick.random() < 0.8 else world.pick.randrange(size)
    os.truncate(log, size - lost)
    time.sleep(world.pick.uniform(0, 1))
    world.own_redis.restart()


def redis_emptied(world: CampaignWorld) -> None:
    """FLUSHALL: plan, positions and rows are gone; an apply and backfills bring them back."""
    world.wait(lambda: world.connection.command("FLUSHALL") == b"OK", "Redis is away")
    time.sleep(1)


def broker_restarted(world: CampaignWorld) -> None:
    """The broker is killed or stopped, and comes back after seconds."""
    world.own_kafka.kill() if world.pick.random() < 0.5 else world.own_kafka.stop()
    time.sleep(world.pick.uniform(1, 4))
    world.own_kafka.start()


def disk_full(world: CampaignWorld) -> None:
    """The sink's disk takes nothing for seconds: it says so, waits, and loses nothing."""
    ballast = Path(world.lake.location).parent / "ballast"
    full = world.fill_disk(ballast)
    try:
        until = time.monotonic() + world.pick.uniform(5, 8)
        while time.monotonic() < until:
            if not full:
                world.limit_sinks(512)
            time.sleep(0.2)
        said = [line for p in world.sinks.running for line in p.lines if "cannot be written" in line]
        if not said and not world.sinks.killed:
            world.said("the sink did not say that it cannot write")
    finally:
        ballast.unlink(missing_ok=True)
        world.limit_sinks(-1)
    world.lake_covers()


def disorder(world: CampaignWorld) -> None:
    """A burst in which most events are late or come twice."""
    rate, world.flow.rate = world.flow.rate, world.flow.rate * 3
    for hours in (-3, -30, 2, -1):
        world.flow.shift = hours * 3_600_000_000
        time.sleep(0.7)
    world.flow.shift, world.flow.rate = 0, rate


def partition_added(world: CampaignWorld) -> None:
    """The topic grows under the workers, and keys move between partitions."""
    wanted = world.partitions() + 1
    [done] = world.admin.create_partitions([NewPartitions(world.topic, wanted)]).values()
    done.result(60)
    world.wait(lambda: world.partitions() == wanted, "the partition is not there")
    time.sleep(1.5)
    world.flow.partitions[world.topic] = wanted
    time.sleep(2)


def definition_changed(world: CampaignWorld) -> None:
    """Another definition while events flow, and back to the first: readers never see a half-filled view."""
    for changed in (True, False):
        before = load_published(world.connection, world.project)
        world.define_spend(changed)
        world.heal()
        after = load_published(world.connection, world.project)
        if before and after and before.active["spend"].fill == after.active["spend"].fill:
            world.said("a changed definition did not fill again")
        time.sleep(1)


def topic_made_anew(world: CampaignWorld) -> None:
    """The second topic is deleted and made again: workers and sinks stop, say so, and go on after an apply."""
    topic = world.visits.topic
    world.flow.pause()
    world.lake_covers()
    [done] = world.admin.delete_topics([topic]).values()
    done.result(60)
    world.wait(lambda: topic not in world.admin.list_topics(timeout=10).topics, "the topic is still there")
    # What a worker or a sink asks for in the meantime is gone: it ends, and is started again.
    time.sleep(1)
    world.create_visits()
    world.flow.forget(topic)
    world.flow.renew()
    time.sleep(1)
    lake = Path(world.lake.events_table(topic).uri.removeprefix("file://"))
    world.moved_away.append(lake.with_name(f"{lake.name}-{time.time_ns()}"))
    shutil.move(lake, world.moved_away[-1])
    world.flow.resume()


def retention_passes_stopped_workers(world: CampaignWorld) -> None:
    """All workers are stopped, and the topic forgets what they had not read; the sink has kept it."""
    world.workers.stop()
    time.sleep(2)
    world.lake_covers()
    held = world.lake.positions(world.topic)
    cut = [TopicPartition(world.topic, p, end) for p, end in held.items() if end and world.pick.random() < 0.7]
    world.flow.read()
    # A client that is older than the newest partition does not know it.
    admin = AdminClient(world.kafka)
    for done in admin.delete_records(cut or [TopicPartition(world.topic, 0, held[0])]).values():
        done.result(60)
    world.workers.start()
    time.sleep(2)


CLOCK = """
import time
_ns, _s = time.time_ns, time.time
time.time_ns = lambda: _ns() + {hours} * 3_600_000_000_000
time.time = lambda: _s() + {hours} * 3600.0
"""


def clocks_apart(world: CampaignWorld) -> None:
    """Events from clocks 7 hours ahead and 9 behind, and workers whose own clocks are 5 hours off."""
    folder = world.root / f"clock-{time.time_ns()}"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCK.format(hours=world.pick.choice([-5, 5])))
    path = os.environ.get("PYTHONPATH", "")
    world.workers.environment = {**os.environ, "PYTHONPATH": f"{folder}:{path}"}
    world.workers.kill_one(world.pick)
    for hours in (7, -9):
        world.flow.shift = hours * 3_600_000_000
        time.sleep(1.5)
    world.flow.shift, world.workers.environment = 0, None


FAULTS: dict[str, Fault] = {
    "workers killed (-9)": nothing,
    "workers join and leave": workers_join_and_leave,
    "a worker frozen past its session": worker_frozen,
    "Redis killed, its file cut": redis_killed_and_cut,
    "Redis emptied": redis_emptied,
    "broker killed or stopped": broker_restarted,
    "the sink's disk full": disk_full,
    "events late and twice": disorder,
    "a partition added": partition_added,
    "a definition changed, and back": definition_changed,
    "a topic deleted and made anew": topic_made_anew,
    "retention passes stopped workers": retention_passes_stopped_workers,
    "clocks hours apart": clocks_apart,
}


def schedule(pick: random.Random, rounds: int) -> list[str]:
    """Every fault once a round, in any order."""
    order: list[str] = []
    for _ in range(rounds):
        names = list(FAULTS)
        pick.shuffle(names)
        order += names
    return order
