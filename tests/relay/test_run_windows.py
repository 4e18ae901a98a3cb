"""Run windows across midnight, days and changes of the clocks, by a virtual clock.

Subjects: relay/scheduling/run_windows.py.
"""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.scheduling.run_windows import opening_after, parsed, parsed_all, state_at


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def changes(window: str, first: str, last: str) -> list[str]:
    """When it opens and closes between two times, as a clock that runs from one to the other."""
    windows, now, end = parsed_all((window,)), at(first), at(last)
    found, was_open = [], state_at(parsed_all((window,)), now).is_open
    while now < end:
        until = state_at(windows, now).until
        assert until is not None
        assert until > now
        now = until
        is_open = state_at(windows, now).is_open
        assert is_open != was_open
        was_open = is_open
        text = datetime.fromtimestamp(now, windows[0].zone).isoformat()
        found.append(f"{'opens' if is_open else 'closes'} {text}")
    return found[: -1 if now > end else None]


def test_a_window_across_midnight_opens_and_closes_every_night() -> None:
    night = "22:00-06:00 Europe/Berlin"

    assert changes(night, "2026-11-29T12:00+01:00", "2026-12-01T12:00+01:00") == [
        "opens 2026-11-29T22:00:00+01:00",
        "closes 2026-11-30T06:00:00+01:00",
        "opens 2026-11-30T22:00:00+01:00",
        "closes 2026-12-01T06:00:00+01:00",
    ]


def test_days_are_those_on_which_a_window_opens() -> None:
    found = changes("fri 22:00-06:00 UTC", "2026-11-25T00:00+00:00", "2026-12-02T00:00+00:00")

    assert found == ["opens 2026-11-27T22:00:00+00:00", "closes 2026-11-28T06:00:00+00:00"]


def test_the_night_in_which_the_clocks_go_forward_is_an_hour_shorter() -> None:
    found = changes("22:00-06:00 Europe/Berlin", "2026-03-28T12:00+01:00", "2026-03-29T12:00+02:00")

    assert found == ["opens 2026-03-28T22:00:00+01:00", "closes 2026-03-29T06:00:00+02:00"]
    assert at("2026-03-29T06:00+02:00") - at("2026-03-28T22:00+01:00") == 7 * 3600


def test_the_night_in_which_the_clocks_go_back_is_an_hour_longer() -> None:
    found = changes("22:00-06:00 Europe/Berlin", "2026-10-24T12:00+02:00", "2026-10-25T12:00+01:00")

    assert found == ["opens 2026-10-24T22:00:00+02:00", "closes 2026-10-25T06:00:00+01:00"]
    assert at("2026-10-25T06:00+01:00") - at("2026-10-24T22:00+02:00") == 9 * 3600


def test_a_time_that_the_clocks_skip_is_as_much_later() -> None:
    found = changes(
        "sun 02:30-05:00 Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-29T12:00+02:00"
    )
    assert found == ["opens 2026-03-29T03:30:00+02:00", "closes 2026-03-29T05:00:00+02:00"]
    ends = changes(
        "sun 00:00-02:30 Europe/Berlin", "2026-03-28T12:00+01:00", "2026-03-29T12:00+02:00"
    )
    assert ends == ["opens 2026-03-29T00:00:00+01:00", "closes 2026-03-29T03:30:00+02:00"]


def test_a_time_that_comes_twice_opens_at_the_first_and_closes_at_the_last() -> None:
    opens = changes(
        "sun 02:30-05:00 Europe/Berlin", "2026-10-25T00:00+02:00", "2026-10-25T12:00+01:00"
    )
    assert opens == ["opens 2026-10-25T02:30:00+02:00", "closes 2026-10-25T05:00:00+01:00"]
    closes = changes(
        "sun 00:00-02:30 Europe/Berlin", "2026-10-24T12:00+02:00", "2026-10-25T12:00+01:00"
    )
    assert closes == ["opens 2026-10-25T00:00:00+02:00", "closes 2026-10-25T02:30:00+01:00"]


def test_windows_that_touch_are_one_and_a_whole_week_never_closes() -> None:
    halves = parsed_all(("00:00-12:00 UTC", "12:00-24:00 UTC"))
    weekend = parsed_all(("sat-sun 00:00-24:00 UTC",))

    assert state_at(halves, at("2026-11-29T11:00+00:00")).until is None
    state = state_at(weekend, at("2026-11-28T11:00+00:00"))
    assert state.since == at("2026-11-28T00:00+00:00")
    assert state.until == at("2026-11-30T00:00+00:00")
    assert opening_after(weekend, at("2026-11-30T00:00+00:00")) == at("2026-12-05T00:00+00:00")


@given(
    st.integers(1_577_836_800, 2_051_222_400),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.integers(0, 95),
    st.integers(1, 95),
)
def test_what_is_said_of_the_next_change_is_true(
    unix: int, zone: str, begins: int, lasts: int
) -> None:
    first, last = begins * 15, (begins + lasts) * 15 % 1440
    text = f"{first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02} {zone}"
    windows = parsed_all((text,))
    state = state_at(windows, unix)

    assert state.until is not None
    assert state.since is not None
    assert state.since <= unix < state.until
    assert state_at(windows, state.until).is_open is not state.is_open
    assert state_at(windows, state.until - 1).is_open is state.is_open
    assert state.until - state.since <= 25 * 3600


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no run window"),
        ("22:00-06:00", "is no run window"),
        ("22-06 UTC", "is no run window"),
        ("25:00-06:00 UTC", "25:00 is no time of day"),
        ("22:60-06:00 UTC", "22:60 is no time of day"),
        ("22:00-22:00 UTC", "00:00-24:00"),
        ("24:00-06:00 UTC", "has no length"),
        ("22:00-06:00 Europe/Atlantis", "no time zone 'Europe/Atlantis'"),
        ("22:00-06:00 ../../etc/passwd", "no time zone"),
        ("22:00-06:00 America", "no time zone"),
        ("22:00-06:00 localtime", "no time zone"),
        ("22:00-06:00 ÄÖÜ", "no time zone"),
        ("montag 22:00-06:00 UTC", "names no days"),
        ("mon- 22:00-06:00 UTC", "names no days"),
        ("\u0662\u0662:00-06:00 UTC", "is no run window"),
    ],
)
def test_what_is_no_window_is_refused_with_a_remedy(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parsed(text)
