"""What all tests share: real servers on free loopback ports, started and stopped by the session.

A part that is missing fails the tests that need it, with the name of the package to install; nothing
is skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.embedded.kafka_broker import start_kafka
from headwater.embedded.processes import ProcessRecord, free_port, is_alive, send, signal, stop
from headwater.embedded.redis_server import start_redis

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for the whole session; tests keep apart by project name."""
    port = free_port()
    process = start_redis(tmp_path_factory.mktemp("redis"), port)
    yield f"redis://127.0.0.1:{port}/0"
    stop([process], patience=5)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a broker for the whole session."""
    port = free_port()
    process = start_kafka(tmp_path_factory.mktemp("kafka"), port, free_port())
    yield f"127.0.0.1:{port}"
    stop([process], patience=5)


class OwnRedis:
    """A Redis that a test may kill: `url`, `port`, `data_dir`, `kill()`, `stop()`, `restart()`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.data_dir = folder / "data"  # the append-only file is in data_dir/appendonlydir
        self.process = start_redis(folder, self.port)

    def kill(self) -> None:
        """kill -9: nothing is synced any more."""
        _kill(self.process)

    def stop(self) -> None:
        """SIGTERM: the append-only file is synced first."""
        stop([self.process], patience=10)

    def restart(self) -> None:
        """Start again, on the same port, from the append-only file."""
        stop([self.process], patience=10)
        self.process = start_redis(self.folder, self.port)


class OwnKafka:
    """A broker that a test may kill: `bootstrap`, `kill()`, `stop()`, `start()`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.controller_port = folder, free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start, on the same port, from the same log."""
        self.process = start_kafka(self.folder, self.port, self.controller_port)

    def stop(self) -> None:
        """SIGTERM: a clean shutdown."""
        stop([self.process], patience=20)

    def kill(self) -> None:
        """kill -9."""
        _kill(self.process)


def _kill(process: ProcessRecord) -> None:
    send(process, signal.SIGKILL)
    while is_alive(process):
        time.sleep(0.01)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis for this test alone, which it may kill and restart."""
    server = OwnRedis(tmp_path / "own_redis")
    yield server
    stop([server.process], patience=5)


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[OwnKafka]:
    """A broker for this test alone, which it may kill and start again."""
    server = OwnKafka(tmp_path / "own_kafka")
    yield server
    stop([server.process], patience=5)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Kafka that is not there is given one second and not ten, in commands that run in this process."""
    from headwater.online import topic_facts

    monkeypatch.setattr(topic_facts, "TIMEOUT", 1.0)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Spark session for the whole test session, the product's own: starting one takes seconds."""
    from pipelines.spark_materialize import java_found, start_session

    if not java_found():
        pytest.fail("Spark needs Java 17: install the package default-jre-headless.")
    session = start_session(tmp_path_factory.mktemp("spark") / "spark.log")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def make_repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A factory of feature repositories on disk that use the session's servers.

    `make_repository(project=None, definitions=None, lake=None, redis=None, kafka=None, servers=True)`:

    - project: its name; a new one each time by default, which keeps tests apart in Redis;
    - definitions: the text of definitions.py; by default the shop's files;
    - lake: a folder or URL; by default `.headwater/lake` in the repository;
    - redis, kafka: addresses, such as those of `own_redis` and `own_kafka`; by default the session's;
    - servers: False writes no address that is not given, and starts nothing.

    Topics that the definitions name are deleted from the session's broker first, so each repository
    begins with empty ones.
    """

    def make(
        project: str | None = None,
        definitions: str | None = None,
        lake: str | Path | None = None,
        redis: str | None = None,
        kafka: str | None = None,
        servers: bool = True,
    ) -> Path:
        root = tmp_path_factory.mktemp("repository")
        if servers and redis is None:
            redis = request.getfixturevalue("redis_url")
        if servers and kafka is None:
            kafka = request.getfixturevalue("kafka")
        _write_definitions(root, definitions)
        if kafka is not None:
            delete_topics(kafka, _topics(root))
        config = feature_store_yaml(project or f"t{uuid.uuid4().hex[:8]}", redis, kafka, lake)
        (root / "feature_store.yaml").write_text(config)
        return root

    return make


def feature_store_yaml(project: str, redis: str | None, kafka: str | None, lake: str | Path | None) -> str:
    """design.md's form; an address that is None is left out."""
    online = "{type: headwater.feast.OnlineStore" + (f", redis: '{redis}'" if redis else "") + "}"
    offline = "{type: headwater.feast.OfflineStore" + (f", lake: '{lake}'" if lake else "") + "}"
    own = "{kafka: {bootstrap.servers: '" + kafka + "'}}" if kafka else "{}"
    return (
        f"project: {project}\nprovider: local\nregistry: .headwater/registry.db\n"
        f"online_store: {online}\noffline_store: {offline}\n"
        f"entity_key_serialization_version: 3\nheadwater: {own}\n"
    )


def _write_definitions(root: Path, definitions: str | None) -> None:
    if definitions is not None:
        (root / "definitions.py").write_text(definitions)
        (root / ".feastignore").write_text(".headwater\n")
        return
    shop = CHECKOUT / "feature_repo"
    for file in [*shop.glob("*.py"), shop / ".feastignore"]:
        shutil.copy(file, root)


def _topics(root: Path) -> set[str]:
    text = "".join(file.read_text() for file in root.glob("*.py"))
    return set(re.findall(r"""topic=["']([^"']+)["']""", text))


def delete_topics(bootstrap: str, topics: set[str]) -> None:
    """Delete the topics that exist, their dead letters too, and wait until they are gone."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = topics | {f"{topic}.dead-letters" for topic in topics}
    existing = wanted & set(admin.list_topics(timeout=10).topics)
    if not existing:
        return
    for done in admin.delete_topics(sorted(existing)).values():
        done.result(timeout=20)
    while existing & set(admin.list_topics(timeout=10).topics):
        time.sleep(0.02)


@pytest.fixture(scope="session")
def headwater_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`headwater_cli(*args, repo=…, check=True, timeout=120)`: the real command line in a process of its own."""

    def run(
        *args: object, repo: Path | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            headwater_command(*args, repo=repo),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and answer.returncode:
            said = f"{answer.stdout}\n{answer.stderr}"
            pytest.fail(f"headwater {' '.join(map(str, args))} ended with {answer.returncode}:\n{said}")
        return answer

    return run


@pytest.fixture(scope="session")
def headwater_here() -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `headwater_cli`, in this process: for what does not depend on a process of its own, seconds faster."""

    def run(*args: object, repo: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        from tests.in_process import run_cli

        words = headwater_command(*args, repo=repo)
        said = run_cli(*words[3:])
        if check and said.code:
            pytest.fail(f"headwater {' '.join(words[3:])} ended with {said.code}:\n{said.out}\n{said.err}")
        return subprocess.CompletedProcess(words, said.code, said.out, said.err)

    return run


@pytest.fixture
def start_headwater() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start_headwater(*args, repo=…)`: a command in the background (stdout and stderr joined), ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*args: object, repo: Path | None = None) -> subprocess.Popen[str]:
        command = headwater_command(*args, repo=repo)
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def headwater_command(*args: object, repo: Path | None = None) -> list[str]:
    """The command line that runs headwater from this checkout."""
    place = ["-C", str(repo)] if repo is not None else []
    return [sys.executable, "-m", "headwater", *place, *map(str, args)]
