"""Cancel while a real worker waits for its backend: in each phase the socket is closed at once."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from support.fleet import scripted_server
from support.processes import WorkerProcess, worker
from support.queues import nothing_waits
from support.redis_server import RedisServer
from support.relay import Relay, relay_on
from support.shim import serving

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest
from contract.events import Frame
from contract.images import ImageRequest
from contract.jobs import AnyRequest
from contract.models import PullRequest
from contract.result import fold

CLOSED_WITHIN_S = 10.0
"""Of a busy machine; what else would close it, a renewal, comes after 55 s (`ALONE`)."""
TALKATIVE = "scripted-story:chunks=5000,rate=20"
DRAWING = "scripted-image:chunks=99,rate=9 a cat"
ALONE = {"FLEET_LEASE_S": "120", "FLEET_RENEW_S": "55", "FLEET_REAP_S": "60"}
"""No renewal and no reaper comes in time to help."""


@dataclass(frozen=True)
class Fleet:
    """Workers of three types, all next to one scripted server."""

    redis_url: str
    server: str
    workers: list[WorkerProcess]

    def seen(self, what: str) -> int:
        return int(httpx.get(f"{self.server}/_seen").json()[what])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        server = stack.enter_context(scripted_server())
        address = server.removeprefix("http://")
        dsns = {
            "ollama": f"ollama://{address}?slots=64",
            "openai": f"openai+http://key@{address}/v1",
            "a1111": f"a1111://{address}",
        }
        workers = [
            stack.enter_context(
                worker(redis.url, folder, name, **{f"LLM_{name.upper()}": dsn}, **ALONE)
            )
            for name, dsn in dsns.items()
        ]
        yield Fleet(redis.url, server, workers)


@asynccontextmanager
async def shared(fleet: Fleet) -> AsyncGenerator[Relay]:
    """The relay, when all workers are there; nothing may be left in it afterwards."""
    async with relay_on(fleet.redis_url) as relay:
        await asyncio.gather(*(one.ready(relay) for one in fleet.workers))
        yield relay
        await nothing_waits(relay)


async def until(is_true: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_true():
            await asyncio.sleep(0.01)


def ask(model: str, **fields: object) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)


async def enqueue(relay: Relay, request: AnyRequest, backend: str = "ollama") -> str:
    record, _ = await relay.queue.enqueue(request, queue=f"{backend}.{request.kind}")
    return record.id


async def until_said(relay: Relay, job: str, *types: str) -> None:
    async with asyncio.timeout(15), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            if {frame.type for frame in frames} & set(types):
                return


async def heard(relay: Relay, job: str) -> list[Frame]:
    async with asyncio.timeout(15):
        return await relay.frames(job)


@pytest.mark.parametrize(
    ("backend", "request_", "said"),
    [
        pytest.param("ollama", ask("scripted-story:load=60"), "started", id="loading"),
        pytest.param("openai", ask("scripted-story:first=60"), "started", id="prefill"),
        pytest.param("ollama", ask(TALKATIVE), "delta", id="streaming"),
        pytest.param("openai", ask("scripted-think:think=900,rate=20"), "delta", id="thinking"),
        # ollama #13142: a pull could not be cancelled.
        pytest.param("ollama", PullRequest(model="scripted-story:rate=4"), "progress", id="pull"),
        pytest.param(
            "ollama", EmbedRequest(model="scripted-embed:first=60", input=("a",)), "started",
            id="embed",
        ),
        pytest.param(
            "openai", ImageRequest(model="scripted-image:first=60", prompt="a cat"), "started",
            id="image",
        ),
        pytest.param(
            "a1111", ImageRequest(model="scripted-image", prompt=DRAWING), "phase",
            id="drawing",
        ),
    ],
)  # fmt: skip
async def test_the_backends_socket_is_closed(
    fleet: Fleet, backend: str, request_: AnyRequest, said: str
) -> None:
    async with shared(fleet) as relay:
        aborted = fleet.seen("aborted")
        job = await enqueue(relay, request_, backend)
        await until_said(relay, job, said)
        await until(lambda: fleet.seen("open") == 1)
        record = await relay.queue.cancel(job, by="caller", reason="enough")
        await until(lambda: fleet.seen("open") == 0, CLOSED_WITHIN_S)
        frames = await heard(relay, job)

        assert ("cancelled", record) == (record.status, await relay.queue.cancel(job, by="again"))
        assert (frames[-1].type, frames[-1].event.reason) == ("cancelled", "enough")
        assert said in {frame.type for frame in frames}
        assert fleet.seen("aborted") == aborted + 1
        if said == "delta":
            answer = fold(frame.event for frame in frames)
            assert answer.content or answer.thinking


async def test_a_job_that_has_just_begun_is_stopped_as_well(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        jobs = [await enqueue(relay, ask("scripted-story:first=60")) for _ in range(60)]

        async def cancel(job: str) -> str:
            await until_said(relay, job, "started")
            return (await relay.queue.cancel(job, by="caller")).status

        assert {"cancelled"} == set(await asyncio.gather(*map(cancel, jobs)))
        await until(lambda: fleet.seen("open") == 0, CLOSED_WITHIN_S)


async def test_a_cancel_that_races_with_the_end_agrees_with_the_log(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        # The first cannot have ended and the last has: whatever the machine does, both are seen.
        short = "scripted-story:chunks=4,rate=400"
        jobs = [await enqueue(relay, ask(model)) for model in (TALKATIVE, *[short] * 59)]

        async def cancel(at: int, job: str) -> str:
            await until_said(relay, job, "done" if at == len(jobs) - 1 else "started")
            await asyncio.sleep(at / 60 * 0.02)
            return (await relay.queue.cancel(job, by="caller")).status

        told = await asyncio.gather(*(cancel(*each) for each in enumerate(jobs)))
        logs = [await heard(relay, job) for job in jobs]

        assert told == [frames[-1].type for frames in logs]
        assert {1} == {sum(frame.is_last for frame in frames) for frames in logs}
        assert (told[0], told[-1]) == ("cancelled", "done")


async def test_a_chat_that_waits_for_a_pull_ends_and_the_pull_continues(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        model = "scripted-story:rate=12,chunks=3,fail=missing,times=1"
        chat = await enqueue(relay, ask(model, on_missing="pull"))
        await until_said(relay, chat, "phase")
        record = await relay.queue.cancel(chat, by="caller")
        pull = await enqueue(relay, PullRequest(model=model))

        assert record.status == "cancelled"
        assert (await heard(relay, chat))[-1].type == "cancelled"
        assert (await heard(relay, pull))[-1].type == "done"
        assert len((await relay.records.page(kind="pull", status="done")).jobs) == 1


async def test_who_waits_for_a_pull_that_is_cancelled_fails(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        model = "scripted-story:rate=4,chunks=4,fail=missing,times=1"
        chat = await enqueue(relay, ask(model, on_missing="pull"))
        await until_said(relay, chat, "phase")
        pull = await enqueue(relay, PullRequest(model=model))
        await until_said(relay, pull, "progress")
        await relay.queue.cancel(pull, by="caller")
        frames = await heard(relay, chat)
        await until(lambda: fleet.seen("open") == 0, CLOSED_WITHIN_S)

        assert frames[-1].event.code == "model_missing"
        assert "cancelled" in frames[-1].event.message


async def test_stop_works_through_any_shim(fleet: Fleet) -> None:
    # open-webui #14340, #19840: stop pressed on another replica knew no such task.
    with serving(fleet.redis_url) as here, serving(fleet.redis_url) as there:
        async with shared(fleet) as relay, httpx.AsyncClient(timeout=60) as http:
            body = {"model": TALKATIVE, "backend": "ollama", "messages": [USER]}
            job = (await http.post(f"{here}/api/v1/jobs/chat", json=body)).json()["id"]
            async with http.stream("GET", f"{here}/api/v1/jobs/{job}/events") as response:
                await until_said(relay, job, "delta")
                first = await http.delete(f"{there}/api/v1/jobs/{job}")
                again = await http.delete(f"{here}/api/v1/jobs/{job}")
                rest = (await response.aread()).decode()
            await until(lambda: fleet.seen("open") == 0, CLOSED_WITHIN_S)

            assert (first.status_code, first.json()["status"]) == (200, "cancelled")
            assert first.json() == again.json()
            assert rest.count("event: cancelled") == 1


USER = {"role": "user", "content": "tell"}
