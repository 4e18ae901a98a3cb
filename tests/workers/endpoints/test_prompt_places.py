"""Which address and which slot has the prompt of a conversation."""

import pytest

from workers.endpoints.prompt_places import QUIET_S, PromptSlots, home_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def slots(count: int = 2) -> tuple[PromptSlots, Clock]:
    clock = Clock()
    made = PromptSlots(clock)
    made.count = count
    return made, clock


def run(at: PromptSlots, conversation: str | None) -> int | None:
    slot = at.take(conversation)
    at.free(slot)
    return slot


def test_a_conversation_keeps_its_slot() -> None:
    at, _ = slots()

    assert [run(at, each) for each in ("a", "b", "a", "b", "a")] == [0, 1, 0, 1, 0]


def test_no_slot_is_named_while_its_number_is_unknown() -> None:
    at, _ = slots(0)

    assert run(at, "a") is None


@pytest.mark.parametrize("other", ["c", None])
def test_no_slot_is_named_once_another_job_may_have_used_it(other: str | None) -> None:
    at, clock = slots()
    run(at, "a"), run(at, "b")

    assert run(at, other) is None
    assert run(at, "a") is None
    clock.now += QUIET_S + 1
    assert run(at, "a") == 0


def test_a_long_job_without_a_name_counts_while_it_runs() -> None:
    at, clock = slots()
    unnamed = at.take(None)
    clock.now += QUIET_S + 1

    assert run(at, "a") is None
    at.free(unnamed)
    clock.now += QUIET_S + 1
    assert run(at, "a") == 0


def test_a_second_message_at_once_does_not_wait_for_the_slot_of_the_first() -> None:
    at, _ = slots()
    first = at.take("a")

    assert (first, at.take("a")) == (0, None)


def test_no_slot_of_a_server_with_two_workers_is_named() -> None:
    at, _ = slots()
    at.is_shared = True

    assert run(at, "a") is None


def test_a_server_has_one_id_wherever_it_is_reached_from() -> None:
    far = {home_of("http://gpu1:8000/v1", host, "w") for host in ("one", "two")}
    near = {home_of("http://127.0.0.1:8000", host, "w") for host in ("one", "two")}
    inside = {home_of("", "one", worker) for worker in ("w1", "w2")}

    assert (len(far), len(near), len(inside)) == (1, 2, 2)
