"""`make quickstart`: the whole way of the shop's features, on real servers, with an account at its end.

Each step is a command that a user can type, and is shown as such. Servers, worker, sink, feature
server and catalog keep running; `headwater down` ends them. A second run starts clean.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.request import urlopen

from headwater.cli import system_error
from headwater.embedded.mock_broker import LIMITS
from headwater.embedded.processes import ProcessRecord, free_port, is_alive, launch, port_is_free, tail
from headwater.embedded.servers import BROKERS, record_process, stop_servers
from headwater.errors import HeadwaterError, Unreachable, UsageError
from headwater.online.connection import Connection
from headwater.online.plan_store import load_published
from headwater.repository import Repository, load_repository
from pipelines.quickstart_account import Account, print_account
from pipelines.quickstart_events import LIVE_EVENTS, Replay, live_records, split_for_replay, write_spine
from pipelines.throughput import measure_throughput

CHECKOUT = Path(__file__).resolve().parent.parent
SAMPLE = CHECKOUT / "feature_repo" / "data" / "online_retail_sample.parquet"
SOURCE, VIEW, SERVICE, BATCH_VIEW = "invoice_lines", "customer_spend", "churn", "customer_profile"
EVENTS_A_SECOND_LIVE = 100
SPINE_ROWS = 1_000
SNAPSHOT_DAYS = 14
"""Days back of the batch view's first snapshot: a training set needs one that is older than its rows."""
SERVER_PORT, CATALOG_PORT = 8500, 8600


def run(root: Path, data: Path, broker: str | None = None) -> Account:
    """All steps in order, over the repository at `root` with the events of the Parquet file `data`."""
    work = start_clean(root)
    account = Account(root=root)
    command(root, "up", *(["--broker", broker] if broker else []))
    if broker == "mock":
        say(LIMITS)
    command(root, "apply")
    repository = load_repository(root)
    replay = split_for_replay(data, work, time.time())
    command(root, "produce", SOURCE, replay.bulk)
    sink = start(root, "sink", "sink")
    stream(repository, replay.bulk_rows, account)
    live(repository, replay, account)
    server, catalog = serve(root, "server", "serve", SERVER_PORT), serve(root, "catalog", "catalog", CATALOG_PORT)
    wait_for_lake(repository, sink)
    command(root, "materialize", BATCH_VIEW, "--as-of", utc(SNAPSHOT_DAYS), "--as-of", utc(0))
    spine = write_spine(replay, work / "spine.parquet", SPINE_ROWS)
    account.training = work / "training.parquet"
    command(root, "history", spine.path, "--service", SERVICE, "-o", account.training)
    account.service, account.asked = SERVICE, {"customer_id": spine.customer}
    account.online_command = ["get", "--service", SERVICE, "--entity", f"customer_id={spine.customer}", "--receipts"]
    account.online = json.loads(command(root, *account.online_command, "--json").splitlines()[0])
    account.checks = json.loads(command(root, "check", "--json"))["views"]
    account.server, account.catalog = server.wait(), catalog.wait()
    return account


