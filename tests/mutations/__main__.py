"""The command: python -m tests.mutations [--only TEXT] [--seconds 150]. Exit code 1 where a rule is not missed."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations.rules import RULES, Mutation
from tests.pipelines.stream_world import CHECKOUT


def main() -> None:
    """Run the mutations, a line each as they end, and the table at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="mutations whose rule holds this text")
    parser.add_argument("--from", dest="start", default="", help="begin with the first rule that holds this text")
    parser.add_argument("--seconds", type=float, default=150, help="the time limit of one run (default 150)")
    options = parser.parse_args()
    chosen = [m for m in RULES if not options.only or any(text in m.rule for text in options.only)]
    first = next((i for i, m in enumerate(chosen) if options.start in m.rule), 0)
    chosen, lines, missed = chosen[first:], list[str](), 0
    with tempfile.TemporaryDirectory(prefix="headwater-mutations-") as folder:
        commit = _copy(Path(folder))
        for mutation in chosen:
            began = time.monotonic()
            found, text = _run(Path(folder), mutation, options.seconds)
            missed += not found
            lines.append(_line(mutation, text))
            print(f"{time.monotonic() - began:6.1f} s  {lines[-1]}", file=sys.stderr, flush=True)
    print(f"Run at commit {commit}.\n")
    print("| rule | code | test | taken out: what failed |\n|---|---|---|---|")
    print("\n".join(lines))
    sys.exit(1 if missed else 0)


def _copy(folder: Path) -> str:
    """The last commit's files, without the compiled library: what is taken out is Python's."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=CHECKOUT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    return told.stdout.strip()


def _run(folder: Path, mutation: Mutation, seconds: float) -> tuple[bool, str]:
    """Whether the tests missed the rule, and in what way."""
    before = {file: (folder / file).read_text() for file, _, _ in mutation.changes}
    for file, old, new in mutation.changes:
        text = (folder / file).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{mutation.rule}: {file} has the text {text.count(old)} times, expected once:\n{old}")
        (folder / file).write_text(text.replace(old, new))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--timeout={seconds:.0f}"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        done = subprocess.run(
            [*command, *(_named(folder, test) for test in mutation.tests)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * seconds,
        )
        return _verdict(done)
    except subprocess.TimeoutExpired:
        return False, f"**did not end in {2 * seconds:.0f} s**"
    finally:
        for file, text in before.items():
            (folder / file).write_text(text)


def _named(folder: Path, test: str) -> str:
    """A test's whole name, by its beginning."""
    file, _, start = test.partition("::")
    if not start:
        return file
    [name] = re.findall(rf"^def ({start}\w*)\(", (folder / file).read_text(), re.MULTILINE)
    return f"{file}::{name}"


def _verdict(done: subprocess.CompletedProcess[str]) -> tuple[bool, str]:
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return True, failed[0] + (" (at its time limit)" if "Timeout (>" in done.stdout else "")
    if "Timeout" in done.stdout + done.stderr:
        return False, "**did not end in time**"
    if done.returncode == 0:
        return False, "**nothing failed**"
    return False, f"**pytest ended with {done.returncode}**: {(done.stdout + done.stderr)[-300:]}"


def _line(mutation: Mutation, text: str) -> str:
    files = ", ".join(dict.fromkeys(file for file, _, _ in mutation.changes))
    tests = ", ".join(dict.fromkeys(test.split("::")[0].removeprefix("tests/pipelines/") for test in mutation.tests))
    return f"| {mutation.rule} | {files} | {tests} | {mutation.how}: {text} |"


if __name__ == "__main__":
    main()
