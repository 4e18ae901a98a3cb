"""One model with several context lengths at an Ollama: never beside each other, none starves."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.answers import Server, answering, lines
from support.processes import worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest
from contract.events import Failed
from workers.scripted.http import Reply, StreamedReply

SLOW = {"FLEET_REAP_S": "60", "FLEET_AFFINITY_PATIENCE_S": "0.5"}


class Runner:
    """Notes which context lengths its requests ask for while others run."""

    def __init__(self) -> None:
        self.open: list[tuple[float, int | None]] = []
        self.order: list[int | None] = []
        self.mixed: list[tuple[int | None, ...]] = []
        self.most = 0

    def answer(self, body: dict[str, Any]) -> StreamedReply | Reply:
        now = asyncio.get_running_loop().time()
        wanted = (body.get("options") or {}).get("num_ctx")
        self.open = [(end, other) for end, other in self.open if end > now]
        self.open.append((now + 0.16, wanted))  # its last line is sent after 0.2 s
        self.order.append(wanted)
        self.most = max(self.most, len(self.open))
        beside = {other for _, other in self.open}
        if len(beside) > 1:
            self.mixed.append(tuple(beside))
        if "input" in body:
            return Reply(b'{"embeddings":[[1.0]]}', delay_s=0.2)
        return lines("a", "b", gap_s=0.1)


@asynccontextmanager
async def fleet(redis_url: str, folder: Path) -> AsyncGenerator[tuple[Relay, Server, Runner]]:
    runner = Runner()
    async with answering(m=runner.answer) as server, relay_on(redis_url) as relay:
        dsn = f"ollama://127.0.0.1:{server.port}?slots=6"
        with worker(redis_url, folder, "box", LLM_BOX=dsn, **SLOW) as one:
            await one.ready(relay)
            yield relay, server, runner


async def put(relay: Relay, count: int, *lengths: int | None) -> list[str]:
    request = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
    return [
        (
            await relay.queue.enqueue(
                request.model_copy(update={"context_length": length}), queue="box.chat"
            )
        )[0].id
        for _ in range(count)
        for length in lengths
    ]


async def ended(relay: Relay, jobs: list[str]) -> set[str]:
    """How they ended: the last words' types, a failure with its message."""
    async with asyncio.timeout(40):
        logs = await asyncio.gather(*(relay.frames(job) for job in jobs))
    lasts = [frames[-1].event for frames in logs]
    return {event.message if isinstance(event, Failed) else event.type for event in lasts}


async def test_jobs_with_different_context_lengths_never_share_a_runner(
    redis_url: str, tmp_path: Path
) -> None:
    async with fleet(redis_url, tmp_path) as (relay, _, runner):
        jobs = await put(relay, 10, 4096, 8192, None)

        assert await ended(relay, jobs) == {"done"}
        assert runner.mixed == []
        assert runner.most > 1


async def test_nor_do_they_with_two_workers_at_it(redis_url: str, tmp_path: Path) -> None:
    async with fleet(redis_url, tmp_path) as (relay, server, runner):
        dsn = f"ollama://127.0.0.1:{server.port}?slots=6"
        with worker(redis_url, tmp_path, "box", LLM_BOX=dsn, **SLOW) as other:
            await other.ready(relay)
            jobs = await put(relay, 10, 4096, 8192, None)

            assert await ended(relay, jobs) == {"done"}
            starts = [(await relay.records.get(job)).worker for job in jobs]
        assert runner.mixed == []
        assert len(set(starts)) == 2


async def test_nor_do_an_embed_job_and_a_chat(redis_url: str, tmp_path: Path) -> None:
    async with fleet(redis_url, tmp_path) as (relay, _, runner):
        chats = await put(relay, 6, 8192)
        embed = EmbedRequest(model="m", input=("x",))
        embeds = [(await relay.queue.enqueue(embed, queue="box.embed"))[0].id for _ in range(6)]

        assert await ended(relay, [*chats, *embeds]) == {"done"}
        assert runner.mixed == []


async def test_a_flood_of_one_length_does_not_starve_another(
    redis_url: str, tmp_path: Path
) -> None:
    async with fleet(redis_url, tmp_path) as (relay, _, runner):
        flood = await put(relay, 12, 4096)
        (rare,) = await put(relay, 1, 8192)
        flood += await put(relay, 150, 4096)
        await ended(relay, [rare])
        begun = runner.order.index(8192)

        assert runner.mixed == []
        assert begun < 120
        for job in flood:
            await relay.queue.cancel(job, by="test")
