"""The circuit breaker, with a clock that the test advances."""

import asyncio
from dataclasses import dataclass, field

import pytest

from contract.errors import (
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
from workers.endpoints.circuit_breaker import (
    OPEN_MOST_S,
    CircuitBreaker,
    Verdict,
    endpoint_works,
    model_works,
)


@dataclass
class Stage:
    """A breaker and its clock."""

    verdict: Verdict = model_works
    now: float = 100.0
    changes: int = 0
    breaker: CircuitBreaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(
            failures=3,
            open_s=5.0,
            clock=lambda: self.now,
            on_change=self._changed,
            verdict=self.verdict,
        )

    def _changed(self) -> None:
        self.changes += 1

    def run(self, *errors: BackendError | None) -> None:
        for error in errors:
            permit = self.breaker.enter()
            if error is None:
                permit.answered()
            else:
                permit.failed(error)

    def opened(self, error: BackendError) -> "Stage":
        self.run(error, error, error)
        return self

    def half_opened(self, error: BackendError) -> "Stage":
        self.opened(error)
        self.now += 5.0
        self.breaker.half_open_if_due()
        return self


DOWN = BackendUnreachable("refused")
BROKEN = ServerFault("HTTP 500", scope="model")
OF_A_REQUEST = (
    ServerFault("an error in an answer of status 200"), BackendBusy("429"), ModelLoading("503"),
    ContextExceeded("long"), Refused("no"), TruncatedStream("cut"), BackendStalled("silent"),
)  # fmt: skip


def endpoint() -> Stage:
    return Stage(endpoint_works)


@pytest.mark.parametrize(
    ("verdict", "error"),
    [(model_works, DOWN), (model_works, BROKEN), (endpoint_works, DOWN)],
    ids=["model unreachable", "model broken", "endpoint"],
)
def test_failures_in_a_row_open_it(verdict: Verdict, error: BackendError) -> None:
    stage = Stage(verdict)
    stage.run(error, error)
    before = stage.breaker.admits
    stage.run(error)

    assert (before, stage.breaker.admits, stage.breaker.open_until) == (True, False, 105.0)
    assert stage.changes == 1


def test_an_answer_between_them_starts_the_count_again() -> None:
    stage = Stage()
    stage.run(DOWN, DOWN, None, DOWN, DOWN)

    assert stage.breaker.admits


@pytest.mark.parametrize("verdict", [model_works, endpoint_works])
@pytest.mark.parametrize("error", OF_A_REQUEST, ids=lambda error: error.message)
def test_an_error_of_a_request_opens_neither(verdict: Verdict, error: BackendError) -> None:
    stage = Stage(verdict)
    stage.run(*[error] * 100)

    assert stage.breaker.admits


def test_an_error_of_a_model_never_opens_the_circuit_of_its_endpoint() -> None:
    stage = endpoint()
    stage.run(*[BROKEN] * 100)

    assert stage.breaker.admits


def test_a_stream_that_breaks_off_does_not_reset_the_count() -> None:
    stage = Stage()
    stage.run(BROKEN, BROKEN, TruncatedStream("cut"), BROKEN)

    assert not stage.breaker.admits


def test_half_open_admits_one_job() -> None:
    breaker = Stage().half_opened(BROKEN).breaker
    admitted = breaker.admits
    breaker.enter()

    assert (admitted, breaker.admits) == (True, False)


async def test_half_open_admits_one_of_many_concurrent_jobs() -> None:
    breaker = Stage().half_opened(BROKEN).breaker
    admitted = 0

    async def job() -> None:
        nonlocal admitted
        if breaker.admits:
            breaker.enter()
            admitted += 1
            await asyncio.sleep(0)

    await asyncio.gather(*(job() for _ in range(50)))

    assert admitted == 1


def test_it_closes_at_the_first_output_of_the_trial_not_at_its_end() -> None:
    stage = Stage().half_opened(BROKEN)
    trial = stage.breaker.enter()
    trial.answered()
    trial.failed(BROKEN)

    assert stage.breaker.admits
    assert stage.breaker.open_until is None


def test_a_trial_that_fails_opens_it_for_twice_as_long() -> None:
    stage = Stage().half_opened(BROKEN)
    waits = []
    for _ in range(6):
        stage.run(BROKEN)
        waits.append((stage.breaker.open_until or 0.0) - stage.now)
        stage.now = stage.breaker.open_until or 0.0
        stage.breaker.half_open_if_due()

    assert waits == [10.0, 20.0, 40.0, OPEN_MOST_S, OPEN_MOST_S, OPEN_MOST_S]


def test_after_a_cancelled_trial_the_next_job_is_one() -> None:
    breaker = Stage().half_opened(BROKEN).breaker
    breaker.enter().dropped()

    assert breaker.admits


@pytest.mark.parametrize("outcome", ["answered", "failed"])
def test_a_job_that_began_before_it_opened_does_not_count_afterwards(outcome: str) -> None:
    stage = Stage()
    old = stage.breaker.enter()
    stage.half_opened(BROKEN)
    trial = stage.breaker.enter()
    old.answered() if outcome == "answered" else old.failed(BROKEN)

    assert not stage.breaker.admits
    trial.answered()
    assert stage.breaker.admits


def test_time_alone_does_not_half_open_it() -> None:
    stage = Stage().opened(BROKEN)
    stage.breaker.half_open_if_due()
    early = stage.breaker.admits
    stage.now += 1000.0

    assert (early, stage.breaker.admits, stage.breaker.is_due) == (False, False, True)


def test_a_probe_that_is_answered_closes_an_endpoint_at_once_without_a_trial_job() -> None:
    stage = endpoint().opened(DOWN)
    probe_at = stage.breaker.probe_at
    stage.breaker.probe_succeeded()
    stage.breaker.enter()

    assert probe_at == stage.now
    assert (stage.breaker.admits, stage.breaker.open_until) == (True, None)


@pytest.mark.parametrize("error", [BROKEN, BackendBusy("503")], ids=lambda error: error.code)
def test_an_endpoint_that_answers_a_probe_with_an_error_is_reachable(error: BackendError) -> None:
    stage = endpoint().opened(DOWN)
    stage.breaker.probe_failed(error)

    assert stage.breaker.admits


def test_a_failed_probe_opens_it_before_any_job_fails() -> None:
    stage = endpoint()
    stage.breaker.probe_failed(DOWN)

    assert stage.breaker.open_until == 105.0


def test_probes_while_it_is_open_do_not_extend_it() -> None:
    stage = endpoint().opened(DOWN)
    stage.now += 2.0
    stage.breaker.probe_failed(DOWN)

    assert stage.breaker.open_until == stage.breaker.probe_at == 105.0


def test_a_failed_probe_when_it_is_due_opens_it_for_longer() -> None:
    stage = endpoint().opened(DOWN)
    stage.now = 105.0
    stage.breaker.probe_failed(DOWN)

    assert stage.breaker.open_until == 115.0
