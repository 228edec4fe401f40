"""A position behind its rows counts as moved only where nothing innocent explains it."""

from collections.abc import Iterator

import pytest

from validation import online_side
from validation.online_side import standing_behind


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_side, "PATIENCE", 0.25)


def reading(*answers: dict[int, bytes]):
    """Positions as they are read one time after the other; the last answer stays."""
    waiting: Iterator[dict[int, bytes]] = iter(answers)
    last: dict[int, bytes] = {}

    def read() -> dict[int, bytes]:
        nonlocal last
        last = next(waiting, last)
        return last

    return read


def test_a_position_that_stands_still_behind_its_rows_is_found() -> None:
    assert standing_behind(reading({0: b"5", 1: b"9"}), {0: 7, 1: 8}) == {0: 5}


def test_a_position_that_passes_its_rows_after_a_moment_is_not() -> None:
    assert standing_behind(reading({0: b"5"}, {0: b"5"}, {0: b"8"}), {0: 7}) == {}


def test_a_position_that_moves_and_is_still_behind_is_not() -> None:
    assert standing_behind(reading({0: b"5"}, {0: b"6"}), {0: 7}) == {}


def test_no_position_is_found_while_a_batch_is_not_done() -> None:
    # The mark stands at the first partition of the batch, whatever partitions it has.
    assert standing_behind(reading({0: b"5/mark/2", 1: b"9"}), {0: 7, 1: 12}) == {}


def test_partitions_without_rows_or_position_are_left_out() -> None:
    assert standing_behind(reading({0: b"5"}), {3: 7}) == {}
    assert standing_behind(reading({}), {}) == {}
