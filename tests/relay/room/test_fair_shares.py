"""Who gives up how much of a memory that is too small for all."""

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.room.fair_shares import excess, to_free


@pytest.mark.parametrize(
    ("kept", "free_bytes", "given_up"),
    [
        ({}, 10, {}),
        ({"a": 100}, 0, {}),
        ({"a": 100}, 30, {"a": 30}),
        ({"a": 100, "b": 10}, 30, {"a": 30}),
        ({"a": 100, "b": 90}, 30, {"a": 20, "b": 10}),
        ({"a": 100, "b": 100, "c": 5}, 50, {"a": 25, "b": 25}),
        ({"a": 10, "b": 10}, 99, {"a": 10, "b": 10}),
    ],
)
def test_the_largest_come_down_to_one_level(
    kept: Mapping[str, int], free_bytes: int, given_up: Mapping[str, int]
) -> None:
    assert given_up == excess(kept, free_bytes)


@example({"a": 2, "b": 2}, 1)  # half a byte each, which is none
@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 10**9), min_size=1, max_size=9),
    st.integers(1, 10**10),
)
def test_who_keeps_less_than_what_is_left_to_others_gives_nothing(
    kept: dict[str, int], free_bytes: int
) -> None:
    given_up = excess(kept, free_bytes)
    left = {tenant: size - given_up.get(tenant, 0) for tenant, size in kept.items()}
    level = max(left[tenant] for tenant in given_up) if given_up else max(left.values())

    assert sum(given_up.values()) <= min(free_bytes, sum(kept.values()))
    assert sum(given_up.values()) >= min(free_bytes, sum(kept.values())) - len(kept)
    assert all(kept[tenant] <= level + 1 for tenant in kept.keys() - given_up.keys())


@pytest.mark.parametrize(
    ("used", "job_bytes", "free_bytes"),
    [
        (80, 70, 5),  # down to three quarters
        (95, 90, 20),
        (95, 30, 10),  # something else fills it: a fifth is left to jobs
        (95, 10, 0),
        (70, 70, 0),
    ],
)
def test_what_is_freed_is_a_little_more_than_what_is_above_the_mark(
    used: int, job_bytes: int, free_bytes: int
) -> None:
    assert free_bytes * 1000 == pytest.approx(
        to_free(used * 1000, 100_000, 0.8, job_bytes * 1000), abs=1
    )
