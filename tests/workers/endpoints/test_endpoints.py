"""Which endpoint of a backend runs a job, and which kinds run at all of them."""

from contextlib import ExitStack
from functools import partial

import pytest

from contract.errors import BackendUnreachable, ModelMissing, ServerFault
from contract.events import Details, Done, Progress
from contract.models import CopyRequest, DeleteRequest, LoadRequest, PullRequest
from contract.roster import ModelReport
from workers.endpoints.broadcast import Broadcast, merged
from workers.endpoints.circuit_breaker import CircuitBreaker
from workers.endpoints.endpoints import Endpoint, EndpointPool, Reservation
from workers.scripted.backend import Scripted

CHAT, PULL = "box.chat", "box.pull"
DOWN = BackendUnreachable("refused")


def endpoint(address: str, slots: int = 2, home: str = "", **models: bool | None) -> Endpoint:
    breaker = partial(CircuitBreaker, failures=1, open_s=5.0, clock=lambda: 0.0)
    made = Endpoint(
        Scripted("box"), address, lambda verdict: breaker(verdict=verdict), {CHAT: slots, PULL: 1},
        home=home,
    )  # fmt: skip
    made.models = tuple(ModelReport(name=name, warm=warm) for name, warm in models.items())
    made.error = None
    return made


def pair(slots: int = 2) -> EndpointPool:
    return EndpointPool([endpoint("a", slots), endpoint("b", slots)])


def taken(
    stack: ExitStack, endpoints: EndpointPool, job: str = "j", model: str | None = None
) -> Reservation:
    reservation = stack.enter_context(endpoints.reserve(CHAT))
    assert reservation is not None
    reservation.move(job, model)
    return reservation


def placed_at(endpoints: EndpointPool, job: str = "j", model: str | None = None) -> str | None:
    with endpoints.reserve(CHAT) as reservation:
        assert reservation is not None
        return reservation.move(job, model)


def test_a_job_goes_to_the_endpoint_with_the_fewest_jobs() -> None:
    endpoints = pair()
    with ExitStack() as stack:
        for number in range(3):
            taken(stack, endpoints, f"j{number}")
        counts = sorted(each.in_flight for each in endpoints.all)

        assert counts == [1, 2]
    assert [each.in_flight for each in endpoints.all] == [0, 0]


def test_no_endpoint_gets_more_than_its_slots() -> None:
    # vllm #49538: a backend's gauges lag by seconds, so the pool counts the jobs in flight.
    endpoints = pair(slots=1)
    with ExitStack() as stack:
        taken(stack, endpoints)
        taken(stack, endpoints)
        third = stack.enter_context(endpoints.reserve(CHAT))

        assert third is None
        assert not endpoints.admit(CHAT)
    assert endpoints.admit(CHAT)


def test_an_endpoint_whose_circuit_is_open_gets_no_job() -> None:
    endpoints = pair()
    endpoints.all[0].breaker.probe_failed(DOWN)

    assert {"b"} == {placed_at(endpoints) for _ in range(5)}
    assert endpoints.open_until is None


def test_with_all_circuits_open_no_job_is_admitted_until_the_first_is_due() -> None:
    endpoints = pair()
    for each in endpoints.all:
        each.breaker.probe_failed(DOWN)

    assert not endpoints.admit(CHAT)
    assert endpoints.open_until == 5.0


def test_an_unhealthy_endpoint_is_the_second_choice() -> None:
    endpoints = pair()
    endpoints.all[0].error = "HTTP 401"

    assert placed_at(endpoints) == "b"


def test_a_job_goes_to_an_endpoint_that_has_its_model() -> None:
    endpoints = EndpointPool([endpoint("a", qwen=None), endpoint("b", llama=None)])

    assert (placed_at(endpoints, model="llama"), placed_at(endpoints, model="qwen:latest")) == (
        "b",
        "a",
    )
    assert placed_at(endpoints, model="unheard-of") in {"a", "b"}


def test_a_job_goes_to_an_endpoint_where_its_model_is_warm() -> None:
    endpoints = EndpointPool([endpoint("a", qwen=False), endpoint("b", qwen=True)])
    with ExitStack() as stack:
        taken(stack, endpoints, model="qwen")

        assert placed_at(endpoints, model="qwen") == "b"


@pytest.mark.parametrize(
    ("listed", "requested"), [("qwen:latest", "qwen"), ("qwen", "qwen:latest")]
)
def test_a_model_is_warm_by_any_spelling_of_its_name(listed: str, requested: str) -> None:
    endpoints = EndpointPool([endpoint("a", **{listed: False}), endpoint("b", **{listed: True})])
    with ExitStack() as stack:
        taken(stack, endpoints, model=requested)

        assert placed_at(endpoints, model=requested) == "b"


