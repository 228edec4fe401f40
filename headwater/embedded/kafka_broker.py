"""Apache Kafka as one process: broker and KRaft controller together, on loopback.

It is Kafka's own server from Kafka's own jars, so what holds here (transactions, fencing, group
protocols) holds in production; only replication is missing.
"""

from __future__ import annotations

import base64
import struct
import subprocess
import uuid
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from headwater.embedded.kafka_jars import find_java, kafka_jars
from headwater.embedded.processes import ProcessRecord, exchange, launch, wait_until_ready
from headwater.errors import Unreachable

# A small heap and the serial collector: the broker shares a few cores with workers and a reader.
_JVM = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData", "-Djava.awt.headless=true"]


def start_kafka(folder: Path, port: int, controller_port: int, *, jvm: Sequence[str] = ()) -> ProcessRecord:
    """Start Kafka on loopback with its logs in `folder`, and wait until it answers.

    A log that is there already is kept: topics, events, groups and topic ids are the same as before.
    `jvm`: options of Java's that override ours, such as a larger heap.

    Raises:
        UsageError: Java or Maven is missing.
        Unreachable: it did not start; the message carries its log.
    """
    java, jars = find_java(), kafka_jars()
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(_properties(folder / "data", port, controller_port))
    log = folder / "kafka.log"
    run = [java, *_JVM, *jvm, *_logging(folder, log), "-cp", f"{jars}/*"]
    if not (folder / "data" / "meta.properties").exists():
        _format(run, properties)
    record = launch("kafka", [*run, "kafka.Kafka", str(properties)], log)
    wait_until_ready(record, lambda: answers_as_kafka(port), seconds=90)
    return record


def answers_as_kafka(port: int) -> bool:
    """Whether a broker on this loopback port answers a metadata request and names at least one broker."""
    # Metadata, version 0 (every Kafka speaks it): key 3, correlation id 1, no client id, an empty list of topics.
    body = struct.pack(">hhihi", 3, 0, 1, -1, 0)
    answer = exchange(port, struct.pack(">i", len(body)) + body, 12)
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0


def _format(run: list[str], properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # A program of one second: compiling it well takes longer than it runs.
    quick = [run[0], "-XX:TieredStopAtLevel=1", *run[1:]]
    # One in 64 ids begins with "-", which alone would be taken for an option.
    named = [f"--cluster-id={cluster}", "-c", str(properties), "--ignore-formatted"]
    command = [*quick, "kafka.tools.StorageTool", "format", *named]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if answer.returncode:
        raise Unreachable(f"Apache Kafka could not prepare its folder {properties.parent}:\n{answer.stdout[-2000:]}")


def _logging(folder: Path, log: Path) -> list[str]:
    config = folder / "log4j2.xml"
    config.write_bytes(resources.files("headwater.embedded").joinpath("log4j2.xml").read_bytes())
    return [f"-Dlog4j2.configurationFile={config}", f"-Dheadwater.log={log}"]


def _properties(data: Path, port: int, controller_port: int) -> str:
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "num.partitions": 4,
        # One broker, so one copy of everything.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # A first consumer need not wait for a second one.
        "group.initial.rebalance.delay.ms": 0,
        # The window law reads old events again: a developer's log is kept until `down --erase`.
        "log.retention.ms": -1,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
