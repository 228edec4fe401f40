"""The mutations follow the code: each text that they take out stands in its file once, and each test has a name."""

from __future__ import annotations

import re

import pytest

from tests.mutations.rules import RULES, Mutation
from tests.pipelines.stream_world import CHECKOUT


@pytest.mark.parametrize("mutation", RULES, ids=[f"{m.rule[:40]}: {m.how[:20]}" for m in RULES])
def test_what_a_mutation_takes_out_stands_in_the_code_once(mutation: Mutation) -> None:
    found = {old: (CHECKOUT / file).read_text().count(old) for file, old, _ in mutation.changes}
    assert found == dict.fromkeys(found, 1)
    for test in mutation.tests:
        file, _, start = test.partition("::")
        names = re.findall(rf"^def ({start}\w*)\(", (CHECKOUT / file).read_text(), re.MULTILINE)
        assert len(names) == 1 or not start, f"{test}: {names}"
