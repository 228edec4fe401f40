"""What the documents name is there: files, links, rules, decisions, log lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
ROOMS = ("headwater", "pipelines", "validation", "marketplace", "feature_repo", "tests", "benchmarks", "docs", "rows")
DECISIONS = sorted((CHECKOUT / "docs" / "adr").glob("*.md"))
SOURCES = [f for room in ("headwater", "pipelines", "validation") for f in sorted((CHECKOUT / room).rglob("*.py"))]


def _named(text: str) -> list[str]:
    """Files and folders of the rooms, such as headwater/rows/codec.py and headwater/aggregations/."""
    return re.findall(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/(?:[\w-]+/)*(?:[\w-]+\.(?:py|md|parquet|css|js))?)", text)


def _exists(name: str) -> bool:
    return (CHECKOUT / name).exists() or (CHECKOUT / "headwater" / name).exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda f: str(f.relative_to(CHECKOUT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    assert [name for name in _named(document.read_text()) if not _exists(name)] == []


def test_the_drawings_of_the_architecture_name_files() -> None:
    drawings = re.findall(r"```\n(.*?)```", (CHECKOUT / "ARCHITECTURE.md").read_text(), re.DOTALL)
    assert len(drawings) == 2
    assert all(len(set(_named(drawing))) >= 10 for drawing in drawings)
    # A name alone follows one in the same folder: "decode.py … formats.py, avro.py".
    for drawing in drawings:
        for line in drawing.splitlines():
            folders = [name.rpartition("/")[0] for name in _named(line)]
            alone = re.findall(r"(?<![\w./])([\w]+\.py)", line)
            assert all(any((CHECKOUT / f / name).exists() for f in folders) for name in alone), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda f: str(f.relative_to(CHECKOUT)))
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_rule_that_code_refers_to_is_written_down() -> None:
    rules = set(re.findall(r"^## (\d+)\.", (CHECKOUT / "docs" / "stream.md").read_text(), re.MULTILINE))
    named = set()
    for file in SOURCES:
        for found in re.findall(r"stream\.md(?:'s rules?|,) (\d+(?: and \d+)?)", file.read_text()):
            named |= set(re.findall(r"\d+", found))
    assert named
    assert named <= rules


def test_decisions_have_numbers_of_their_own_and_the_same_parts() -> None:
    numbers = [file.name[:4] for file in DECISIONS]
    assert len(set(numbers)) == len(numbers) > 10
    for file in DECISIONS:
        text = file.read_text()
        assert re.match(rf"# {int(file.name[:4])}\. \w", text), file.name
        assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], file.name


def _said() -> str:
    """All texts of the sources, with strings that continue on the next line put together."""
    text = "\n".join(file.read_text() for file in SOURCES)
    return re.sub(r"\"\s*\n\s*f?\"", "", text)


def test_the_lines_that_the_operating_page_explains_are_said() -> None:
    page = (CHECKOUT / "docs" / "operating.md").read_text().split("## Log lines")[1].split("## Other answers")[0]
    first_cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    lines = [line for cell in first_cells for line in re.findall(r"`([^`]+)`", cell)]
    assert len(lines) > 15
    said = _said()
    for line in lines:
        # What stands between the places that differ from time to time.
        for piece in re.split(r"'?…'?|\b[NMAB]\b|\{…\}|^(?:Redis|Kafka|The lake|The schema registry)\b", line):
            words = piece.strip(" '().;:,")
            assert not words or words in said, f"{line!r}: nothing says {words!r}"