def test_the_next_attempt_goes_to_another_endpoint() -> None:
    endpoints = pair()
    with endpoints.reserve(CHAT) as reservation:
        assert reservation is not None
        first = reservation.move("j", None)
        reservation.failed(ServerFault("HTTP 500"))
    endpoints.all[0].breaker.succeeded()
    endpoints.all[1].breaker.succeeded()

    assert {first, placed_at(endpoints, "j")} == {"a", "b"}


def test_a_single_endpoint_gets_the_next_attempt_too_and_has_no_address_in_the_log() -> None:
    endpoints = EndpointPool([endpoint("a")])
    with endpoints.reserve(CHAT) as reservation:
        assert reservation is not None
        reservation.failed(ServerFault("HTTP 500"))
    endpoints.all[0].breaker.succeeded()

    assert placed_at(endpoints, "j") is None


def test_a_reservation_without_a_job_is_released() -> None:
    endpoints = pair(slots=1)
    for _ in range(10):
        with endpoints.reserve(CHAT) as reservation:
            assert reservation is not None

    assert endpoints.admit(CHAT)


def test_a_kind_that_changes_models_has_the_slots_of_one_endpoint() -> None:
    endpoints = pair()

    assert (endpoints.slots(CHAT), endpoints.slots(PULL)) == (4, 1)


def broadcast(*up: str) -> tuple[Broadcast, dict[str, Scripted]]:
    adapters = {"a": Scripted("box"), "b": Scripted("box")}
    return Broadcast("box", adapters, up or tuple(adapters)), adapters


async def has(adapter: Scripted, model: str) -> bool:
    return model in {report.name for report in await adapter.models()}


async def test_a_pull_runs_at_every_endpoint_and_its_totals_only_rise() -> None:
    backend, adapters = broadcast()
    events = [event async for event in backend.pull(PullRequest(model="scripted-story:chunks=1"))]
    totals = [
        event.overall_completed_bytes
        for event in events
        if isinstance(event, Progress) and event.overall_completed_bytes is not None
    ]

    assert [await has(each, "scripted-story:chunks=1") for each in adapters.values()] == [True] * 2
    assert totals == sorted(totals)
    assert [event for event in events if isinstance(event, Done)] == [events[-1]]


async def test_a_pull_skips_an_endpoint_that_is_known_to_be_down() -> None:
    backend, adapters = broadcast("b")
    _ = [event async for event in backend.pull(PullRequest(model="scripted-story:chunks=1"))]
    there = [await has(each, "scripted-story:chunks=1") for each in adapters.values()]

    assert there == [False, True]


async def test_a_delete_that_finds_the_model_at_one_endpoint_succeeds() -> None:
    backend, adapters = broadcast()
    async for _ in adapters["b"].copy(CopyRequest(model="scripted-story", destination="mine")):
        pass
    events = [event async for event in backend.delete(DeleteRequest(model="mine"))]

    assert [event.type for event in events] == ["done"]
    assert not await has(adapters["b"], "mine")


async def test_a_delete_of_a_model_that_is_nowhere_fails() -> None:
    backend, _ = broadcast()
    with pytest.raises(ModelMissing):
        _ = [event async for event in backend.delete(DeleteRequest(model="unheard-of"))]


async def test_a_copy_and_a_load_run_everywhere_and_running_names_the_endpoints() -> None:
    backend, adapters = broadcast()
    _ = [e async for e in backend.copy(CopyRequest(model="scripted-story", destination="mine"))]
    _ = [e async for e in backend.load(LoadRequest(model="mine"))]
    running = [e async for e in backend.running()]

    assert [await has(each, "mine") for each in adapters.values()] == [True, True]
    assert isinstance(running[0], Details)
    assert [each["endpoint"] for each in running[0].details["models"]] == ["a", "b"]


def test_a_model_is_listed_once_and_warm_if_it_is_warm_anywhere() -> None:
    cold, warm = ModelReport(name="m", warm=False), ModelReport(name="m", warm=True)

    assert merged([[cold], [warm, ModelReport(name="n")]]) == (warm, ModelReport(name="n"))


def told(endpoints: EndpointPool, conversation: str, home: str | None = None) -> str:
    with endpoints.reserve(CHAT) as reservation:
        assert reservation is not None
        reservation.move("j", "m", conversation, home)
        return reservation.home


def test_a_message_goes_where_its_conversation_ran_last_and_new_ones_are_spread() -> None:
    endpoints = EndpointPool([endpoint("a", home="at a"), endpoint("b", home="at b")])
    homes = [told(endpoints, "one"), told(endpoints, "two")]

    assert homes == ["at a", "at b"]
    assert [told(endpoints, "two", homes[1]) for _ in range(3)] == ["at b"] * 3


def test_a_claim_names_the_addresses_with_a_free_slot() -> None:
    endpoints = EndpointPool([endpoint("a", 1, home="at a"), endpoint("b", 1, home="at b")])
    with ExitStack() as stack:
        first = taken(stack, endpoints)
        second = stack.enter_context(endpoints.reserve(CHAT))
        assert second is not None

        assert second.limits.here == {"at a", "at b"} - {first.home}
