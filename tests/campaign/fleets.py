"""Processes of a campaign: workers, sinks and a server, restarted when they end, as a supervisor does."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.pipelines.stream_world import CHECKOUT


class Process:
    """A command in the background; `lines` are the last that it said."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str] | None = None) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "headwater", *arguments], cwd=CHECKOUT, text=True, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.lines: deque[str] = deque(maxlen=200)
        self.frozen = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as said:
            for line in said:
                self.lines.append(line.rstrip())

    def end(self, how: signal.Signals, patience: float = 60) -> int:
        """Send a signal and wait; the exit code."""
        self.popen.send_signal(how)
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    def join(self) -> None:
        """Until everything that it said is in `lines`."""
        self._reader.join(5)


class Fleet:
    """So many processes of one command. `tracebacks` and `endings` (of those that ended by themselves) are kept."""

    def __init__(self, repo: Path, *command: str, size: int) -> None:
        self.arguments, self.size = ["-C", str(repo), *command], size
        self.running: list[Process] = []
        self.endings: list[tuple[int, str]] = []
        self.tracebacks: list[str] = []
        self.wanted, self.killed = True, 0
        self.environment: Mapping[str, str] | None = None
        self._lock = threading.RLock()

    def look(self) -> None:
        """Note those that have ended, and start what is missing."""
        with self._lock:
            for process in list(self.running):
                if (code := process.popen.poll()) is not None:
                    self.running.remove(process)
                    self._gone(process)
                    self.endings.append((code, next((x for x in reversed(process.lines) if x), "")))
            while self.wanted and len(self.running) < self.size:
                self.running.append(Process(self.arguments, self.environment))

    def kill_one(self, pick: random.Random) -> bool:
        """kill -9 of one that is not frozen."""
        with self._lock:
            victims = [p for p in self.running if not p.frozen and p.popen.poll() is None]
            if not self.wanted or not victims:
                return False
            victim = pick.choice(victims)
            self.running.remove(victim)
            victim.end(signal.SIGKILL)
            self._gone(victim)
            self.killed += 1
        self.look()
        return True

    def leave_one(self) -> None:
        """SIGTERM to the oldest: it ends in order, with exit code 0."""
        with self._lock:
            leaver = next((p for p in self.running if not p.frozen), None)
            if leaver is None:
                return
            self.running.remove(leaver)
            self._ended_in_order(leaver)

    def stop(self) -> None:
        """SIGTERM to all, and none is started."""
        with self._lock:
            self.wanted, running, self.running = False, self.running, []
            for process in running:
                process.popen.send_signal(signal.SIGCONT)
                self._ended_in_order(process)

    def start(self) -> None:
        """All again."""
        self.wanted = True
        self.look()

    @contextmanager
    def one_frozen(self, pick: random.Random) -> Iterator[Process | None]:
        """Within, one process stands still (SIGSTOP), which nobody kills."""
        with self._lock:
            process = pick.choice(self.running) if self.running else None
            if process is not None:
                process.frozen = True
                process.popen.send_signal(signal.SIGSTOP)
        yield process
        if process is not None:
            process.popen.send_signal(signal.SIGCONT)
            process.frozen = False

    def _ended_in_order(self, process: Process) -> None:
        code = process.end(signal.SIGTERM)
        self._gone(process)
        # -15: it was started a moment ago.
        if code not in (0, -signal.SIGTERM):
            self.endings.append((code, f"after SIGTERM: {next(iter(reversed(process.lines)), '')}"))

    def _gone(self, process: Process) -> None:
        process.join()
        if any("Traceback" in line for line in process.lines):
            self.tracebacks.append("\n".join(list(process.lines)[-30:]))


class Supervisor(threading.Thread):
    """Looks after fleets, and kills of one of them at random instants while `kills` are left and it is `armed`."""

    def __init__(
        self, fleets: list[Fleet], victims: list[Fleet], kills: int, every: tuple[float, float], seed: int
    ) -> None:
        super().__init__(daemon=True)
        self.fleets, self.victims, self.left, self.every = fleets, victims, kills, every
        self.armed, self._over, self._pick = threading.Event(), threading.Event(), random.Random(seed)

    def run(self) -> None:
        """Until `stop`."""
        due = time.monotonic() + self._pick.uniform(*self.every)
        while not self._over.wait(0.2):
            for fleet in self.fleets:
                fleet.look()
            if self.left and self.armed.is_set() and time.monotonic() > due:
                fleet = self.victims[0] if self._pick.random() < 0.85 else self._pick.choice(self.victims)
                self.left -= fleet.kill_one(self._pick) and fleet is self.victims[0]
                due = time.monotonic() + self._pick.uniform(*self.every)

    def stop(self) -> None:
        """Look after nothing any more."""
        self._over.set()
        self.join()
