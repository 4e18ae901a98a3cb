"""Two workers, one model: who has it in memory, and how the other gets it (a real Redis server)."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support.in_process import answer, ask, needed
from support.relay import Relay, relay_on

from contract import redis_keys
from contract.events import Delta, Phase
from fleet.real.tiny_model import TinyShape, tiny_model, write_model
from relay.model_leases import ModelLeases
from workers.backends.in_process.adapter import InMemory
from workers.backends.in_process.llamacpp import llama

needed("llama_cpp")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    shutil.copy(tiny_model(), place / "tiny.gguf")
    write_model(place / "talkative.gguf", TinyShape(mean_answer_tokens=1_000_000_000))
    return place


@asynccontextmanager
async def worker(relay: Relay, name: str, folder: Path) -> AsyncGenerator[InMemory]:
    async with aclosing(llama("llama", folder, {"threads": "1", "n_ctx": "8192"})) as backend:
        backend.use_model_lease(ModelLeases(relay.connection, "llama", name))
        yield backend


async def owner(relay: Relay, model: str = "tiny") -> str | None:
    told = await relay.connection.command("HGET", redis_keys.residence("llama", model), "owner")
    return told.decode() if told else None


async def test_a_model_in_memory_is_its_workers_until_the_end(redis_url: str, folder: Path) -> None:
    async with relay_on(redis_url) as relay:
        async with worker(relay, "w1", folder) as first:
            await answer(first, ask(max_tokens=1))
            while_it_lives = await owner(relay)
        after = await owner(relay)

    assert (while_it_lives, after) == ("w1", None)


async def test_another_model_frees_the_first(redis_url: str, folder: Path) -> None:
    async with relay_on(redis_url) as relay, worker(relay, "w1", folder) as first:
        await answer(first, ask(max_tokens=1))
        await answer(first, ask(model="talkative", max_tokens=1))
        held = [await owner(relay, model) for model in ("tiny", "talkative")]

    assert held == [None, "w1"]


async def test_an_idle_owner_makes_room_for_who_has_a_job(redis_url: str, folder: Path) -> None:
    async with (
        relay_on(redis_url, renew_s=0.1) as relay,
        worker(relay, "w1", folder) as first,
        worker(relay, "w2", folder) as second,
    ):
        await answer(first, ask(max_tokens=1))
        async with asyncio.timeout(5):
            await answer(second, ask(max_tokens=1))
        warm = [[r.name for r in await b.models() if r.warm] for b in (first, second)]
        held = await owner(relay)

    assert (warm, held) == ([[], ["tiny"]], "w2")


async def test_a_busy_owner_ends_its_answer_first(redis_url: str, folder: Path) -> None:
    async with (
        relay_on(redis_url, renew_s=0.05) as relay,
        worker(relay, "w1", folder) as first,
        worker(relay, "w2", folder) as second,
    ):
        await answer(first, ask(model="talkative", max_tokens=1))
        stream = first.chat(ask(model="talkative"))
        await anext(stream)
        waiting = second.chat(ask(model="talkative", max_tokens=1))
        assert await anext(waiting) == Phase(phase="loading")
        word = asyncio.create_task(anext(waiting))
        await asyncio.sleep(0.4)
        assert not word.done()
        while_it_talks = await owner(relay, "talkative")
        await stream.aclose()
        async with asyncio.timeout(5):
            assert isinstance(await word, Delta)
        then = await owner(relay, "talkative")
        await waiting.aclose()

    assert (while_it_talks, then) == ("w1", "w2")


async def test_two_workers_that_both_have_jobs_both_get_through(
    redis_url: str, folder: Path
) -> None:
    async with (
        relay_on(redis_url, renew_s=0.05) as relay,
        worker(relay, "w1", folder) as first,
        worker(relay, "w2", folder) as second,
        asyncio.timeout(20),
    ):
        jobs = [answer(b, ask(max_tokens=3, seed=1)) for _ in range(10) for b in (first, second)]
        answers = await asyncio.gather(*jobs)

    assert len(answers) == 20


async def test_a_deadline_ends_the_wait(redis_url: str, folder: Path) -> None:
    async with (
        relay_on(redis_url) as relay,
        worker(relay, "w1", folder) as first,
        worker(relay, "w2", folder) as second,
    ):
        await answer(first, ask(max_tokens=1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await answer(second, ask(max_tokens=1))
        text, _ = await answer(first, ask(max_tokens=3, seed=1))

    assert text


async def test_the_model_of_a_dead_worker_comes_free(redis_url: str, folder: Path) -> None:
    async with relay_on(redis_url) as relay, worker(relay, "w2", folder) as second:
        key = redis_keys.residence("llama", "tiny")
        await relay.connection.command("HSET", key, "owner", "dead")
        await relay.connection.command("PEXPIRE", key, 400)
        async with asyncio.timeout(5):
            text, _ = await answer(second, ask(max_tokens=3, seed=1))

        assert text
        assert await owner(relay) == "w2"
