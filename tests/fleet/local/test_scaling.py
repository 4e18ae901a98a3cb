"""The decisions of the autoscaler, under any load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.client.errors import CannotStart
from fleet.local.scaling import (
    DemandWindow,
    RunningWorker,
    ScaleRange,
    change_to,
    scale_ranges,
    target_of,
)

RANGES = st.tuples(st.integers(0, 8), st.integers(1, 8)).map(
    lambda pair: ScaleRange(min(pair), max(pair))
)
WORKERS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=8).map(
    lambda flags: [RunningWorker(f"w{i}", busy, leaving) for i, (busy, leaving) in enumerate(flags)]
)


@given(target=st.integers(0, 20), workers=WORKERS, bounds=RANGES)
def test_a_busy_worker_is_never_retired_and_none_beyond_the_most_is_started(
    target: int, workers: list[RunningWorker], bounds: ScaleRange
) -> None:
    change = change_to(target, workers, bounds)
    by_name = {worker.name: worker for worker in workers}

    assert not any(by_name[name].is_busy or by_name[name].is_leaving for name in change.retire)
    assert change.start == 0 or len(workers) + change.start <= bounds.most
    assert not (change.start and change.retire)


@given(demand=st.integers(0, 100), elsewhere=st.integers(0, 8), workers=WORKERS, bounds=RANGES)
def test_the_workers_that_stay_are_at_least_the_least_and_follow_the_demand(
    demand: int, elsewhere: int, workers: list[RunningWorker], bounds: ScaleRange
) -> None:
    target = target_of(demand, elsewhere, bounds)
    change = change_to(target, workers, bounds)
    staying = sum(not worker.is_leaving for worker in workers)
    after = staying + change.start - len(change.retire)

    assert bounds.least <= target <= bounds.most
    assert after >= min(target, staying)


class Simulation:
    """A backend whose workers start and end in one step, and where jobs hold some of them."""

    def __init__(self, bounds: ScaleRange, down_after_s: float) -> None:
        self.bounds = bounds
        self.window = DemandWindow(down_after_s)
        self.now = 0.0
        self.names: list[str] = []
        self.changes = 0

    def step(self, demand: int) -> int:
        self.now += 1.0
        busy = set(self.names[:demand])
        workers = [RunningWorker(name, name in busy) for name in self.names]
        target = target_of(self.window.add(self.now, demand), 0, self.bounds)
        change = change_to(target, workers, self.bounds)
        assert not busy & set(change.retire)
        self.names = [name for name in self.names if name not in change.retire]
        self.names += [f"{self.now}-{i}" for i in range(change.start)]
        self.changes += change.start + len(change.retire)
        assert len(self.names) <= self.bounds.most
        return len(self.names)


@given(before=st.lists(st.integers(0, 12), max_size=30), load=st.integers(0, 12), bounds=RANGES)
def test_a_constant_load_starts_and_ends_nothing_once_it_has_what_it_wants(
    before: list[int], load: int, bounds: ScaleRange
) -> None:
    simulation = Simulation(bounds, down_after_s=10.0)
    for demand in [*before, *[load] * 13]:
        simulation.step(demand)
    changes = simulation.changes
    counts = {simulation.step(load) for _ in range(50)}

    assert simulation.changes == changes
    assert counts == {max(bounds.least, min(bounds.most, load))}


@given(demands=st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_a_demand_that_comes_back_within_the_window_ends_nobody(demands: list[int]) -> None:
    simulation = Simulation(ScaleRange(0, 4), down_after_s=1000.0)
    counts = [simulation.step(demand) for demand in demands]

    assert counts == sorted(counts)
    assert counts[-1] == max(demands)


def test_from_zero_to_the_most_and_back() -> None:
    simulation = Simulation(ScaleRange(0, 4), down_after_s=3.0)
    counts = [simulation.step(demand) for demand in [0, 9, 9, 2, 2, 0, 0, 0, 0, 0, 0, 0]]

    assert counts == [0, 4, 4, 4, 4, 4, 2, 2, 0, 0, 0, 0]


def test_a_range_is_read() -> None:
    assert scale_ranges(["box=0..4"], ["box", "other"]) == {"box": ScaleRange(0, 4)}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("box", "NAME=LEAST..MOST"),
        ("box=0-4", "NAME=LEAST..MOST"),
        ("box=4..0", "at most MOST"),
        ("box=0..0", "from 1 to 64"),
        ("box=0..65", "from 1 to 64"),
        ("nobody=0..1", "there are box"),
    ],
)
def test_a_range_that_means_nothing_is_refused_with_the_remedy(option: str, words: str) -> None:
    with pytest.raises(CannotStart, match=words.replace(".", r"\.")):
        scale_ranges([option], ["box"])
