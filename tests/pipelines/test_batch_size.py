"""A batch grows while full ones are done in a moment, and shrinks where one takes long."""

import pytest

from pipelines.batch_size import FIRST, LONG, SHORT, BatchSize


def test_it_doubles_up_to_the_most_while_full_batches_are_short():
    size = BatchSize(3 * FIRST)
    assert size.now == FIRST
    for expected in (2 * FIRST, 3 * FIRST, 3 * FIRST):
        size.took(size.now, SHORT / 2)
        assert size.now == expected


def test_it_halves_where_a_full_batch_takes_long_and_stays_between():
    size = BatchSize(4 * FIRST)
    size.took(size.now, (SHORT + LONG) / 2)
    assert size.now == FIRST
    size.took(size.now, LONG + 1)
    assert size.now == FIRST // 2
    for _ in range(30):
        size.took(size.now, LONG + 1)
    assert 0 < size.now <= FIRST // 50


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_a_batch_that_was_not_full_says_nothing(seconds):
    size = BatchSize(4 * FIRST)
    size.took(size.now - 1, seconds)
    assert size.now == FIRST


def test_the_users_most_holds_from_the_first_batch_on():
    size = BatchSize(10)
    size.took(10, 0.0)
    assert size.now == 10
    size.took(10, LONG + 1)
    assert size.now == 10