def utc(days: int) -> str:
    """The time of so many days ago, as --as-of takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - days * 86_400))


def start_clean(root: Path) -> Path:
    """Stop what runs; remove what an earlier quickstart made, and move any other data aside. Returns a work folder."""
    stop_servers(root)
    state = root / ".headwater"
    work = state / "quickstart"
    if work.exists():
        shutil.rmtree(state)
        say("Starting clean: removed what the last quickstart left in " + short(state))
    elif (state / "lake").exists():
        kept = root / time.strftime(".headwater-kept-%Y%m%d-%H%M%S")
        state.rename(kept)
        say(f"Starting clean: moved the data that was there to {short(kept)}")
    work.mkdir(parents=True)
    return work


def stream(repository: Repository, events: int, account: Account) -> None:
    """Start the worker on a full topic, wait until it has caught up, and note its events a second."""
    with Connection(repository.need_redis()) as connection:
        process = start(repository.root, "worker", "stream")

        def still_works() -> None:
            if not is_alive(process):
                raise Unreachable(f"The worker ended. The end of {process.log}:\n{tail(Path(process.log))}")

        account.events = events
        account.events_a_second = measure_throughput(connection, repository.project, SOURCE, events, still_works)


def live(repository: Repository, replay: Replay, account: Account) -> None:
    """Send the last events one by one and note how soon a reader sees each."""
    from pipelines.freshness import FreshnessProbe

    say(f"Sending the last {LIVE_EVENTS} events at {EVENTS_A_SECOND_LIVE} a second, and watching Redis for each ...")
    with Connection(repository.need_redis()) as connection:
        published = load_published(connection, repository.project)
        if published is None:
            raise UsageError(f"No plan of project '{repository.project}' in Redis after 'headwater apply'.")
        probe = FreshnessProbe(repository.need_kafka(), connection, published, VIEW)
        records = live_records(replay, published.plan.source(SOURCE))
        account.freshness = probe.measure(records, EVENTS_A_SECOND_LIVE)
        account.events += len(records)


def wait_for_lake(repository: Repository, sink: ProcessRecord) -> None:
    """Wait until the lake holds every event that the topic has now."""
    from headwater.lake import Lake
    from pipelines.caught_up import LakeCaughtUp

    say("Waiting for the lake to hold every event ...")
    caught_up = LakeCaughtUp(repository.need_kafka(), Lake(repository.lake), [SOURCE])
    while not caught_up():
        if not is_alive(sink):
            raise Unreachable(f"The sink ended. The end of {sink.log}:\n{tail(Path(sink.log))}")
        time.sleep(0.1)


@dataclass(frozen=True)
class WebServer:
    """A web server that was started: the command, its address, and its process."""

    what: str
    address: str
    process: ProcessRecord

    def wait(self) -> str:
        """The address, once its /health answers. Raises Unreachable where it does not."""
        deadline = time.monotonic() + 60
        while not _healthy(self.address):
            if not is_alive(self.process) or time.monotonic() > deadline:
                log = tail(Path(self.process.log))
                raise Unreachable(f"'headwater {self.what}' did not answer. The end of its log:\n{log}")
            time.sleep(0.05)
        return self.address


def serve(root: Path, name: str, what: str, port: int) -> WebServer:
    """Start a web server on its usual port, or a free one."""
    port = claim_port(port)
    return WebServer(what, f"http://127.0.0.1:{port}", start(root, name, what, "--port", port))


def claim_port(usual: int) -> int:
    """The usual port, or a free one where it is taken or another quickstart is about to take it.

    A server listens a second after its port was chosen, so a lock that lives as long as this process stands for it.
    """
    with contextlib.ExitStack() as unclaimed:
        try:
            lock = open(Path(tempfile.gettempdir()) / f"headwater-quickstart-{usual}.lock", "w")  # noqa: SIM115
            unclaimed.callback(lock.close)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return free_port()
        unclaimed.pop_all()
    _CLAIMS.append(lock)
    return usual if port_is_free(usual) else free_port()


_CLAIMS: list[IO[str]] = []


def _healthy(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def command(root: Path, *words: object) -> str:
    """Run a headwater command, show it with the time it took, and return what it printed.

    Raises:
        HeadwaterError: it failed; what it said is in the message.
    """
    with _step(words):
        answer = subprocess.run(_line(root, words), capture_output=True, text=True, cwd=CHECKOUT, check=False)
        if answer.returncode:
            raise HeadwaterError(
                f"'headwater {' '.join(map(str, words))}' ended with {answer.returncode}:\n"
                f"{answer.stdout[-2000:]}{answer.stderr[-4000:]}"
            )
    return answer.stdout


def start(root: Path, name: str, *words: object) -> ProcessRecord:
    """Start a headwater command that keeps running until `headwater down`."""
    print(f"$ headwater {_shown(words)} &", flush=True)
    process = launch(name, _line(root, words), root / ".headwater" / f"{name}.log", cwd=CHECKOUT)
    record_process(root, process)
    return process


def _line(root: Path, words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "headwater", "-C", str(root), *map(str, words)]


def _shown(words: tuple[object, ...]) -> str:
    return " ".join(short(word) if isinstance(word, Path) else str(word) for word in words)


@contextlib.contextmanager
def _step(words: tuple[object, ...]) -> Iterator[None]:
    print(f"$ headwater {_shown(words)}", end="", flush=True)
    began = time.monotonic()
    try:
        yield
    finally:
        print(f"   ({time.monotonic() - began:.1f} s)", flush=True)


def say(text: str) -> None:
    """A line of the account while it runs."""
    print(f"  {text}", flush=True)


def short(path: Path) -> str:
    """The path as one would type it from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def main() -> None:
    """The command that `make quickstart` runs: 0 when all went well, else the error's exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.quickstart", description=__doc__)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="events as Parquet (default: the shop's sample)")
    parser.add_argument("--repository", type=Path, default=CHECKOUT / "feature_repo", help="default: feature_repo")
    parser.add_argument("--broker", choices=BROKERS, help="mock needs no Java; it says its limits")
    chosen = parser.parse_args()
    root: Path = chosen.repository.resolve()
    began = time.monotonic()
    try:
        if not chosen.data.is_file():
            raise UsageError(f"No file {chosen.data}. Name one: make quickstart DATA=/path/to/events.parquet")
        account = run(root, chosen.data.resolve(), chosen.broker)
    except HeadwaterError as error:
        print(f"\nError: {error}\n\nWhat was started is stopped by: headwater -C {short(root)} down", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        said, code = system_error(error)
        print(f"\nError: {said}", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        print(f"\nStopped. The servers run on; end them with: headwater -C {short(root)} down", file=sys.stderr)
        sys.exit(130)
    print_account(account, time.monotonic() - began)


if __name__ == "__main__":
    main()
