"""Apache Kafka's jars, brought by Maven once for each user and kept in the cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

from headwater.errors import Unreachable, UsageError

KAFKA_VERSION = "4.3.0"
_NEEDED = (f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-clients-{KAFKA_VERSION}.jar")


def find_java() -> str:
    """The path of `java`: that of JAVA_HOME, else the PATH's.

    Raises:
        UsageError: there is none; the message names the package that brings it.
    """
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        return str(Path(home) / "bin" / "java")
    found = shutil.which("java")
    if found:
        return found
    raise UsageError(
        "Apache Kafka needs Java 17 or newer, and there is no 'java' on the PATH. Install the packages "
        "default-jre-headless and maven (Debian, Ubuntu: apt-get install default-jre-headless maven), "
        "or start without Java: headwater up --broker mock."
    )


def kafka_jars() -> Path:
    """The folder of Kafka's jars; brought by Maven where they are not in the cache yet (43 MB, some seconds).

    Raises:
        UsageError: Maven is missing; the message names the package that brings it.
        Unreachable: Maven could not bring the jars; the message carries its output.
    """
    folder = cache_folder() / f"kafka-{KAFKA_VERSION}"
    if not _complete(folder):
        _bring(folder)
    return folder


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/headwater, else ~/.cache/headwater."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _NEEDED)


def _bring(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise UsageError(
            "Apache Kafka's jars are not in the cache yet, and bringing them takes Maven: there is no 'mvn' on the "
            "PATH. Install the packages default-jre-headless and maven (Debian, Ubuntu: apt-get install "
            "default-jre-headless maven), or start without them: headwater up --broker mock."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_bytes(resources.files("headwater.embedded").joinpath("pom.xml").read_bytes())
        jars = Path(scratch) / "jars"
        _run_maven([maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"])
        if not _complete(jars):
            raise Unreachable(f"Maven brought no complete Apache Kafka: {', '.join(_NEEDED)} are not all in {jars}.")
        _move_into_place(jars, folder)


def _run_maven(command: list[str]) -> None:
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if answer.returncode:
        said = "\n".join(line for line in answer.stdout.splitlines() if line.strip())[-2000:]
        raise Unreachable(f"Maven could not bring Apache Kafka {KAFKA_VERSION}:\n{said}")


def _move_into_place(jars: Path, folder: Path) -> None:
    try:
        jars.rename(folder)
    except OSError:
        # Another process was first (its folder is as good), or an incomplete folder is in the way.
        if _complete(folder):
            return
        shutil.rmtree(folder)
        jars.rename(folder)
