"""librdkafka's mock cluster as a process: a broker for machines without Java.

It lives in a process of its own (`python -m headwater.embedded.mock_broker ADDRESS_FILE`), because
its log is that process's memory, and it has to outlive the command that started it.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from importlib import util
from pathlib import Path

from headwater.embedded.processes import ProcessRecord, launch, wait_until_ready
from headwater.errors import MissingExtra, Unreachable, UsageError

LIMITS = (
    "The mock broker is librdkafka's, for trying things out on a machine without Java. It has no transactions, "
    "keeps about 5 MB of each partition, makes every topic with four partitions, stamps records with the producer's "
    "time, knows no topic ids, and loses its log with its process (rows in Redis then belong to a log that is gone: "
    "run 'headwater down --erase' before the next start)."
)


def start_mock_broker(folder: Path) -> tuple[ProcessRecord, str]:
    """Start the mock cluster in a process of its own. Returns its record and its bootstrap servers.

    Raises:
        MissingExtra: confluent-kafka, which carries the cluster, is not installed.
        Unreachable: it did not start; the message carries its log.
    """
    if util.find_spec("confluent_kafka") is None:
        raise MissingExtra("confluent-kafka", "stream", "The mock broker")
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "address"
    told.unlink(missing_ok=True)
    process = launch("mock", [sys.executable, "-m", "headwater.embedded.mock_broker", str(told)], folder / "mock.log")
    wait_until_ready(process, told.exists, seconds=30)
    return process, told.read_text()


def _library() -> ctypes.CDLL:
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    # Wheels for Linux keep it beside the package, wheels for macOS inside of it.
    places = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    if not places:
        raise UsageError(f"No librdkafka beside {package}. The mock broker needs confluent-kafka's binary wheel.")
    library = ctypes.CDLL(str(places[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def start_cluster() -> str:
    """Start a mock cluster of one broker inside this process. Returns its bootstrap servers."""
    library = _library()
    said = ctypes.create_string_buffer(512)
    producer = 0
    client = library.rd_kafka_new(producer, library.rd_kafka_conf_new(), said, len(said))
    if not client:
        raise Unreachable(f"librdkafka did not start: {said.value.decode()}")
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    address: bytes = library.rd_kafka_mock_cluster_bootstraps(cluster)
    return address.decode()


def main() -> None:
    """Hold a cluster, write its address to the file given, and wait for SIGTERM."""
    told = Path(sys.argv[1])
    fresh = told.with_suffix(".new")
    fresh.write_text(start_cluster())
    fresh.replace(told)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
