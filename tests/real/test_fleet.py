"""A real llama.cpp server behind the whole fleet: queue, Celery worker, log."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest
from support.processes import worker
from support.relay import relay_on

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest, unpack
from contract.events import Frame
from contract.result import fold
from fleet.real.run_llama_server import LlamaServer, running_llama_server

pytestmark = pytest.mark.real
LEASE = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}


def dsn(server: LlamaServer) -> dict[str, str]:
    return {"LLM_LLAMACPP": server.url.replace("http://", "llamacpp://"), **LEASE}


def ask(text: str, **fields: object) -> ChatRequest:
    return ChatRequest(
        model="tiny", messages=(Message(role="user", content=text),), seed=7, **fields
    )


def text(frames: list[Frame]) -> str:
    return fold(frame.event for frame in frames).content


async def test_a_chat_streams_from_a_real_server_and_repeats_with_its_seed(
    redis_url: str, tmp_path: Path, chat_server: LlamaServer
) -> None:
    with worker(redis_url, tmp_path, "llamacpp", **dsn(chat_server)) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            jobs = [
                (await relay.queue.enqueue(ask("tell"), queue="llamacpp.chat"))[0].id
                for _ in range(3)
            ]
            answers = [await relay.frames(job) for job in jobs]
            result = fold(frame.event for frame in answers[0])

            assert result.status == "done"
            assert result.usage is not None
            assert result.usage.completion_tokens > 0
            assert len({text(frames) for frames in answers}) == 1


async def test_the_slots_of_a_real_server_bound_what_it_is_given(
    redis_url: str, tmp_path: Path, chat_server: LlamaServer
) -> None:
    with worker(redis_url, tmp_path, "llamacpp", **dsn(chat_server)) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            slots = {q.name: q.slots for w in await relay.roster.workers() for q in w.queues}
            told = httpx.get(f"{chat_server.root}/props").json()["total_slots"]

            assert slots["llamacpp.chat"] == told == 16


async def test_an_answer_survives_the_death_of_its_worker(
    redis_url: str, tmp_path: Path, chat_server: LlamaServer
) -> None:
    with worker(redis_url, tmp_path, "llamacpp", **dsn(chat_server)) as first:
        async with relay_on(redis_url) as relay:
            await first.ready(relay)
            record, _ = await relay.queue.enqueue(ask("tell"), queue="llamacpp.chat")
            whole = text(await relay.frames(record.id))
            record, _ = await relay.queue.enqueue(ask("tell"), queue="llamacpp.chat")
            async with asyncio.timeout(10):
                while (await relay.records.get(record.id)).status == "queued":
                    await asyncio.sleep(0)
            first.send(signal.SIGKILL)
            with worker(redis_url, tmp_path, "llamacpp", **dsn(chat_server)):
                async with asyncio.timeout(20):
                    frames = await relay.frames(record.id)

            # With a seed, an answer that is continued takes another course (test_continuation.py).
            assert text(frames) == whole or "resumed" in [frame.type for frame in frames]
            assert sum(frame.is_last for frame in frames) == 1


async def test_a_cancel_frees_the_slot_of_a_real_server(
    redis_url: str, tmp_path: Path, chat_server: LlamaServer
) -> None:
    with worker(redis_url, tmp_path, "llamacpp", **dsn(chat_server)) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            record, _ = await relay.queue.enqueue(ask("tell"), queue="llamacpp.chat")
            await relay.queue.cancel(record.id, by="caller")
            async with asyncio.timeout(5), httpx.AsyncClient() as client:
                while any(
                    slot["is_processing"]
                    for slot in (await client.get(f"{chat_server.root}/slots")).json()
                ):
                    await asyncio.sleep(0.02)

            assert (await relay.records.get(record.id)).status == "cancelled"


async def test_embeddings_come_from_a_real_server_in_order(
    redis_url: str, tmp_path: Path, embed_server: LlamaServer
) -> None:
    texts = tuple(f"word {n}" for n in range(40))
    with worker(redis_url, tmp_path, "llamacpp", **dsn(embed_server)) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            rows = []
            for batch in (texts, (texts[0],)):
                request = EmbedRequest(model="tiny", input=batch)
                record, _ = await relay.queue.enqueue(request, queue="llamacpp.embed")
                embeddings = fold(f.event for f in await relay.frames(record.id)).embeddings
                assert embeddings is not None
                assert embeddings.count == len(batch)
                rows.append(unpack(embeddings.data, embeddings.dimension))

            assert rows[0][0] == pytest.approx(rows[1][0], abs=1e-4)
            assert rows[0][0] != pytest.approx(rows[0][1], abs=1e-4)


async def test_turns_of_a_conversation_find_their_prefix_in_their_slot(
    redis_url: str, tmp_path: Path, llama_binary: Path
) -> None:
    said = {name: [Message(role="user", content=f"{name} says hello. " * 9)] for name in "abc"}
    cached: list[int] = []
    with (
        running_llama_server(slots=3) as server,
        worker(redis_url, tmp_path, "llamacpp", **dsn(server)) as one,
    ):
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            for _ in range(3):
                for name, messages in said.items():
                    request = ChatRequest(
                        model="tiny", messages=tuple(messages), conversation=name, max_tokens=8
                    )
                    job, _ = await relay.queue.enqueue(request, queue="llamacpp.chat")
                    result = fold(frame.event for frame in await relay.frames(job.id))
                    assert result.usage is not None
                    cached.append(result.usage.cached_tokens)
                    messages += [
                        Message(role="assistant", content=result.content),
                        Message(role="user", content="And then?"),
                    ]

    # Of the first ones only what all prompts begin with could have been there.
    assert min(cached[3:6]) > max(cached[:3])
    assert min(cached[6:]) > max(cached[3:6])
