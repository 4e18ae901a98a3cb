"""The rules of retries: which errors, after how long, and whether they use up an attempt."""

from typing import get_args

import pytest

from contract import errors
from contract.errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    BackendStalled,
    BackendUnreachable,
    ConnectionDropped,
    ContextExceeded,
    FleetError,
    ModelLoading,
    ModelMissing,
    NewerVersion,
    QuotaExhausted,
    Refused,
    ServerFault,
    TruncatedStream,
)
from contract.requests import Kind
from workers.retry import (
    REPEATABLE,
    RETRY_AFTER_MOST_S,
    RULES,
    Retry,
    TimeLeft,
    falls_back,
    in_words,
    retry,
)

PATIENT = (BackendUnreachable, ModelLoading, BackendBusy)
COUNTED = (ServerFault, TruncatedStream, BackendStalled)


def longest(low: float, high: float) -> float:
    return high


def shortest(low: float, high: float) -> float:
    return low


def tried(error: FleetError, attempt: int = 1, kind: Kind = "chat", patience: int = 20) -> Retry:
    again = retry(error, kind, attempt, patience=patience, jitter=longest)
    assert again is not None
    return again


def every_class() -> list[type[FleetError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BackendError) and value is not BackendError
    ]


@pytest.mark.parametrize("kind_of_error", every_class(), ids=lambda each: each.__name__)
def test_exactly_the_retryable_errors_have_a_rule(
    kind_of_error: type[FleetError],
) -> None:
    again = retry(kind_of_error("it broke"), "chat", 1, patience=20)

    assert kind_of_error.retryable == (again is not None) == (kind_of_error in RULES)


def test_a_refusal_is_never_retried_even_with_retry_after() -> None:
    assert retry(Refused("no", retry_after_s=1.0), "chat", 1, patience=20) is None


@pytest.mark.parametrize("kind_of_error", RULES, ids=lambda each: each.__name__)
def test_the_wait_doubles_up_to_its_cap(kind_of_error: type[FleetError]) -> None:
    rule = RULES[kind_of_error]
    waits = [tried(kind_of_error("it broke"), attempt).delay_s for attempt in (1, 2, 3, 50, 5000)]

    assert waits == [rule.base_s, rule.base_s * 2, rule.base_s * 4, rule.cap_s, rule.cap_s]


def test_the_jitter_is_full() -> None:
    again = retry(ServerFault("it broke"), "chat", 9, patience=20, jitter=shortest)

    assert again == Retry(0.0, counts=True)


def test_two_jobs_that_failed_together_are_not_retried_together() -> None:
    waits = {retry(ServerFault("it broke"), "chat", 5, patience=20) for _ in range(20)}

    assert len(waits) == 20


@pytest.mark.parametrize("retry_after_s", [0.0, 2.0, 90.0, RETRY_AFTER_MOST_S])
def test_no_retry_is_sooner_than_retry_after(retry_after_s: float) -> None:
    busy = BackendBusy("too many", retry_after_s=retry_after_s)
    again = retry(busy, "chat", 1, patience=20, jitter=shortest)

    assert again
    assert retry_after_s == again.delay_s


def test_a_retry_after_of_a_day_fails_the_job() -> None:
    assert retry(BackendBusy("tomorrow", retry_after_s=86400.0), "chat", 1, patience=20) is None


@pytest.mark.parametrize(
    ("left", "retry_after_s", "attempt", "is_retried"),
    [
        (TimeLeft(busy_wait_s=30, waited_s=1), None, 1, True),
        (TimeLeft(busy_wait_s=30, waited_s=25), None, 9, True),
        (TimeLeft(busy_wait_s=30, waited_s=29.9), None, 9, False),
        (TimeLeft(busy_wait_s=30, waited_s=25), 6.0, 9, False),
        (TimeLeft(busy_wait_s=30, waited_s=300), None, 2, True),  # it has waited in its queue
        (TimeLeft(busy_wait_s=30, waited_s=300), 5.0, 3, False),
        (TimeLeft(busy_wait_s=30), 31.0, 1, False),
        (TimeLeft(busy_wait_s=0), None, 1, False),
        (TimeLeft(until_deadline_s=60), 60.0, 1, False),
        (TimeLeft(until_deadline_s=60), 59.0, 1, True),
        (TimeLeft(), 3600.0, 900, True),
    ],
)
def test_a_busy_backend_is_asked_as_long_as_a_retry_can_help(
    left: TimeLeft,
    retry_after_s: float | None,
    attempt: int,
    is_retried: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    busy = BackendBusy("too many", retry_after_s=retry_after_s)
    again = retry(busy, "chat", attempt, patience=1000, left=left, jitter=longest)

    assert is_retried == (again is not None)
    if again is not None and left.busy_wait_s > left.waited_s:
        assert again.delay_s <= left.busy_wait_s - left.waited_s


def test_the_patience_with_a_busy_backend_is_for_no_other_error() -> None:
    left = TimeLeft(busy_wait_s=0, waited_s=99)

    assert retry(ModelLoading("it loads"), "chat", 9, patience=20, left=left)


@pytest.mark.parametrize("kind_of_error", PATIENT, ids=lambda each: each.__name__)
def test_an_error_that_does_not_depend_on_the_job_uses_no_attempt_until_patience_ends(
    kind_of_error: type[FleetError],
) -> None:
    costs = [tried(kind_of_error("down"), attempt, patience=3).counts for attempt in (1, 3, 4, 9)]

    assert costs == [False, False, True, True]


@pytest.mark.parametrize("kind_of_error", COUNTED, ids=lambda each: each.__name__)
def test_an_error_that_the_job_may_have_caused_uses_up_an_attempt(
    kind_of_error: type[FleetError],
) -> None:
    assert tried(kind_of_error("it broke")).counts


def test_every_kind_of_job_is_repeatable_or_not() -> None:
    assert set(get_args(Kind)) == set(REPEATABLE)


@pytest.mark.parametrize("kind_of_error", RULES, ids=lambda each: each.__name__)
def test_a_delete_that_may_have_happened_is_not_repeated(kind_of_error: type[FleetError]) -> None:
    again = retry(kind_of_error("it broke"), "delete", 1, patience=20)

    assert (again is not None) == (kind_of_error in {BackendBusy, ModelLoading, NewerVersion})


@pytest.mark.parametrize(
    ("delay_s", "words"), [(0.04, "0.0"), (3.04, "3.0"), (9.95, "9.9"), (42.4, "42")]
)
def test_the_reason_names_the_delay_and_the_error(delay_s: float, words: str) -> None:
    assert in_words(ServerFault("it broke"), delay_s) == f"retry in {words} s: it broke"


@pytest.mark.parametrize(
    ("error", "waited_s", "addresses", "moves"),
    [
        (BackendUnreachable("x"), 0, 1, True),
        (BackendUnreachable("x"), 0, 2, False),
        (BackendUnreachable("x"), 9, 2, True),
        (ConnectionDropped("x"), 9, 1, False),
        (ContextExceeded("x"), 0, 2, True),
        (ModelMissing("x"), 0, 1, True),
        (QuotaExhausted("x"), 0, 1, True),
        (BackendBusy("x"), 0, 1, False),
        (BackendBusy("x"), 5, 1, True),
        (ModelLoading("x"), 5, 1, True),
        (ServerFault("x"), 9, 1, False),
        (AuthenticationRefused("x"), 9, 1, False),
    ],
)
def test_a_job_moves_on_only_after_what_says_not_here(
    error: FleetError, waited_s: float, addresses: int, *, moves: bool
) -> None:
    assert falls_back(error, waited_s, 5, addresses=addresses) is moves
