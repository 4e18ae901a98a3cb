"""The circuit breaker, on a clock that the test turns."""

import asyncio
from dataclasses import dataclass, field

import pytest

from contract.backend_errors import (
    BackendBusy,
    BackendError,
    BackendStalled,
    BackendUnreachable,
    ContextExceeded,
    ModelLoading,
    Refused,
    ServerFault,
    TruncatedStream,
)
from workers.backends.breaker import OPEN_MOST_S, Breaker


@dataclass
class Stage:
    """A breaker and its clock."""

    now: float = 100.0
    changes: int = 0
    breaker: Breaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = Breaker(
            failures=3, open_s=5.0, clock=lambda: self.now, on_change=self._changed
        )

    def _changed(self) -> None:
        self.changes += 1

    def run(self, *errors: BackendError | None) -> None:
        for error in errors:
            passage = self.breaker.enter()
            if error is None:
                passage.answered()
            else:
                passage.broke(error)

    def opened(self, error: BackendError) -> "Stage":
        self.run(error, error, error)
        return self

    def half_opened(self, error: BackendError) -> "Stage":
        self.opened(error)
        self.now += 5.0
        self.breaker.probe()
        return self


DOWN = BackendUnreachable("refused")
BROKEN = ServerFault("HTTP 500")
OUTAGES = (DOWN, BROKEN, ModelLoading("HTTP 503"))


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: error.code)
def test_failures_in_a_row_open_it(error: BackendError) -> None:
    stage = Stage()
    stage.run(error, error)
    before = stage.breaker.admits
    stage.run(error)

    assert (before, stage.breaker.admits, stage.breaker.open_until) == (True, False, 105.0)
    assert stage.changes == 1


def test_an_answer_between_them_starts_the_count_again() -> None:
    stage = Stage()
    stage.run(DOWN, DOWN, None, DOWN, DOWN)

    assert stage.breaker.admits


@pytest.mark.parametrize(
    "error",
    [BackendBusy("429"), ContextExceeded("long"), Refused("no"), TruncatedStream("cut"),
     BackendStalled("silent")],
    ids=lambda error: error.code,
)  # fmt: skip
def test_what_an_endpoint_that_works_answers_does_not_open_it(error: BackendError) -> None:
    stage = Stage()
    stage.run(*[error] * 100)

    assert stage.breaker.admits


def test_a_stream_that_breaks_off_does_not_wipe_out_what_was_counted() -> None:
    stage = Stage()
    stage.run(BROKEN, BROKEN, TruncatedStream("cut"), BROKEN)

    assert not stage.breaker.admits


def test_half_open_lets_one_job_through() -> None:
    breaker = Stage().half_opened(BROKEN).breaker
    admitted = breaker.admits
    breaker.enter()

    assert (admitted, breaker.admits) == (True, False)


async def test_half_open_lets_one_job_through_however_many_come_at_once() -> None:
    breaker = Stage().half_opened(BROKEN).breaker
    through = 0

    async def job() -> None:
        nonlocal through
        if breaker.admits:
            breaker.enter()
            through += 1
            await asyncio.sleep(0)

    await asyncio.gather(*(job() for _ in range(50)))

    assert through == 1


def test_it_closes_at_the_first_word_of_the_trial_not_at_its_end() -> None:
    stage = Stage().half_opened(BROKEN)
    trial = stage.breaker.enter()
    trial.answered()
    trial.broke(BROKEN)

    assert stage.breaker.admits
    assert stage.breaker.open_until is None


def test_a_trial_that_fails_opens_it_for_twice_as_long() -> None:
    stage = Stage().half_opened(BROKEN)
    waits = []
    for _ in range(6):
        stage.run(BROKEN)
        waits.append((stage.breaker.open_until or 0.0) - stage.now)
        stage.now = stage.breaker.open_until or 0.0
        stage.breaker.probe()

    assert waits == [10.0, 20.0, 40.0, OPEN_MOST_S, OPEN_MOST_S, OPEN_MOST_S]


def test_a_trial_that_was_cancelled_leaves_its_place_to_the_next() -> None:
    breaker = Stage().half_opened(BROKEN).breaker
    breaker.enter().left()

    assert breaker.admits


@pytest.mark.parametrize("outcome", ["answered", "broke"])
def test_what_began_before_it_opened_does_not_count_afterwards(outcome: str) -> None:
    stage = Stage()
    old = stage.breaker.enter()
    stage.half_opened(BROKEN)
    trial = stage.breaker.enter()
    old.answered() if outcome == "answered" else old.broke(BROKEN)

    assert not stage.breaker.admits
    trial.answered()
    assert stage.breaker.admits


def test_time_alone_does_not_half_open_it() -> None:
    stage = Stage().opened(BROKEN)
    stage.breaker.probe()
    early = stage.breaker.admits
    stage.now += 1000.0

    assert (early, stage.breaker.admits, stage.breaker.is_due) == (False, False, True)


def test_a_look_closes_early_what_a_look_has_opened() -> None:
    stage = Stage()
    stage.breaker.found_broken(DOWN)
    stage.breaker.found_well()
    stage.breaker.enter()

    assert stage.breaker.admits
    assert stage.breaker.open_until is None


def test_a_look_lets_one_job_try_early_what_jobs_could_not_reach() -> None:
    stage = Stage().opened(DOWN)
    stage.breaker.found_well()
    admitted = stage.breaker.admits
    stage.breaker.enter()

    assert (admitted, stage.breaker.admits) == (True, False)


def test_a_look_proves_nothing_to_what_failed_at_jobs() -> None:
    stage = Stage().opened(BROKEN)
    stage.breaker.found_well()

    assert not stage.breaker.admits


def test_a_look_that_finds_nobody_opens_it_before_any_job_is_lost() -> None:
    stage = Stage()
    stage.breaker.found_broken(DOWN)

    assert stage.breaker.open_until == 105.0


def test_looks_while_it_is_open_do_not_put_its_end_off() -> None:
    stage = Stage().opened(DOWN)
    stage.now += 2.0
    stage.breaker.found_broken(DOWN)

    assert stage.breaker.open_until == 105.0


def test_a_look_that_finds_nobody_when_it_is_due_costs_no_job() -> None:
    stage = Stage().opened(DOWN)
    stage.now = 105.0
    stage.breaker.found_broken(DOWN)

    assert stage.breaker.open_until == 115.0
