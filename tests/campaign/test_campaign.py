"""A short campaign in every run of the suite; the one with every fault is `make soak`'s."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.campaign.campaign import Campaign, Plan

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
SHORT = (
    "a partition added", "a definition changed, and back", "Redis killed, its file cut", "Redis emptied",
    "retention passes stopped workers",
)  # fmt: skip


def run(plan: Plan, folder: Path) -> None:
    outcome = Campaign(plan, folder, folder / "lake", lambda line: print(line, file=sys.stderr)).run()
    print(outcome.table())
    assert outcome.sound, outcome.table()
    assert {name: row.times for name, row in outcome.rows.items()}.keys() == set(plan.faults)


def test_faults_and_kills_while_events_flow_change_no_value(tmp_path: Path) -> None:
    run(
        Plan(SHORT, 2, (2, 6), customers=40, rate=150, receipts=500, receipts_a_second=200, workers=2, sample=40),
        tmp_path,
    )
