"""A cursor never repeats, and retries ends."""

import pytest

from contract.errors import RelayUnavailable
from contract.events import (
    BEGINNING,
    Delta,
    Done,
    Event,
    EventId,
    Frame,
)
from fleet.client.errors import FleetUnreachable
from fleet.client.reconnect import Backoff, FollowState, RetryTimer


def frame(id: EventId | None, event: Event) -> Frame:
    return Frame.of(id, 1.0, event)


WORD = frame(EventId(1, 2), Delta(content="a"))
LIVE = frame(None, Delta(content="now"))
END = frame(EventId(1, 3), Done())


def test_what_was_seen_is_dropped_and_what_has_no_id_passes() -> None:
    cursor = FollowState(BEGINNING)

    assert cursor.new_frames([WORD, LIVE]) == [WORD, LIVE]
    assert cursor.new_frames([WORD, LIVE, END]) == [LIVE, END]
    assert cursor.ended


def test_nothing_comes_after_the_last_word() -> None:
    cursor = FollowState(BEGINNING)

    assert cursor.new_frames([END, LIVE, frame(EventId(2, 0), Done())]) == [END]


def test_retries_end_when_there_was_no_response_for_long_enough() -> None:
    now = [0.0]
    retries = RetryTimer(10.0, lambda: now[0])

    assert retries.pause_s(ConnectionError("refused"), "http://a") <= 0.1
    now[0] = 11.0
    with pytest.raises(FleetUnreachable, match=r"http://a for 11 s \(refused\).*fleet up"):
        retries.pause_s(ConnectionError("refused"), "http://a")


def test_an_error_of_ours_is_raised_as_it_is() -> None:
    with pytest.raises(RelayUnavailable):
        RetryTimer(0.0, lambda: 1.0).pause_s(RelayUnavailable("gone"), "http://a", at_least_s=1.0)


def test_a_response_restarts_the_timer() -> None:
    now = [0.0]
    retries = RetryTimer(10.0, lambda: now[0])
    now[0] = 9.0

    retries.reset()
    now[0] = 15.0

    assert retries.pause_s(ConnectionError("refused"), "http://a") <= 0.1


def test_pauses_double_up_to_a_bound_and_start_over_after_success() -> None:
    backoff = Backoff(1.0, 5.0)

    assert [backoff.pause_s() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.pause_s() == 1.0
