"""Processes that outlive the command that started them, and their records.

A file of its own because a record must never end a stranger: a process is known by its id and by
the moment it started, which no later process with the same id shares.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headwater.errors import Unreachable

# Children of this very process. Holding them lets `is_alive` collect the ended ones, which would
# otherwise stay as zombies and look alive.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class ProcessRecord:
    """One started process: what it is, its id, when it started (as the system tells it), and its log."""

    name: str
    pid: int
    started: str
    log: str


def launch(
    name: str, command: Sequence[str], log: Path, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> ProcessRecord:
    """Start a process in a session of its own, so that Ctrl-C in the terminal does not reach it.

    Its output is appended to `log`; `env` is added to this process's own.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    _CHILDREN[child.pid] = child
    return ProcessRecord(name, child.pid, started_at(child.pid) or "", str(log))


def started_at(pid: int) -> str | None:
    """When the process started, as an opaque text; None where it has ended (zombies have)."""
    child = _CHILDREN.get(pid)
    if child is not None and child.poll() is not None:
        del _CHILDREN[pid]
        return None
    started = _started_by_proc(pid) if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    if started is None and child is not None:
        # It ended after it was polled.
        child.wait()
        del _CHILDREN[pid]
    return started


def _started_by_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name stands in parentheses and may itself hold spaces and parentheses, so count from the last one.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, threads, start_ticks = fields[0], int(fields[17]), fields[19]
    # The state is the first thread's. Kafka and Redis have others that outlive it, and hold the port.
    ended = state == "X" or (state == "Z" and threads <= 1)
    return None if ended else f"{_boot_id()}/{start_ticks}"


def _boot_id() -> str:
    # Start times are counted from the boot, so they may repeat after the next one.
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started_by_ps(pid: int) -> str | None:
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    text = answer.stdout.strip()
    if not text or text.startswith("Z"):
        return None
    return text.split(None, 1)[1]


def is_alive(record: ProcessRecord) -> bool:
    """Whether this very process still runs."""
    return started_at(record.pid) == record.started != ""


def stop(records: Iterable[ProcessRecord], *, patience: float = 20.0) -> list[ProcessRecord]:
    """End the processes that still live: SIGTERM, then SIGKILL after `patience` seconds. Returns those ended."""
    living = [record for record in records if is_alive(record)]
    for record in living:
        send(record, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(map(is_alive, living)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for record in filter(is_alive, living):
        send(record, signal.SIGKILL)
    while any(map(is_alive, living)):
        time.sleep(0.02)
    return living


def send(record: ProcessRecord, number: signal.Signals) -> None:
    """Send a signal to this process, if it still is the one that was recorded."""
    if is_alive(record):
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            return


def free_port() -> int:
    """A TCP port on loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: connections that linger in TIME_WAIT do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until_ready(record: ProcessRecord, ready: Callable[[], bool], *, seconds: float) -> None:
    """Wait until `ready()` says so.

    Raises:
        Unreachable: the process ended, or did not become ready in time (it is then stopped); the
            message carries the end of its log.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        ended = not is_alive(record)
        if ended or time.monotonic() > deadline:
            stop([record], patience=2)
            what = "ended at once" if ended else f"was not ready after {seconds:.0f} s"
            raise Unreachable(f"The process '{record.name}' {what}. The end of {record.log}:\n{tail(Path(record.log))}")
        time.sleep(0.02)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for error messages."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def exchange(port: int, request: bytes, size: int) -> bytes:
    """Send `request` to a loopback port and return up to `size` bytes; empty where nothing answers yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as link:
            link.sendall(request)
            return link.recv(size)
    except OSError:
        return b""
