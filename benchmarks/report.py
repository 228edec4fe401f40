"""What every benchmark prints and writes: ours beside the peer, measured in the same run.

A figure is the median of runs that take turns (ours, peer, ours, …), so that a slow minute of
the machine hits both. Every benchmark begins with `begin`, a line that says what is compared at which
sizes and on what machine, and says on stderr what it does until its table is there.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One comparison. `ratio` above 1 means that ours is better, whichever way the unit points."""

    name: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    higher_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better ours is."""
        return self.ours / self.peer if self.higher_is_better else self.peer / self.ours


@dataclass
class Report:
    """Figures of one benchmark, printed as a table and written as JSON."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, unit: str, ours: float, peer: float, peer_name: str, *, higher_is_better: bool = False
    ) -> Figure:
        """Add a comparison and give it back."""
        figure = Figure(name, unit, ours, peer, peer_name, higher_is_better)
        self.figures.append(figure)
        return figure

    def note(self, line: str) -> None:
        """Add a line that stands under the table."""
        self.notes.append(line)

    def text(self) -> str:
        """The table."""
        rows = [("", "ours", "peer", "", "ratio")]
        rows += [
            (f.name, f"{_number(f.ours)} {f.unit}", f"{_number(f.peer)} {f.unit}", f.peer_name, f"{f.ratio:.1f}x")
            for f in self.figures
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ["  ".join(c.ljust(w) if i in (0, 3) else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
                 for row in rows]  # fmt: skip
        return "\n".join([self.title, "", *lines, "", *self.notes]).rstrip()

    def print(self) -> None:
        """Print the table."""
        print(self.text(), flush=True)

    def write_json(self, path: str | Path | None) -> None:
        """Write {"name": {"ours": x, "peer": y, "ratio": z}}; nothing where no file is named."""
        if path is not None:
            facts = {f.name: {"ours": f.ours, "peer": f.peer, "ratio": f.ratio} for f in self.figures}
            Path(path).write_text(json.dumps(facts, indent=2) + "\n")


def begin(what: str, **sizes: object) -> None:
    """Print the first lines: what is compared, the sizes, and the machine with its load now."""
    facts = [f"{name.replace('_', ' ')} {f'{x:,}' if isinstance(x, int) else x}" for name, x in sizes.items()]
    print(what, f"Sizes: {', '.join(facts)}.", f"Machine: {machine()}.", "", sep="\n", flush=True)


def step(text: str) -> None:
    """Say on stderr what is done now."""
    print(f"  {text} …", file=sys.stderr, flush=True)


def quiet() -> None:
    """Packages below Feast warn whatever filters say."""
    warnings.showwarning = lambda *_args, **_named: None


def machine() -> str:
    """The processor, how many of them, the system, Python, and the load of the last minute."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return (
        f"{name}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one run."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def take_turns(runs: int, ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of both, run in turns."""
    pairs = [(seconds(ours), seconds(peer)) for _ in range(runs)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def _number(x: float) -> str:
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}"
