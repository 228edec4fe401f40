"""The stream benchmark's first peer: Quix Streams with the nearest that it has to the shop's view, in local state."""

from __future__ import annotations

import math
import shutil
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.report import quiet
from benchmarks.stream_runs import Clock, Mark, mark
from benchmarks.stream_servers import Servers
from benchmarks.stream_shop import PARTITIONS

HOUR_MS = 3_600_000
Windows = dict[tuple[bytes, int], dict[str, Any]]


def run_peer(own: Servers, folder: str, topic: str, warm: int, count: int, kept: bool) -> tuple[Clock, Windows]:
    """Quix Streams over the topic's first `count` events; with `kept`, the last state of each of its windows too."""
    quiet()
    from quixstreams import Application
    from quixstreams.dataframe.windows import Count, Max, Mean, Sum
    from quixstreams.models.topics.admin import TopicAdmin

    # Its reader of topic settings takes what Kafka 4 says of them for an error; the topic stays as it is.
    TopicAdmin.inspect_topics = _inspect
    state = Path(folder) / f"peer-{uuid.uuid4().hex}"
    application = Application(
        broker_address=own.kafka, consumer_group=state.name, auto_offset_reset="earliest", state_dir=str(state),
        use_changelog_topics=False, auto_create_topics=False, loglevel="ERROR", commit_interval=5.0,
        consumer_extra_config={"queued.min.messages": 200_000},
    )  # fmt: skip
    stream = application.topic(
        topic, value_deserializer="json", key_deserializer="bytes", timestamp_extractor=_event_ms
    )
    marks: list[Mark] = []
    windows: Windows = {}
    seen, count = 0, count + PARTITIONS

    def counted(value: Any) -> None:
        nonlocal seen
        seen += 1
        if seen in (warm, count):
            marks.append(mark(seen))

    def keep(value: Any, key: Any, timestamp: Any, headers: Any) -> None:
        windows[key, value["start"]] = value

    frame = application.dataframe(stream).update(counted)
    frame = frame[frame["quantity"] > 0]
    frame["amount"] = frame["quantity"] * frame["unit_price"]
    hourly = frame.tumbling_window(timedelta(hours=1), grace_ms=HOUR_MS)
    frame = hourly.agg(count=Count(), sum=Sum("amount"), mean=Mean("amount"), max=Max("amount")).current()
    if kept:
        frame.update(keep, metadata=True)
    application.run(count=count, timeout=30)
    shutil.rmtree(state, ignore_errors=True)
    assert len(marks) == 2, f"the peer saw {seen:,} events of {count:,}"
    return Clock.between(*marks), windows


def assert_windows(windows: Windows, events: pl.DataFrame) -> None:
    """Count, sum, mean and max of the peer's windows.

    It took a part of the topic, and of each key a beginning: the events of one key come in their order.
    """
    amounts: dict[tuple[bytes, int], list[float]] = {}
    lines = events.filter(pl.col("quantity") > 0)
    hours = lines["invoice_ts"].to_physical() // 1000 // HOUR_MS * HOUR_MS
    amount = lines["quantity"] * lines["unit_price"]
    for customer, hour, value in zip(lines["customer_id"].to_list(), hours.to_list(), amount.to_list(), strict=True):
        amounts.setdefault((b"%d" % customer, hour), []).append(value)
    assert windows, "the peer gave no windows"
    for place, got in windows.items():
        expected = amounts[place][: got["count"]]
        total = math.fsum(expected)
        assert len(expected) == got["count"], place
        assert got["max"] == max(expected), (place, got)
        assert math.isclose(got["sum"], total, rel_tol=1e-9), (place, got)
        assert math.isclose(got["mean"], total / len(expected), rel_tol=1e-9), (place, got)


def _inspect(self: Any, topic_names: list[str], timeout: float = 30) -> dict[str, Any]:
    from quixstreams.models.topics.admin import TopicConfig

    found = self.list_topics(timeout=timeout)
    extra = {"retention.ms": "-1", "cleanup.policy": "delete", "max.message.bytes": "1048588", "retention.bytes": "-1"}
    return {
        name: TopicConfig(num_partitions=len(found[name].partitions), replication_factor=1, extra_config=extra)
        if name in found
        else None
        for name in topic_names
    }


def _event_ms(value: Any, headers: Any, timestamp: float, kind: Any) -> int:
    return int(datetime.fromisoformat(value["invoice_ts"]).timestamp() * 1000)
