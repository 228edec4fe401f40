"""The stream path on Spark Structured Streaming: the worker, with its steps 1 to 4 done by executors.

1. Spark reads a micro-batch; where it begins is asked of Redis           (spark_batches.py, spark_kafka_source.py)
2. 3. 4. Executors decode, admit, send dead letters, reduce to partial rows      (partial_rows.py)
5. 6. The driver merges them into rows, and writes behind the fence              (partial_feeds.py)
7. as in worker.py, like all else: the plan, topics that change, servers that are away.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from headwater.errors import MissingExtra, UsageError
from headwater.online.published import Fill
from headwater.plans.plan import StreamView
from headwater.repository import Repository
from pipelines.consumers import TopicBatch
from pipelines.feeds import ViewFeed
from pipelines.partial_feeds import PartialFeed
from pipelines.partial_rows import ViewWork, Work
from pipelines.plan_feeds import SourceFeeds
from pipelines.spark_batches import LentBatch, LentBatches
from pipelines.spark_failures import SparkFailed
from pipelines.worker import Worker, WorkerSettings, stream_group

BATCH = 200_000
"""Most events of a micro-batch, unless told: large, since one costs Spark much whatever is in it."""
_OLDEST = (4, 2)
_MANY_FAILURES = 3
_log = logging.getLogger("headwater.stream")


class SparkWorker(Worker):
    """A worker whose events are read and reduced by Spark. It takes all partitions of its topics.

    `close` also stops the session where `owns_session`.
    """

    def __init__(
        self,
        session: Any,
        redis_url: str,
        kafka: Mapping[str, str],
        project: str,
        settings: WorkerSettings | None = None,
        schema_registry: Mapping[str, str] | None = None,
        *,
        owns_session: bool = False,
    ) -> None:
        super().__init__(redis_url, kafka, project, settings, schema_registry)
        self._session, self._owns_session = session, owns_session
        self._registry = dict(schema_registry or {})
        self._failures = 0

    def close(self) -> None:
        """Stop the queries, leave the servers."""
        super().close()
        if self._owns_session:
            self._session.stop()

    def _turn(self) -> None:
        """Spark tries a task again; where all of it failed, begin again at the positions, unless nothing gets through."""
        try:
            super()._turn()
        except SparkFailed as failure:
            self._failures += 1
            if self._failures == _MANY_FAILURES:
                raise
            _log.warning("%s Beginning again at the positions.", failure)
            self._hold()

    def _open_batches(self, topics: list[str]) -> LentBatches:
        group, most = stream_group(self.project), self.settings.batch
        return LentBatches(self._session, self.kafka, group, topics, self._starts, most, self._outages)

    def _feed_of(self, view: StreamView, fill: Fill) -> ViewFeed:
        return PartialFeed(self.connection, self.project, view, fill)

    def _apply(self, source: SourceFeeds, batch: TopicBatch) -> None:
        assert isinstance(batch, LentBatch)
        feeds = [f for f in source.feeds if isinstance(f, PartialFeed)]
        views = tuple(ViewWork(f.view, dict(f.positions)) for f in feeds)
        # 2 to 4. Dead letters are acknowledged when the parts are here.
        work = Work(source.admission.source, views, self.kafka, self._registry)
        parts = batch.parts(work)
        after = [f.overlaps([part.views[i] for part in parts]) for i, f in enumerate(feeds)]
        if any(after):
            views = tuple(replace(v, after=a) for v, a in zip(views, after, strict=True))
            parts = batch.parts(replace(work, views=views, kafka=None))
        if not parts:
            return
        batch.broker_time = np.concatenate([part.broker_time for part in parts])
        self._warn_of_lag(source, batch)
        self.metrics.admitted_but(source.topic, sum((part.rejected for part in parts), Counter()))
        nexts: dict[int, int] = {}
        for part in parts:
            nexts[part.partition] = max(part.next, nexts.get(part.partition, 0))
        for i, feed in enumerate(feeds):
            # 5, 6.
            feed.merge([part.views[i] for part in parts], nexts)
        self._failures = 0
        written = time.time()
        records = np.concatenate([part.records for part in parts])
        self.events += int(records.sum())
        for feed in feeds:
            self._freshness.record(feed.view.name, np.repeat(batch.broker_time, records), written)
        self.metrics.landed(source.topic, int(records.sum()), feeds, written)
        self._freshness.flush_when_due(self.connection)


def start_spark_worker(
    repository: Repository, settings: WorkerSettings, conf: Mapping[str, str] | None = None
) -> SparkWorker:
    """A Spark session of its own and a worker on it. `conf`: Spark's settings, over ours.

    Raises:
        MissingExtra: PySpark is not installed.
        UsageError: PySpark is too old, or there is no Java.
    """
    from pipelines.spark_materialize import start_session

    _check_version()
    conf = {"spark.master": "local[*]", "spark.driver.maxResultSize": "0", **(conf or {})}
    log = repository.state / "logs" / "spark-stream.log"
    session = start_session(log, app=f"headwater stream {repository.project}", otherwise="python", conf=conf)
    return SparkWorker(
        session, repository.need_redis(), repository.need_kafka(), repository.project, settings,
        repository.schema_registry, owns_session=True,
    )  # fmt: skip


def _check_version() -> None:
    try:
        import pyspark
    except ModuleNotFoundError as error:
        raise MissingExtra("pyspark", "spark", "The engine 'spark'") from error
    if tuple(int(n) for n in pyspark.__version__.split(".")[:2]) < _OLDEST:
        raise UsageError(
            f"Streams on Spark need PySpark {'.'.join(map(str, _OLDEST))} or newer, and {pyspark.__version__} is "
            f"installed. Install it with: pip install 'headwater[spark]' --upgrade, or run --engine python."
        )
