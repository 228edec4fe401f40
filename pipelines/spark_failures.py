"""What went wrong in Spark, as errors of ours: they arrive as text, through the JVM and from Python workers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from headwater import errors
from headwater.errors import HeadwaterError, KafkaUnreachable
from pipelines.micro_batches import BeforeLogStart


class SparkFailed(HeadwaterError):
    """Something failed in Spark that is none of our errors: a worker process that died, or a fault in the job."""


_OURS = re.compile(r"^(?:headwater\.errors|pipelines\.micro_batches)\.(\w+): (.*)$", re.MULTILINE)
_AWAY = re.compile(r"org\.apache\.kafka\.common\.errors\.(?:Timeout|Disconnect|Network)Exception: (.*)")
_LOST = "Some data may have been lost"


@contextlib.contextmanager
def failures_named() -> Iterator[None]:
    """What fails in Spark, as the error that it is of ours."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError, OSError, EOFError) as error:
        raise failure_in(str(error)) from error


def failure_in(text: str) -> Exception:
    """The error that ended something in Spark: it arrives as text, tracebacks of Python workers included.

    Ours are known by name. Two of Spark's own connector are, too (from its source; that path is not tested). What
    is not known is a `SparkFailed`.
    """
    ours = _OURS.findall(text)
    if ours:
        name, message = ours[-1]
        if name == "BeforeLogStart":
            topic, _, partition = message.rstrip("]").rpartition("[")
            return BeforeLogStart(topic, int(partition))
        kind = getattr(errors, name)
        return kind(message) if issubclass(kind, errors.Unreachable | errors.TopicChanged) else HeadwaterError(message)
    if _LOST in text:
        return BeforeLogStart("a topic", 0)
    if away := _AWAY.search(text):
        return KafkaUnreachable(f"Kafka did not answer: {away[1]}.")
    return SparkFailed(f"Spark failed: {text.strip().splitlines()[0] if text.strip() else 'it is gone'}")
