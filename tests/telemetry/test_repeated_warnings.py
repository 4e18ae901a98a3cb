"""A warning whose cause goes on is written at once, then once a minute with a count."""

import logging

import pytest

from telemetry import repeated_warnings
from telemetry.repeated_warnings import RepeatedWarnings

log = logging.getLogger("llm_fleet_repeats")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was written here; libraries that earlier tests have started write, too."""
    return [record.getMessage() for record in caplog.records if record.name == log.name]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(repeated_warnings, "time", stopped)
    return stopped


def test_the_first_is_written_at_once_and_the_next_a_minute_later_with_a_count(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    warnings = RepeatedWarnings(log)
    for _ in range(121):
        warnings.warn("a ticket of %s is dropped: %s", "box.chat", "damaged")
        clock.now += 1.0

    text = "a ticket of box.chat is dropped: damaged"
    assert told(caplog) == [text, *[f"{text} (and 59 times more)"] * 2]


def test_each_key_has_a_minute_of_its_own(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    warnings = RepeatedWarnings(log)
    for error in ("one", "another"):
        for key in ("a", "b"):
            warnings.warn("%s is passed over: %s", key, error, about=key)

    assert told(caplog) == ["a is passed over: one", "b is passed over: one"]


def test_ten_thousand_different_ones_are_bounded_and_leave_room_for_later_ones(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    warnings = RepeatedWarnings(log)
    for number in range(10_000):
        warnings.warn("%d", number)
    assert len(told(caplog)) == repeated_warnings._MOST + 1

    clock.now += 60.0
    warnings.warn("a new one")
    assert told(caplog)[-1] == "a new one"
