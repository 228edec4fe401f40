"""The Spark engine of batches: the same views as a PySpark job over the lake's own Parquet files.

Spark reads the list of files of the Delta snapshot itself, with the schema that the source declares, so a
column that a file lacks is null. What it returns comes back through Arrow, and from there on everything
(types, gate, publishing) is what the local engine's results go through.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError, MissingExtra, UsageError
from headwater.plans.plan import BatchView, Plan, Source, StreamView
from pipelines.batch_sql import render, tables_read
from pipelines.snapshots import as_declared, in_key_order
from pipelines.window_states import finish_states, state_query

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.lake import Lake

_TYPES = {
    "int64": "BIGINT", "int32": "INT", "int8": "TINYINT", "double": "DOUBLE", "string": "STRING",
    "bool": "BOOLEAN", "binary": "BINARY", "timestamp[us, tz=UTC]": "TIMESTAMP",
}  # fmt: skip
_TYPES |= {f"list<item: {arrow}>": f"ARRAY<{kind}>" for arrow, kind in _TYPES.items()}
_EVENTS = "headwater_events"

CONFIG = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": "4",
}
"""What a session of one machine is started with."""

MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.caseSensitive": "false",
}
"""What every session must say, else the same SQL means something else."""


class SparkEngine:
    """Computes on Spark. Implements `materialize.BatchEngine`.

    A session of its own is started when it is first needed and stopped by `close`; one that is
    handed in belongs to the caller. `log`: where the JVM's chatter goes.
    """

    name = "spark"

    def __init__(self, lake: Lake, plan: Plan, log: Path, session: Any = None) -> None:
        self._lake, self._plan, self._log = lake, plan, log
        self._given: Any = session
        self._session: Any = None

    def batch(self, view: BatchView, as_of: int) -> pa.Table:
        """The view's query over the lake's tables.

        Raises:
            HeadwaterError: the query fails on Spark, or the lake is damaged.
            UsageError: Java is missing.
        """
        sql = render(view, as_of, "spark")
        wanted = tables_read(view)
        for source in self._plan.sources:
            if source.name.lower() in wanted:
                self._events(source).createOrReplaceTempView(f"`{source.name}`")
        return as_declared(view, self._run(f"Batch view '{view.name}', sql", sql))

    def windows(self, view: StreamView, as_of: int) -> pa.Table:
        """The windowed features at `as_of` of every key that has an event before it: states from Spark.

        Raises:
            ReadError: an integer sum needs more than 64 bits.
            HeadwaterError: the job fails, or the lake is damaged.
        """
        source = self._plan.source(view.source)
        self._events(source).createOrReplaceTempView(_EVENTS)
        query = state_query(view, source, _EVENTS, as_of)
        # Columns of an event are told apart by case, as everywhere but in free SQL.
        with self._setting("spark.sql.caseSensitive", "true"):
            states = self._run(f"Stream view '{view.name}'", query.sql)
        return in_key_order(view, finish_states(view, query, states))

    def close(self) -> None:
        """Stop the session that was started here."""
        if self._session is not None and self._given is None:
            self._session.stop()
        self._session = None

    def _events(self, source: Source) -> Any:
        """The admitted events of a source, as the local engine shows them."""
        from headwater.lake.event_rows import PLACE, event_schema

        spark = self._spark()
        schema = event_schema(source)
        text = ", ".join(f"`{f.name}` {_TYPES[str(f.type)]}" for f in schema)
        files = [_escaped(f) for f in self._lake.admitted_parquet_files(source.topic)]
        frame = spark.read.schema(text).parquet(*files) if files else spark.createDataFrame([], text)
        shown = [*(f.name for f in source.fields), *(f.name for f in PLACE)]
        return frame.where("_kind IS NULL").select(*(f"`{name}`" for name in shown))

    def _run(self, place: str, sql: str) -> pa.Table:
        from py4j.protocol import Py4JError  # type: ignore[import-untyped]
        from pyspark.errors import PySparkException

        try:
            return self._spark().sql(sql).toArrow()
        except (PySparkException, Py4JError) as error:
            first = str(error).strip().split("\n\nJVM stacktrace")[0].splitlines()[0]
            raise HeadwaterError(f"{place}, on Spark: {first}") from error

    def _spark(self) -> Any:
        if self._session is None:
            self._session = self._given or start_session(self._log)
            for key, value in MEANING.items():
                self._session.conf.set(key, value)
        return self._session

    @contextlib.contextmanager
    def _setting(self, key: str, value: str) -> Iterator[None]:
        conf = self._spark().conf
        before = conf.get(key)
        conf.set(key, value)
        try:
            yield
        finally:
            conf.set(key, before)


def start_session(
    log: Path, *, app: str = "headwater materialize", otherwise: str = "local", conf: Mapping[str, str] | None = None
) -> Any:
    """A Spark session; the JVM writes to `log` instead of the terminal.

    Args:
        otherwise: the engine that works without Java.
        conf: settings over ours; a `spark.master` that is another than this machine's own also leaves the
            addresses of the driver to Spark.

    Raises:
        MissingExtra: PySpark is not installed.
        UsageError: there is no Java, or it does not start.
    """
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise MissingExtra("pyspark", "spark", "The engine 'spark'") from error
    if not java_found():
        raise UsageError(
            "The engine 'spark' needs Java 17 or newer, and there is no 'java' on the PATH (JAVA_HOME is not set "
            "either). Install it (on Debian: apt-get install default-jre-headless), or run "
            f"--engine {otherwise}."
        )
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    settings = {"spark.master": "local[2]", **CONFIG, **MEANING, **(conf or {})}
    if not settings["spark.master"].startswith("local"):
        for name in {"spark.driver.bindAddress", "spark.driver.host"} - set(conf or {}):
            del settings[name]
    # Python workers import the rooms as well.
    rooms = [str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(rooms)
    builder = SparkSession.builder.appName(app)
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        with _stderr_to(log):
            return builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise UsageError(
            f"Spark did not start: {str(error).splitlines()[0]}. It needs Java 17 or newer; what the JVM said "
            f"is in {log}."
        ) from error


def java_found() -> bool:
    """Whether Spark's scripts would find a java."""
    home = os.environ.get("JAVA_HOME")
    return bool(Path(home, "bin", "java").exists() if home else shutil.which("java"))


@contextlib.contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """While the JVM starts, and so for all of its life, its standard error is a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _escaped(path: str) -> str:
    """Spark reads *, ?, [ and { in a path as patterns."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", path)
