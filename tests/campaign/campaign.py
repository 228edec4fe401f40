"""Runs a schedule of faults, compares after each, and proves everything at the end."""

from __future__ import annotations

import gc
import json
import math
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign import reference
from tests.campaign.faults import FAULTS
from tests.campaign.fleets import Supervisor
from tests.campaign.reader import Reader
from tests.campaign.world import CampaignWorld

EXPECTED_ENDINGS = {
    1: ("is not the one that", "does not exist", "was deleted", "is gone or was made anew", "has the id"),
    3: ("Kafka did not answer at", "No Redis", "Redis at", "Could not reach Redis"),
}
"""What a worker or sink says that ends by itself, rightly, by exit code: the topic is another one; or a server is away
when it starts, which is more likely a wrong address."""


@dataclass
class Row:
    """A line of the table. Seconds: of reads refused, in all and at most; to catch up, at most."""

    times: int = 0
    refused: float = 0.0
    longest: float = 0.0
    caught_up: float = 0.0
    compared: int = 0
    differ: int = 0


@dataclass
class Outcome:
    """What a campaign found. `final`: (values compared, values that differ), with the naive loop; `reference`: with
    the reference program, where there is one; `kept_elsewhere`: receipts of deleted topics that were equal."""

    rows: dict[str, Row] = field(default_factory=dict)
    final: tuple[int, int] = (0, 0)
    reference: tuple[int, int] | None = None
    check: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = -1
    kept_elsewhere: int = 0
    problems: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Receipts that servers kept."""
        return sum(v["kept_receipts"]["kept"] for v in self.check)

    @property
    def kept_equal(self) -> int:
        """Those that gave equal bytes."""
        return self.kept_elsewhere + sum(v["kept_receipts"]["equal"] for v in self.check)

    @property
    def sound(self) -> bool:
        """Nothing differs, nothing was said that should not be."""
        return (
            not self.problems and self.exit_code == 0 and not self.final[1] and not any(r.differ for r in self.rows.values())
            and (self.reference is None or (self.reference[0] > 0 and not self.reference[1]))
            and self.kept == self.kept_equal > 0 and not any(v["differences"] for v in self.check)
        )  # fmt: skip

    def table(self) -> str:
        """The table, and below it the totals."""
        head = (
            f"{'fault':<36} {'times':>5} {'refused s':>10} {'longest':>8} {'caught up':>10} {'values':>9} {'differ':>7}"
        )
        lines = [head, "-" * len(head)]
        for name, r in self.rows.items():
            lines.append(
                f"{name:<36} {r.times:>5} {r.refused:>10.1f} {r.longest:>8.1f} {r.caught_up:>10.1f} "
                f"{r.compared:>9,} {r.differ:>7}"
            )
        lines += [
            "-" * len(head),
            *(f"{k}: {v:,}" if isinstance(v, int) else f"{k}: {v}" for k, v in self.facts.items()),
        ]
        lines.append(f"all values at the end: {self.final[0]:,} compared, {self.final[1]:,} differ")
        if self.reference:
            lines.append(f"the same, reference program: {self.reference[0]:,} compared, {self.reference[1]:,} differ")
        for v in self.check:
            lines.append(
                f"check {v['view']}: rows {v['recomputed']['equal']:,} of {v['recomputed']['compared']:,} equal, "
                f"receipts kept by servers {v['kept_receipts']['equal']:,} of {v['kept_receipts']['kept']:,} equal, "
                f"differences {v['differences']}"
            )
        lines.append(
            f"receipts: {self.kept:,} kept, {self.kept_equal:,} replayed to equal bytes; exit code of check {self.exit_code}"
        )
        lines += [f"PROBLEM: {p}" for p in self.problems]
        lines.append("sound" if self.sound else "NOT SOUND")
        return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """What a campaign does. `receipts_a_second` are read while it lasts; no fault begins after `seconds`; `oracle` is
    the path of a reference program, which has the last word on every value."""

    faults: Sequence[str]
    kills: int
    kill_every: tuple[float, float]
    customers: int
    rate: int
    receipts: int
    receipts_a_second: float
    workers: int = 3
    sample: int = 20
    seconds: float = math.inf
    seed: int = 1
    oracle: str | None = None


class Campaign:
    """One campaign in a folder. `say` is told lines of progress."""

    def __init__(self, plan: Plan, folder: Path, lake: Path, say: Callable[[str], None]) -> None:
        self.plan, self.say, self.folder = plan, say, folder
        self.pick = random.Random(plan.seed)
        self.world = CampaignWorld(
            folder, lake, customers=plan.customers, rate=plan.rate, workers=plan.workers, seed=plan.seed
        )
        self.outcome = Outcome()
        world = self.world
        self.reader = Reader(world.address, plan.customers, plan.receipts_a_second, plan.seed)
        self.supervisor = Supervisor(
            [world.workers, world.sinks, world.server],
            [world.workers, world.sinks],
            plan.kills,
            plan.kill_every,
            plan.seed,
        )

    def run(self) -> Outcome:
        """All of it; processes and servers are ended whatever happens."""
        began = time.monotonic()
        # A collection beside a thread that produces crashes confluent-kafka 2.12 now and then (its issue 1761); so does
        # one behind it, which would take the result with it: this process has nothing else to do.
        gc.disable()
        try:
            self._begin()
            for name in self._schedule():
                if time.monotonic() - began > self.plan.seconds:
                    self.say("the time is over")
                    break
                self._strike(name)
            self._finish(began)
        finally:
            self.supervisor.stop()
            self.reader.stop()
            self.world.end()
        self._judge()
        return self.outcome

    def _schedule(self) -> Iterator[str]:
        """The faults, then any of them while kills or receipts are left."""
        yield from self.plan.faults
        while self.supervisor.left or self.reader.present < self.plan.receipts:
            yield self.pick.choice(self.plan.faults)

    def _begin(self) -> None:
        self.supervisor.start()
        self.world.flow.start()
        self.world.wait(lambda: self.world.address() is not None, "the server does not start")
        self.world.settle()
        self.reader.start()

    def _strike(self, name: str) -> None:
        world, row = self.world, self.outcome.rows.setdefault(name, Row())
        began = time.monotonic()
        self.supervisor.armed.set()
        FAULTS[name](world)
        self.supervisor.armed.clear()
        world.flow.pause()
        caught_up = world.settle()
        customers = self.pick.sample(range(self.plan.customers), min(self.plan.sample, self.plan.customers))
        compared, differ = world.differences(customers)
        world.flow.resume()
        refused = self.reader.seconds(began)
        row.times, row.refused, row.longest = row.times + 1, row.refused + refused, max(row.longest, refused)
        row.caught_up = max(row.caught_up, caught_up)
        row.compared, row.differ = row.compared + compared, row.differ + differ
        if name == "a definition changed, and back" and refused and not self.supervisor.left:
            world.said(f"reads were refused for {refused:.1f} s while a definition was changed")
        self.say(
            f"{time.monotonic() - began:6.1f} s  {name}: refused {refused:.1f} s, caught up after {caught_up:.1f} s, "
            f"{differ} of {compared} differ; {world.workers.killed} kills, {self.reader.present:,} receipts, "
            f"{world.flow.sent:,} events"
        )

    def _finish(self, began: float) -> None:
        world = self.world
        self.reader.stop()
        world.flow.pause()
        world.settle()
        world.lake_covers()
        world.server.stop()
        self.say(f"{time.monotonic() - began:6.1f} s  comparing all values")
        compared = differ = 0
        everyone = sorted({c for known in world.flow.records.values() for c in known})
        for i in range(0, len(everyone), 250):
            some = world.differences(everyone[i : i + 250])
            compared, differ = compared + some[0], differ + some[1]
        self.outcome.final = (compared, differ)
        if self.plan.oracle:
            self.outcome.reference = reference.differences(world, self.plan.oracle)
            self.say(
                f"{time.monotonic() - began:6.1f} s  compared with the reference program: {self.outcome.reference}"
            )
        doubled = world.lake.duplicates(world.topic).num_rows
        if doubled:
            world.said(f"{doubled} records are in the lake more than once")
        self._check()
        self.outcome.facts = {
            "events": world.flow.sent, "of them late": world.flow.late, "of them twice": world.flow.twice,
            "broken": world.flow.broken, "kills of workers": world.workers.killed, "kills of sinks": world.sinks.killed,
            "reads refused with": ", ".join(sorted(self.reader.why)) or "nothing",
            "sets of columns of spend seen": len(self.reader.shapes),
            "seconds": round(time.monotonic() - began), "seed": self.plan.seed,
        }  # fmt: skip

    def _check(self) -> None:
        began = time.monotonic()
        command = [sys.executable, "-m", "headwater", "-C", str(self.world.root), "check", "--receipts", "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.outcome.exit_code = done.returncode
        self.say(f"headwater check --receipts: exit code {done.returncode} after {time.monotonic() - began:.1f} s")
        if not done.stdout.startswith("{"):
            self.world.said(f"headwater check: {done.stderr[-2000:]}")
            return
        self.outcome.check = json.loads(done.stdout)["views"]
        if self.world.moved_away:
            kept, equal = self.world.replay_what_was_moved_away()
            self.outcome.kept_elsewhere = equal
            self.say(f"of topics that were deleted: {equal:,} of {kept:,} kept receipts equal")
        for view in self.outcome.check:
            for note in view["notes"]:
                self.say(f"check {view['view']}: {note}")
            for example in view["examples"][:5]:
                self.say(f"check {view['view']}: {example}")

    def _judge(self) -> None:
        world = self.world
        for fleet in (world.workers, world.sinks, world.server):
            for code, said in fleet.endings:
                if not any(text in said for text in EXPECTED_ENDINGS.get(code, ())):
                    world.said(f"{fleet.arguments[2]} ended with {code}: {said}")
            for traceback in fleet.tracebacks:
                world.said(f"{fleet.arguments[2]} printed a traceback:\n{traceback}")
            counted = Counter(said[:100] for _, said in fleet.endings)
            for said, times in counted.most_common(3):
                self.say(f"{fleet.arguments[2]} ended by itself {times} times: {said}")
        self.outcome.problems = world.problems
