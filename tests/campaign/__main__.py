"""The command: python -m tests.campaign [--kills 200 --receipts 1000000 …]. Exit code 1 where anything differs."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.campaign.campaign import Campaign, Plan
from tests.campaign.faults import FAULTS, schedule

SHORT = Plan(
    ("a partition added", "a definition changed, and back", "Redis killed, its file cut", "Redis emptied",
     "retention passes stopped workers"),
    2, (2, 6), customers=40, rate=150, receipts=500, receipts_a_second=200, workers=2, sample=40,
)  # fmt: skip


def main() -> None:
    """Run one campaign, print its progress to stderr and its table to stdout."""
    options = _options()
    plan = replace(SHORT, oracle=options.oracle) if options.short else Plan(
        options.fault or schedule(random.Random(options.seed), options.rounds), options.kills,
        (options.kill_every * 0.3, options.kill_every * 1.7), options.customers, options.rate, options.receipts,
        options.receipts_a_second, seconds=60 * options.minutes, seed=options.seed, oracle=options.oracle,
    )  # fmt: skip
    began = time.monotonic()
    # Ended like that, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:7.1f}] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="headwater-campaign-") as folder, _small_disk(Path(folder), say) as lake:
        outcome = Campaign(plan, Path(folder), lake, say).run()
    print(outcome.table(), flush=True)
    # Not sys.exit: it collects what is left of librdkafka's objects, which crashes now and then (campaign.py).
    os._exit(0 if outcome.sound else 1)


@contextmanager
def _small_disk(folder: Path, say) -> Iterator[Path]:
    """A lake on a file system of its own, which may run full; where none can be mounted, beside the rest."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        say("No file system can be mounted here: the disk is made full by a limit of the sink's files.")
    try:
        yield disk / "lake"
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="the one that the test suite runs; the sizes below do not count"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often every fault strikes (default 1)")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only these, in this order")
    parser.add_argument("--kills", type=int, default=10, help="kill -9 of workers, at least")
    parser.add_argument("--kill-every", type=float, default=4.0, help="seconds between kills, on average")
    parser.add_argument("--customers", type=int, default=500)
    parser.add_argument("--rate", type=int, default=600, help="events a second")
    parser.add_argument("--receipts", type=int, default=10_000, help="receipts to draw, at least")
    parser.add_argument("--receipts-a-second", type=float, default=300)
    parser.add_argument("--minutes", type=float, default=120, help="no fault begins later")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--oracle", metavar="PROGRAM", help="a reference program, asked for all values at the end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
