"""Log lines as JSON: every line of stderr is one object, errors and tracebacks too."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

from headwater.monitoring.logs import JsonLines
from tests.conftest import CHECKOUT


def line_of(record: logging.LogRecord) -> dict[str, object]:
    text = JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_has_time_level_logger_message_and_the_fields_given() -> None:
    record = logging.getLogger("headwater.x").makeRecord(
        "headwater.x",
        logging.WARNING,
        "f",
        1,
        "lag of %s:\n%d",
        ("a", 3),
        None,
        extra={"topic": "a", "where": Path("b")},
    )
    record.created = 1_700_000_000.000_001
    assert line_of(record) == {
        "time": "2023-11-14T22:13:20.000001Z", "level": "WARNING", "logger": "headwater.x", "message": "lag of a:\n3",
        "topic": "a", "where": "b",
    }  # fmt: skip


def test_a_field_cannot_take_the_place_of_the_message() -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "said", (), None)
    record.level, record.time = "mine", "mine"
    assert (line_of(record)["level"], line_of(record)["message"]) == ("INFO", "said")


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stderr.splitlines()


def test_logs_warnings_and_tracebacks_are_objects_too() -> None:
    lines = run(
        "import logging, warnings\nfrom headwater.monitoring import logs\nlogs.choose('json')\nlogs.log_to_stderr()\n"
        "logging.getLogger('headwater.a').info('one')\nwarnings.warn('two')\nlogs.say('three', n=3)\n"
        "try: 1 / 0\nexcept ZeroDivisionError: logging.getLogger('headwater').exception('four')\nraise ValueError('five')"
    )
    found = [json.loads(line) for line in lines]
    assert [x["level"] for x in found] == ["INFO", "WARNING", "INFO", "ERROR", "CRITICAL"]
    assert found[0]["message"] == "one"
    assert "two" in found[1]["message"]
    assert (found[2]["message"], found[2]["n"]) == ("three", 3)
    assert "ZeroDivisionError" in found[3]["exception"]
    assert (found[4]["message"], "Traceback" in found[4]["exception"]) == ("ValueError: five", True)


def test_text_stays_as_it_was() -> None:
    lines = run(
        "import logging\nfrom headwater.monitoring import logs\nlogs.log_to_stderr()\n"
        "logging.getLogger('headwater.a').info('one', extra={'n': 1})\nlogs.complain('two', exit_code=3)"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO one", lines[0])
    assert lines[1] == "Error: two"


def test_an_error_of_a_command_is_an_object_with_its_exit_code(headwater_cli, tmp_path: Path) -> None:
    said = headwater_cli("--log-format", "json", "stream", repo=tmp_path, check=False)
    line = json.loads(said.stderr)
    assert (line["level"], line["exit_code"], said.returncode) == ("ERROR", 2, 2)
    assert "feature_store.yaml" in line["message"]
    wrong = headwater_cli("--log-format", "json", "sink", "--batch", "0", repo=tmp_path, check=False)
    assert "--batch" in json.loads(wrong.stderr)["message"]
