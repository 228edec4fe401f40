"""What `headwater up` started for a repository: its record, and how it is brought up and down.

The record is `.headwater/servers.json`, written after every single start, so that `down` knows
what runs even when a later start fails. A lock file lets only one `up` or `down` of a repository run at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from headwater.embedded.kafka_broker import start_kafka
from headwater.embedded.mock_broker import start_mock_broker
from headwater.embedded.processes import ProcessRecord, free_port, is_alive, port_is_free, stop
from headwater.embedded.redis_server import start_redis
from headwater.errors import UsageError

BROKERS = ("kafka", "mock")


@dataclass(frozen=True)
class Servers:
    """The record of one repository's local processes.

    Attributes:
        bootstrap_servers, redis_url: None where that server was not started here, or was stopped.
        broker: "kafka" or "mock"; kept when it stops, because its log is that broker's.
        incarnation: new whenever a broker starts with an empty log.
        ports: kept when servers stop, so that they come back where their clients look for them.
        processes: all that `down` ends, in the order of their start.
    """

    bootstrap_servers: str | None = None
    redis_url: str | None = None
    broker: str | None = None
    incarnation: str | None = None
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[ProcessRecord] = field(default_factory=list)

    def living(self, name: str) -> ProcessRecord | None:
        """The process of this name, if it still runs."""
        return next((p for p in self.processes if p.name == name and is_alive(p)), None)

    def with_process(self, process: ProcessRecord) -> Servers:
        """The same record with this process in the place of an earlier one of its name."""
        return replace(self, processes=[*(p for p in self.processes if p.name != process.name), process])


def load_servers(root: Path) -> Servers:
    """The record of the repository at `root`; an empty one where nothing was ever started."""
    try:
        told = json.loads(_record(root).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return Servers()
    processes = [ProcessRecord(**process) for process in told.pop("processes", [])]
    return Servers(**told, processes=processes)


def start_servers(
    root: Path, *, broker: str | None = None, with_broker: bool = True, with_redis: bool = True
) -> Servers:
    """Start what does not run yet, on the ports and with the data of the last time.

    Args:
        broker: "kafka" or "mock"; None for the one of the last time, else "kafka".

    Raises:
        UsageError: something that the servers need is not installed, or another broker runs already.
        Unreachable: a server did not start; those started before it keep running, and are recorded.
    """
    with _locked(root):
        servers = load_servers(root)
        if with_redis:
            servers = _with_redis(root, servers)
        if with_broker:
            servers = _with_broker(root, servers, broker or servers.broker or "kafka")
        return servers


def stop_servers(root: Path) -> list[str]:
    """End every recorded process that still runs; data and ports stay. Returns the names of those ended."""
    with _locked(root):
        servers = load_servers(root)
        # Readers and writers first, so that none of them complains about a server that has gone.
        own = [p for p in servers.processes if p.name not in ("redis", *BROKERS)]
        ended = stop(own) + stop(p for p in servers.processes if p not in own)
        _save(root, replace(servers, bootstrap_servers=None, redis_url=None, processes=[]))
        return [process.name for process in ended]


def record_process(root: Path, process: ProcessRecord) -> None:
    """Have `down` end this process too."""
    with _locked(root):
        _save(root, load_servers(root).with_process(process))


def _with_redis(root: Path, servers: Servers) -> Servers:
    if servers.living("redis"):
        return servers
    (port,) = _ports(servers, ["redis"])
    process = start_redis(root / ".headwater" / "redis", port)
    return _save(
        root,
        replace(
            servers.with_process(process),
            redis_url=f"redis://127.0.0.1:{port}/0",
            ports={**servers.ports, "redis": port},
        ),
    )


def _with_broker(root: Path, servers: Servers, broker: str) -> Servers:
    running = next((name for name in BROKERS if servers.living(name)), None)
    if running == broker:
        return servers
    if running is not None:
        raise UsageError(
            f"Expected no broker or a {broker} broker for {root}, but a {running} broker runs. "
            f"Stop it first: headwater down."
        )
    folder = root / ".headwater" / broker
    if broker == "mock":
        process, address = start_mock_broker(folder)
        ports, incarnation = servers.ports, uuid.uuid4().hex
    else:
        fresh = not (folder / "data" / "meta.properties").exists()
        port, controller = _ports(servers, ["kafka", "kafka_controller"])
        process, address = start_kafka(folder, port, controller), f"127.0.0.1:{port}"
        ports = {**servers.ports, "kafka": port, "kafka_controller": controller}
        incarnation = uuid.uuid4().hex if fresh or not servers.incarnation else servers.incarnation
    return _save(
        root,
        replace(
            servers.with_process(process),
            bootstrap_servers=address,
            broker=broker,
            incarnation=incarnation,
            ports=ports,
        ),
    )


def _ports(servers: Servers, names: Sequence[str]) -> list[int]:
    known = [servers.ports.get(name) for name in names]
    return [port if port is not None and port_is_free(port) else free_port() for port in known]


def _record(root: Path) -> Path:
    return root / ".headwater" / "servers.json"


def _save(root: Path, servers: Servers) -> Servers:
    fresh = _record(root).with_suffix(".json.new")
    fresh.write_text(json.dumps(asdict(servers), indent=2))
    fresh.replace(_record(root))
    return servers


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    folder = root / ".headwater"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "servers.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
