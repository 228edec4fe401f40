"""The command line in this process: a process of its own takes seconds to start, and imports Feast each time."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any

from headwater.cli import main


@dataclass(frozen=True)
class Said:
    """What a command said: its exit code, and both outputs."""

    code: int
    out: str
    err: str

    def view(self, name: str) -> dict[str, Any]:
        """One view of `check --json`."""
        return next(v for v in json.loads(self.out)["views"] if v["view"] == name)


def run_cli(*args: str) -> Said:
    """The console script's own function: what it printed, and the exit code that it ends with."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["headwater", *args]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as exit:
        code = int(exit.code or 0)
    finally:
        sys.argv = argv
    return Said(code, out.getvalue(), err.getvalue())
