"""A missing model is pulled once for all jobs that need it, and these continue."""

import asyncio
from pathlib import Path

from support.processes import worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import Frame
from contract.models import PullRequest


async def pull(relay: Relay, model: str) -> str:
    record, _ = await relay.queue.enqueue(PullRequest(model=model), queue="scripted.pull")
    return record.id


async def test_one_download_however_many_ask(redis_url: str) -> None:
    # ollama #1763, #6101, #12507: the progress of a pull is lost to whoever comes back.
    async with relay_on(redis_url) as relay:
        jobs = await asyncio.gather(*(pull(relay, "m") for _ in range(20)))
        other = await pull(relay, "another")

        assert len(set(jobs)) == 1
        assert other not in jobs
        assert len((await relay.records.page()).jobs) == 2


async def test_two_spellings_of_one_model_are_one_download(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        assert await pull(relay, "qwen3") == await pull(relay, "qwen3:latest")
        assert await pull(relay, "qwen3:8b") != await pull(relay, "qwen3")


async def test_a_pull_that_has_ended_can_be_asked_for_again(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await pull(relay, "m")
        await relay.queue.cancel(first, by="caller")

        assert await pull(relay, "m") != first


async def ask_for_missing(folder: Path, url: str, wish: str) -> list[Frame]:
    with worker(url, folder) as one:
        async with relay_on(url) as relay:
            await one.ready(relay)
            request = ChatRequest(
                model="scripted-story:chunks=3,fail=missing,times=1",
                messages=(Message(role="user", content="tell"),),
                on_missing=wish,
            )
            record, _ = await relay.queue.enqueue(request, queue="scripted.chat")
            return await relay.frames(record.id)


async def test_a_missing_model_is_a_failure_of_its_own(redis_url: str, tmp_path: Path) -> None:
    frames = await ask_for_missing(tmp_path, redis_url, "fail")

    assert [frame.type for frame in frames] == ["queued", "started", "failed"]
    assert frames[-1].event.code == "model_missing"


async def test_a_missing_model_is_pulled_first_where_the_caller_wants_it(
    redis_url: str, tmp_path: Path
) -> None:
    frames = await ask_for_missing(tmp_path, redis_url, "pull")
    types = list(dict.fromkeys(frame.type for frame in frames))
    phases = [frame.event for frame in frames if frame.type == "phase"]

    assert types == ["queued", "started", "phase", "delta", "done"]
    assert (phases[0].phase, phases[-1].phase) == ("pulling", "loading")
    assert 1.0 in {phase.progress for phase in phases}
