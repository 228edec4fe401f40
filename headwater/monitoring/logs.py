"""Log lines on stderr, as text for people or as JSON, one object a line, for whoever collects them.

What the long-running commands say themselves (that they run, what they did, why they end) goes the same way, so
that with `--log-format json` every line of stderr is an object.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, Literal

Format = Literal["text", "json"]
_KNOWN = {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName"}
_chosen: Format = "text"


def choose(form: Format) -> None:
    """How this process logs from now on: a process has one stderr, so this is one setting."""
    global _chosen
    _chosen = form
    if form == "json":
        sys.excepthook = _log_uncaught


def chosen() -> Format:
    """What `choose` was told last; text before that."""
    return _chosen


def log_to_stderr(name: str = "headwater") -> None:
    """Send a logger's lines of level INFO and above to stderr, with their UTC time, in the chosen form."""
    logger = logging.getLogger(name)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if _chosen == "json" else _text())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    if _chosen == "json":
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(handler)


def say(text: str, **fields: Any) -> None:
    """A line of a command to its user on stderr: as it is, or as an object with fields of its own."""
    _emit(logging.INFO, text, fields)


def complain(text: str, **fields: Any) -> None:
    """Why a command ends."""
    _emit(logging.ERROR, text if _chosen == "json" else f"Error: {text}", fields)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (RFC 3339, UTC, microseconds), level, logger, message, and its own fields.

    Fields are what was given as `extra`. A value that JSON does not know is written as its text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": _rfc3339(record.created), "level": record.levelname, "logger": record.name,
            "message": record.getMessage(),
        }  # fmt: skip
        line |= {name: value for name, value in vars(record).items() if name not in _KNOWN and name not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


def _emit(level: int, text: str, fields: dict[str, Any]) -> None:
    if _chosen == "text":
        print(text, file=sys.stderr, flush=True)
        return
    record = logging.LogRecord("headwater", level, "", 0, text, (), None)
    vars(record).update(fields)
    print(JsonLines().format(record), file=sys.stderr, flush=True)


def _text() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


def _rfc3339(seconds: float) -> str:
    micros = round(seconds * 1e6)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000)) + f".{micros % 1_000_000:06d}Z"


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    record = logging.LogRecord("headwater", logging.CRITICAL, "", 0, f"{kind.__name__}: {error}", (), None)
    record.exc_info = (kind, error, trace)
    print(JsonLines().format(record), file=sys.stderr, flush=True)
