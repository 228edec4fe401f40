"""The proof: every value of streamed views, on every path, against an independent reference program.

The views are the shop's and two with every operator (proof_definitions.py). Sends a file of retail events in disorder
(shuffled within an hour, some of them days late) through a real broker to two workers and a sink that are killed with
-9 again and again, then asks random questions of `headwater history` and every row of `headwater get`, and compares
each answer, bit for bit, with what the reference (reference_program.py) computes from `headwater events`' output. Prints
the counts; exit code 1 where one differs. `--keys N` asks about N keys of each view: a tenth of them those with the most
events, the others by hash; all events flow in any case, and `check` recomputes every row.

    python -m benchmarks.proof --data online_retail.parquet --oracle window_oracle.py [--kills 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.reference_program import ReferenceProgram, Spec, plain, spec_of

CHECKOUT = Path(__file__).resolve().parent.parent
HOUR, DAY = 3_600_000_000, 86_400_000_000
QUESTIONS = {
    "customer_spend": 10_000, "product_demand": 10_000, "product_country_demand": 5_000, "customer_operators": 8_000,
    "product_operators": 3_000,
}  # fmt: skip


def main() -> None:
    """Run the whole proof in a repository of its own."""
    options = _options()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="headwater-proof-") as folder:
        run = Proof(Path(folder), options, rng)
        try:
            result = run.run()
        finally:
            run.close()
    print(json.dumps(result, indent=2))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2))
    sys.exit(0 if result["different"] == 0 else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Parquet file of retail events")
    parser.add_argument("--oracle", required=True, help="the reference program")
    parser.add_argument("--kills", type=int, default=20, help="how often workers are killed (default 20)")
    parser.add_argument("--rows", type=int, help="use only the first rows of the file")
    parser.add_argument("--rate", type=int, default=6_000, help="events a second while workers are killed")
    parser.add_argument("--keys", type=int, help="how many keys of each view are asked about (default: all)")
    parser.add_argument("--views", default=",".join(QUESTIONS), help="which views are asked (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="also write the counts to this file")
    return parser.parse_args()


class Proof:
    """One run, in its own repository with its own servers."""

    def __init__(self, folder: Path, options: argparse.Namespace, rng: random.Random) -> None:
        self.repo, self.work, self.options, self.rng = folder / "repo", folder, options, rng
        shutil.copytree(
            CHECKOUT / "feature_repo", self.repo, ignore=shutil.ignore_patterns(".headwater", "__pycache__")
        )
        shutil.copy(CHECKOUT / "benchmarks" / "proof_definitions.py", self.repo)
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self) -> dict[str, Any]:
        """All steps; the counts."""
        self.cli("up")
        self.cli("apply")
        events = self.disorder()
        self.say(f"{len(events):,} events in disorder; workers will be killed {self.options.kills} times")
        began = time.monotonic()
        kills = self.stream_under_fire()
        self.cli("stream", "--until-caught-up")
        self.cli("sink", "--until-caught-up")
        self.say(f"caught up after {time.monotonic() - began:.0f} s and {kills} kills")
        self.cli("events", "invoice_lines", "-o", str(self.work / "events.parquet"))
        result: dict[str, Any] = {"events": len(events), "kills": kills, "views": {}, "compared": 0, "different": 0}
        for view in self.options.views.split(","):
            self._prove(view, result)
        check = json.loads(self.cli("check", "--json").stdout)
        result["check"] = {v["view"]: v["recomputed"] | {"receipts": v["receipts"]} for v in check["views"]}
        return result

    def disorder(self) -> pl.DataFrame:
        """The file's rows, each up to an hour late and one in fifty up to five days, written as events.parquet."""
        rows = pl.read_parquet(self.options.data)
        rows = rows.head(self.options.rows) if self.options.rows else rows
        rng = np.random.default_rng(self.options.seed)
        late = rng.uniform(0, HOUR, len(rows)) + np.where(
            rng.random(len(rows)) < 0.02, rng.uniform(DAY, 5 * DAY, len(rows)), 0
        )
        moment = rows["invoice_ts"].dt.epoch("us").to_numpy() + late
        rows = rows[np.argsort(moment, kind="stable")]
        rows.write_parquet(self.work / "produce.parquet")
        return rows

    def stream_under_fire(self) -> int:
        """Produce slowly under two workers and a sink, killing them at random moments."""
        producer = self.start("produce", str(self.work / "produce.parquet"), "--rate", str(self.options.rate))
        workers = [self.start("stream"), self.start("stream")]
        sink, kills = self.start("sink"), 0
        while kills < self.options.kills or producer.poll() is None:
            time.sleep(self.rng.uniform(0.5, 6.0))
            if kills < self.options.kills:
                i = kills % 2
                workers[i].send_signal(signal.SIGKILL)
                workers[i].wait()
                workers[i] = self.start("stream")
                kills += 1
                if kills % 5 == 0:
                    sink.send_signal(signal.SIGKILL)
                    sink.wait()
                    sink = self.start("sink")
        for process in (*workers, sink):
            process.terminate()
            process.wait(30)
        if producer.returncode:
            raise SystemExit("produce failed")
        return kills

    def _prove(self, view: str, result: dict[str, Any]) -> None:
        spec = self.spec(view)
        events, keys = pl.read_parquet(self.work / "events.parquet"), spec["entity"]
        everyone = events.select(keys).drop_nulls().unique(maintain_order=True)
        chosen = self.sample(events, keys)
        counts = {
            "keys": len(chosen), "of": len(everyone), "history": self._history(view, spec, events, chosen),
            "get": self._get(view, spec, events, chosen),
        }  # fmt: skip
        result["views"][view] = counts
        for path in ("history", "get"):
            result["compared"] += counts[path]["values"]
            result["different"] += counts[path]["different"]
        self.say(f"{view}: {counts}")

    def _history(self, view: str, spec: Spec, events: pl.DataFrame, chosen: pl.DataFrame) -> dict[str, int]:
        """Random questions of `headwater history`."""
        asked = self.questions(events.join(chosen, on=spec["entity"]), spec, QUESTIONS[view])
        asked.rename({"at": "event_timestamp"}).write_parquet(self.work / "spine.parquet")
        self.cli("history", str(self.work / "spine.parquet"), "--features", view, "-o", str(self.work / "out.parquet"))
        history = pl.read_parquet(self.work / "out.parquet")
        return self.compare(view, spec, events, asked, self.values(history, view, spec))

    def _get(self, view: str, spec: Spec, events: pl.DataFrame, chosen: pl.DataFrame) -> dict[str, int]:
        """The rows of these keys, read at the epoch: the effective time is then just behind each row's newest event,
        where windows are full."""
        chosen.with_columns(at=pl.lit(0).cast(pl.Datetime("us", "UTC"))).write_parquet(self.work / "who.parquet")
        lines = self.cli("get", "--features", view, "--entities", str(self.work / "who.parquet"), "--json").stdout
        rows = [json.loads(line) for line in lines.splitlines()]
        at = pl.Series("at", [r["_as_of"][view] for r in rows]).str.to_datetime(time_unit="us", time_zone="UTC")
        mine = [{f["name"]: _micros(r[f"{view}__{f['name']}"]) for f in spec["features"]} for r in rows]
        counts = self.compare(view, spec, events, chosen.with_columns(at), mine)
        return counts | {"present": sum(r["_status"][view] == "PRESENT" for r in rows)}

    def spec(self, view: str) -> Spec:
        """The view as the reference reads it, from the published plan."""
        from headwater.online.connection import Connection
        from headwater.online.plan_store import load_published
        from headwater.plans.plan import StreamView
        from headwater.repository import load_repository

        repository = load_repository(self.repo)
        with Connection(repository.need_redis()) as connection:
            published = load_published(connection, repository.project)
        assert published is not None
        found = published.plan.view(view)
        assert isinstance(found, StreamView)
        return spec_of(found, published.plan.source(found.source))

    def sample(self, events: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
        """The keys to ask about: all, or a tenth of `--keys` with the most events and the rest by hash."""
        counted = events.select(keys).drop_nulls().group_by(keys).len().sort("len", *keys, descending=True)
        n = self.options.keys or len(counted)
        most, others = counted.head(n // 10 + 1), counted.slice(n // 10 + 1)
        digests = [hashlib.md5(repr(row).encode()).hexdigest() for row in others.select(keys).iter_rows()]
        others = others.with_columns(pl.Series("_digest", digests, pl.String)).sort("_digest").drop("_digest")
        return pl.concat([most, others]).head(n).select(keys)

    def questions(self, events: pl.DataFrame, spec: Spec, n: int) -> pl.DataFrame:
        """Keys at random times, half of them drawn by event and half by key; every other time lies at, or a
        microsecond beside, an event or a hop."""
        rng = np.random.default_rng(self.options.seed + n)
        keys, time_column = spec["entity"], spec["event_time"]
        known = events.select(*keys, time_column).drop_nulls().sort(pl.all())
        by_key = known.select(1 / pl.len().over(keys)).to_series().to_numpy()
        drawn = [rng.integers(0, len(known), n // 2), rng.choice(len(known), n - n // 2, p=by_key / by_key.sum())]
        chosen = known[np.concatenate(drawn)]
        at = chosen[time_column].dt.epoch("us").to_numpy().copy()
        first, last = int(at.min()), int(at.max())
        loose = rng.random(n) < 0.5
        at[loose] = rng.integers(first - DAY, last + 2 * DAY, int(loose.sum()))
        at[~loose] += rng.choice([0, 1, -1, HOUR, 5 * 60_000_000, DAY, 30 * DAY, 30 * DAY + 1], int((~loose).sum()))
        return chosen.select(keys).with_columns(pl.Series("at", at).cast(pl.Datetime("us", "UTC")))

    def values(self, table: pl.DataFrame, view: str, spec: Spec) -> list[dict[str, Any]]:
        """The answers of an output table, timestamps as microseconds, counted values as pairs."""
        names = {f"{view}__{f['name']}": f["name"] for f in spec["features"]}
        table = table.select(*names).rename(names)
        times = [c for c, t in table.schema.items() if isinstance(t, pl.Datetime)]
        table = table.with_columns(pl.col(times).dt.epoch("us")) if times else table
        return [{name: plain(value) for name, value in row.items()} for row in table.to_dicts()]

    def compare(
        self, view: str, spec: Spec, events: pl.DataFrame, asked: pl.DataFrame, ours: list[dict[str, Any]]
    ) -> dict[str, int]:
        """Ask the reference the same questions; how many values were compared, and how many differ."""
        values, different = ReferenceProgram(self.options.oracle).compare(
            spec, events, asked, ours, lambda text: self.say(f"DIFFERS {view} {text}")
        )
        return {"questions": len(ours), "values": values, "different": different}

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "headwater", "-C", str(self.repo), *args], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(
                f"headwater {' '.join(args)}: exit code {done.returncode}\n{done.stderr}{done.stdout[-2000:]}"
            )
        return done

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """Start a command in the background."""
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater", "-C", str(self.repo), *args],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End what was started."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        subprocess.run([sys.executable, "-m", "headwater", "-C", str(self.repo), "down"], capture_output=True)

    def say(self, text: str) -> None:
        """A line on stderr, at once."""
        print(text, file=sys.stderr, flush=True)


def _micros(value: Any) -> Any:
    """RFC 3339 text as microseconds, anything else as it is."""
    if isinstance(value, str) and len(value) >= 20 and value.endswith("Z") and value[4] == value[7] == "-":
        return pl.Series([value]).str.to_datetime(time_unit="us", time_zone="UTC").dt.epoch("us").item()
    return value


if __name__ == "__main__":
    main()
