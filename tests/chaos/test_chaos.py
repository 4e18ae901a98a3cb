"""The soak of a minute that CI runs, and what its schedule must be for a seed to repeat it."""

from pathlib import Path

import pytest
from chaos.faults import DEEDS
from chaos.schedule import KINDS, plan
from chaos.soak import soak


def test_a_seed_is_a_plan() -> None:
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)


def test_every_kind_of_fault_has_its_turn_within_two_minutes() -> None:
    assert {fault.kind for fault in plan(1, 120).faults} == set(KINDS) == set(DEEDS)


def test_nothing_new_breaks_at_the_end() -> None:
    faults = plan(1, 60).faults

    assert max(fault.at_s for fault in faults) < 50


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_all_promises_are_kept_for_a_minute_of_faults(tmp_path: Path) -> None:
    outcome = await soak(plan(1, 60, with_real=False), tmp_path, with_real=False)

    assert not outcome.broken, str(outcome)
