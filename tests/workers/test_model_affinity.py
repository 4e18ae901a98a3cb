"""Which jobs a worker claims: warm models first, one load at a time, slots free of batch."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BackendBusy, BackendError, TruncatedStream
from contract.events import Delta, Phase, Reset
from contract.jobs import JobRecord
from contract.roster import ModelReport
from relay.order import ClaimFilter
from workers.model_affinity import ModelAffinity
from workers.slots import Slots

CHAT = "box.chat"


class Stage:
    """The affinity of a worker whose backend swaps models, and the queues that it has woken."""

    def __init__(self, slots: int = 4, **warm: bool | None) -> None:
        self.woken: list[str] = []
        self.offered: list[str] = []
        self.affinity = ModelAffinity(
            Slots({CHAT: slots, "box.embed": slots, "box.pull": 1}),
            lambda queue, delay_s: (self.offered if delay_s else self.woken).append(queue),
        )
        self.learn(**(warm or {"a": False, "b": False}))

    def learn(self, **warm: bool | None) -> None:
        """A probe that begins now."""
        self.end_probe(self.affinity.suspect, **warm)

    def end_probe(self, suspect: str | None, **warm: bool | None) -> None:
        """A probe that began when this model was suspected."""
        models = [ModelReport(name=name, warm=is_warm) for name, is_warm in warm.items()]
        self.affinity.on_models(models, suspect)

    async def claim_filter(self, queue: str = CHAT) -> ClaimFilter:
        async with self.affinity.turn(queue) as claim_filter:
            return claim_filter

    async def begin(self, id: str, model: str, queue: str = CHAT, **fields: Any) -> JobRecord:
        record = job(id, model, queue, **fields)
        async with self.affinity.turn(queue):
            self.affinity.on_claimed(record)
        return record

    def outputs(self, id: str) -> None:
        self.affinity.on_event(id, Delta(content="a"))


def job(id: str, model: str, queue: str = CHAT, **fields: Any) -> JobRecord:
    return JobRecord(
        **{
            "id": id, "v": 1, "kind": queue.partition(".")[2], "status": "running", "queue": queue,
            "backend": "box", "model": model, "tenant": "default", "priority": "standard",
            "attempt": 1, "max_attempts": 3, "created_at": 0.0, **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize("reported", [{"a": None}, {"a": True, "b": True}, {"a": None, "b": True}])
async def test_a_backend_without_cold_models_gets_any_job(
    reported: dict[str, bool | None],
) -> None:
    stage = Stage(**reported)
    await stage.begin("1", "unknown")

    assert await stage.claim_filter() == ClaimFilter()


async def test_a_model_in_memory_is_warm_under_all_its_names() -> None:
    stage = Stage(**{"qwen3:latest": True, "big:70b": True, "cold": False})

    assert (await stage.claim_filter()).warm == frozenset({"qwen3", "qwen3:latest", "big:70b"})


async def test_while_a_cold_model_loads_only_jobs_of_warm_models_are_claimed() -> None:
    stage = Stage(a=True, b=False)
    await stage.begin("1", "b")

    assert await stage.claim_filter() == ClaimFilter(warm=frozenset({"a", "a:latest"}), cold=False)
    assert await stage.claim_filter("box.pull") == ClaimFilter()
    assert (stage.affinity.loading(CHAT), stage.affinity.loading("box.pull")) == ("b", None)


@pytest.mark.parametrize(
    "event", [Delta(content="a"), Phase(phase="prefill"), Phase(phase="generating")]
)
async def test_a_load_is_over_at_the_first_output(event: Any) -> None:
    stage = Stage()
    await stage.begin("1", "a")
    stage.affinity.on_event("1", Phase(phase="loading"))
    stage.affinity.on_event("1", Reset(attempt=2, reason=""))
    assert not (await stage.claim_filter()).cold
    stage.affinity.on_event("1", event)

    assert await stage.claim_filter() == ClaimFilter(warm=frozenset({"a", "a:latest"}))
    assert stage.affinity.loading(CHAT) is None
    assert stage.affinity.stale.is_set()


async def test_a_failed_load_ends_without_a_warm_model() -> None:
    stage = Stage()
    record = await stage.begin("1", "a")
    stage.affinity.on_released(record)

    assert await stage.claim_filter() == ClaimFilter(warm=frozenset())


async def test_a_load_may_have_evicted_the_models_that_were_warm() -> None:
    stage = Stage(a=True, b=False)
    await stage.begin("1", "b")
    stage.outputs("1")
    assert (await stage.claim_filter()).warm == frozenset({"b", "b:latest"})
    stage.learn(a=True, b=True, c=False)

    assert (await stage.claim_filter()).warm == frozenset({"a", "a:latest", "b", "b:latest"})


async def test_the_model_that_ran_last_stays_warm_only_if_the_backend_does_not_list_it() -> None:
    stage = Stage(a=False)
    for id, model in (("1", "a"), ("2", "alias")):
        record = await stage.begin(id, model)
        stage.outputs(id)
        stage.affinity.on_released(record)
        stage.learn(a=False)

    assert (await stage.claim_filter()).warm == frozenset({"alias", "alias:latest"})


async def test_a_pull_is_no_load() -> None:
    stage = Stage()
    await stage.begin("1", "a")
    stage.affinity.on_event("1", Phase(phase="pulling"))
    assert (await stage.claim_filter()).cold
    stage.affinity.on_event("1", Phase(phase="loading"))

    assert not (await stage.claim_filter()).cold


async def test_queues_without_a_claim_during_a_load_are_woken_when_it_ends() -> None:
    stage = Stage()
    record = await stage.begin("1", "a")
    for queue in (CHAT, CHAT, "box.embed"):
        stage.affinity.on_nothing_claimed(queue, await stage.claim_filter(queue))
    assert not stage.woken
    late = await stage.claim_filter()
    stage.affinity.on_released(record)
    stage.affinity.on_nothing_claimed(CHAT, late)

    assert sorted(stage.woken) == [CHAT, CHAT, "box.embed"]
    assert sorted(stage.offered) == [CHAT, "box.embed"]


async def test_a_queue_that_found_nothing_for_another_reason_is_not_woken() -> None:
    stage = Stage()
    stage.affinity.on_nothing_claimed(CHAT, await stage.claim_filter())
    record = await stage.begin("1", "a")
    stage.affinity.on_released(record)

    assert not stage.woken


async def test_slots_that_claim_at_once_load_one_model() -> None:
    # lmstudio-bug-tracker #1751: parallel first requests load as many copies.
    stage = Stage(slots=8)
    waiting = [job(str(n), "a") for n in range(8)]
    claimed: list[JobRecord] = []

    async def claim() -> None:
        async with stage.affinity.turn(CHAT) as claim_filter:
            await asyncio.sleep(0)
            if claim_filter.cold:
                claimed.append(waiting.pop())
                stage.affinity.on_claimed(claimed[-1])

    await asyncio.gather(*(claim() for _ in range(8)))

    assert len(claimed) == 1


async def test_no_model_is_warm_before_the_first_probe() -> None:
    affinity = ModelAffinity(Slots({CHAT: 4}), lambda _queue, _delay_s: None)
    async with affinity.turn(CHAT) as claim_filter:
        affinity.on_claimed(job("1", "a"))
    async with affinity.turn(CHAT) as then:
        pass

    assert (claim_filter, then) == (
        ClaimFilter(warm=frozenset()),
        ClaimFilter(warm=frozenset(), cold=False),
    )


async def evicting() -> tuple[Stage, JobRecord]:
    """A backend that has evicted `a` to load `b`, whose job has begun its output."""
    stage = Stage()
    first = await stage.begin("1", "a")
    stage.outputs("1")
    second = await stage.begin("2", "b")
    stage.outputs("2")
    stage.affinity.on_failure("1", TruncatedStream("cut"))
    stage.affinity.on_released(first)
    return stage, second


async def test_a_backend_that_evicts_a_busy_model_gets_one_model_at_a_time() -> None:
    # LM Studio #671, #1796, llama.cpp #21678, llama-swap #588: busy models are evicted.
    stage, running = await evicting()
    while_it_runs = await stage.claim_filter()
    stage.affinity.on_released(running)
    then = await stage.claim_filter()
    await stage.begin("3", "a")

    assert while_it_runs == ClaimFilter(frozenset({"b", "b:latest"}), cold=False, drains=True)
    assert then.cold
    assert await stage.claim_filter() == ClaimFilter(frozenset(), cold=False)


async def test_a_queue_that_waits_for_the_running_model_is_woken_at_its_last_end() -> None:
    stage, running = await evicting()
    another = await stage.begin("3", "b")
    stage.affinity.on_nothing_claimed(CHAT, await stage.claim_filter())
    stage.affinity.on_released(running)
    before = list(stage.woken)
    stage.affinity.on_released(another)

    assert (before, stage.woken) == ([], [CHAT])


@pytest.mark.parametrize(("is_still_there", "drains"), [(True, False), (False, True)])
async def test_the_next_probe_decides_whether_the_model_was_evicted(
    *, is_still_there: bool, drains: bool
) -> None:
    stage, _ = await evicting()
    stage.learn(a=is_still_there, b=True, c=False)

    assert (await stage.claim_filter()).drains is drains


async def test_a_probe_that_had_begun_before_decides_nothing() -> None:
    stage, _ = await evicting()
    stage.end_probe(None, a=True, b=True, c=False)
    before = await stage.claim_filter()
    stage.learn(a=True, b=True, c=False)

    assert before.drains
    assert not (await stage.claim_filter()).drains


async def test_a_probe_after_the_model_was_loaded_again_decides_nothing() -> None:
    # The retry of the job that broke off may be quicker than the probe.
    stage, running = await evicting()
    stage.affinity.on_released(running)
    again = await stage.begin("3", "a")
    stage.outputs("3")
    stage.learn(a=True, b=False, c=False)

    assert again.model == "a"
    assert (await stage.claim_filter()).drains


@pytest.mark.parametrize("error", [TruncatedStream("cut"), BackendBusy("busy")])
async def test_a_stream_that_breaks_for_another_reason_changes_nothing(
    error: BackendError,
) -> None:
    stage = Stage()
    await stage.begin("1", "a")
    stage.outputs("1")
    if isinstance(error, BackendBusy):
        await stage.begin("2", "b")
    stage.affinity.on_failure("1", error)

    assert not (await stage.claim_filter()).drains


@pytest.mark.parametrize(("slots", "most"), [(1, 1), (3, 3), (4, 3), (7, 6), (8, 6), (64, 48)])
async def test_one_slot_in_four_is_kept_free_of_batch(slots: int, most: int) -> None:
    stage = Stage(slots, a=True)
    taken = 0
    while (await stage.claim_filter()).batch and taken < slots:
        await stage.begin(str(taken), "a", priority="batch")
        taken += 1

    assert taken == most


async def test_claims_in_progress_count_as_batch_until_they_return() -> None:
    stage = Stage(4, a=True)
    async with AsyncExitStack() as stack:
        claim_filters = [
            await stack.enter_async_context(stage.affinity.turn(CHAT)) for _ in range(3)
        ]
        fourth = asyncio.create_task(stage.claim_filter())
        await asyncio.sleep(0)

        assert all(claim_filter.batch for claim_filter in claim_filters)
        assert not fourth.done()
    assert (await fourth).batch


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["claim", "output", "end"]), st.sampled_from("abc")), max_size=80
    )
)
def test_in_any_order_of_events_one_model_loads_and_the_reserve_stays_free(
    steps: list[tuple[str, str]],
) -> None:
    with asyncio.Runner() as runner:
        runner.run(_play(steps))


async def _play(steps: list[tuple[str, str]]) -> None:
    stage, running = Stage(4, a=False), dict[str, JobRecord]()
    for number, (step, model) in enumerate(steps):
        if step == "claim" and len(running) < 4:
            claim_filter = await stage.claim_filter()
            if claim_filter.cold or model in (claim_filter.warm or ()):
                priority = "batch" if claim_filter.batch else "standard"
                id = str(number)
                running[id] = await stage.begin(id, model, priority=priority)
        elif running and step == "output":
            stage.outputs(next(iter(running)))
        elif running and step == "end":
            stage.affinity.on_released(running.pop(next(iter(running))))

        assert len(stage.affinity._loads) <= 1
        assert sum(record.priority == "batch" for record in running.values()) <= 3
    for record in running.values():
        stage.affinity.on_released(record)
    assert await stage.claim_filter() == ClaimFilter(warm=(await stage.claim_filter()).warm)
