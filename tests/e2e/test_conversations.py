"""Conversations on real workers, each beside a server that counts what it finds in its cache.

Subjects: workers/endpoints/prompt_places.py, workers/scripted/catalog.py.
"""

import asyncio
import random
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from support.fleet import scripted_server
from support.processes import WorkerProcess, worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.jobs import JobRecord
from contract.redis_keys import addresses, wake_channel

QUEUE = "box.chat"
PATIENCE_S = 3.0
SLOTS = 4
ANSWER_S = 0.5
MODEL = "scripted-story:chunks=5,rate=10,slots=64"
"""An answer of 0.5 s; the server keeps more prompts than there are conversations."""
LOAD = 0.7
CONVERSATIONS = 24
TURNS = 6


class Site(NamedTuple):
    """A worker, and the server beside it."""

    worker: WorkerProcess
    server: str

    def seen(self) -> dict[str, int]:
        told: dict[str, int] = httpx.get(f"{self.server}/_seen").json()
        return told


@contextmanager
def site(redis_url: str, folder: Path, *, slots: int = SLOTS, **settings: str) -> Iterator[Site]:
    with scripted_server() as server:
        dsn = f"llamacpp://{server.removeprefix('http://')}/v1?slots={slots}"
        with worker(redis_url, folder, "box", LLM_BOX=dsn, **settings) as process:
            yield Site(process, server)


@asynccontextmanager
async def two_sites(
    redis_url: str, folder: Path, *, slots: int = SLOTS, **settings: str
) -> AsyncGenerator[tuple[Relay, list[Site]]]:
    env = {"FLEET_CONVERSATION_PATIENCE_S": f"{PATIENCE_S:g}", **settings}
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relay_on(redis_url))
        sites = []
        for name in "ab":
            (folder / name).mkdir()
            at = site(redis_url, folder / name, slots=slots, **env)
            sites.append(stack.enter_context(at))
        for each in sites:
            await each.worker.ready(relay)
        yield relay, sites


class Conversation:
    """A client that sends one message after another, each with all that was said before."""

    def __init__(self, relay: Relay, name: str, model: str = MODEL) -> None:
        self._relay = relay
        self._name = name
        self._model = model
        self._said: list[Message] = []

    async def say(self, text: str) -> JobRecord:
        self._said.append(Message(role="user", content=f"{self._name} {text}"))
        request = ChatRequest(
            model=self._model, messages=tuple(self._said), conversation=self._name
        )
        job, _ = await self._relay.queue.enqueue(request, queue=QUEUE)
        async with asyncio.timeout(30):
            frames = await self._relay.frames(job.id)
        assert frames[-1].type == "done"
        answer = "".join(f.event.content or "" for f in frames if f.type == "delta")
        self._said.append(Message(role="assistant", content=answer))
        return await self._relay.records.get(job.id)


def waited_s(record: JobRecord) -> float:
    assert record.started_at is not None
    return record.started_at - record.created_at


async def until_nobody_listens(relay: Relay, worker: str) -> None:
    """Wait until Redis has seen that the connections of a worker are closed."""
    async with asyncio.timeout(10):
        channel = wake_channel(worker)
        while (await relay.connection.command("PUBSUB", "NUMSUB", channel))[1]:
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_turns_find_their_prefix_at_seventy_percent_load(
    redis_url: str, tmp_path: Path
) -> None:
    each_s = CONVERSATIONS * ANSWER_S / (2 * SLOTS * LOAD)
    chance = random.Random(7)

    async def talk(relay: Relay, number: int) -> list[float]:
        conversation = Conversation(relay, f"c{number}")
        waits = []
        for turn in range(TURNS):
            await asyncio.sleep(chance.expovariate(1 / (each_s - ANSWER_S)))
            waits.append(waited_s(await conversation.say(f"turn {turn}")))
        return waits

    async with two_sites(redis_url, tmp_path) as (relay, sites):
        talks = await asyncio.gather(*(talk(relay, number) for number in range(CONVERSATIONS)))
        seen = [each.seen() for each in sites]
    turns, hits = (sum(each[name] for each in seen) for name in ("turns", "prefix_hits"))
    waits = sorted(wait for waits in talks for wait in waits)

    assert turns == CONVERSATIONS * (TURNS - 1)
    assert hits >= 0.95 * turns
    assert all(each["turns"] > turns / 5 for each in seen), "both servers have their share"
    assert waits[-1] < PATIENCE_S + 1


async def test_a_conversation_stays_with_its_server_and_leaves_a_dead_one_once(
    redis_url: str, tmp_path: Path
) -> None:
    async with two_sites(redis_url, tmp_path) as (relay, sites):
        conversation = Conversation(relay, "c")
        workers = [(await conversation.say(f"turn {turn}")).worker for turn in range(4)]
        home = next(each for each in sites if each.worker.name == workers[0])
        home.worker.send(signal.SIGKILL)
        await until_nobody_listens(relay, home.worker.name)
        moved = [await conversation.say(f"later {turn}") for turn in range(3)]
        other = next(each for each in sites if each is not home)

        assert set(workers) == {home.worker.name}
        assert {record.worker for record in moved} == {other.worker.name}
        assert all(waited_s(record) < PATIENCE_S + 1 for record in moved)
        assert (other.seen()["turns"], other.seen()["prefix_hits"]) == (3, 2)


@pytest.mark.slow
async def test_an_idle_worker_begins_a_message_that_another_was_offered(
    redis_url: str, tmp_path: Path
) -> None:
    # After a pause no worker has a session: a ticket may wake the wrong one.
    async with two_sites(redis_url, tmp_path) as (relay, _):
        first = Conversation(relay, "c")
        home = (await first.say("hello")).worker
        await asyncio.sleep(12)
        again = [await Conversation(relay, "c").say(f"{n}") for n in range(3)]

        assert {record.worker for record in again} == {home}
        assert all(waited_s(record) < 1 for record in again)


async def test_a_message_waits_no_longer_than_the_patience_for_a_busy_server(
    redis_url: str, tmp_path: Path
) -> None:
    slow = "scripted-story:chunks=120,rate=20,slots=64"
    async with two_sites(redis_url, tmp_path, slots=1) as (relay, sites):
        home = (await Conversation(relay, "c").say("hello")).worker
        blocked = ChatRequest(
            model=slow, messages=(Message(role="user", content="long"),), conversation="c"
        )
        await relay.queue.enqueue(blocked, queue=QUEUE)
        record = await Conversation(relay, "c").say("hello again")

        assert record.worker in {each.worker.name for each in sites} - {home}
        assert PATIENCE_S - 0.5 < waited_s(record) < PATIENCE_S + 1


async def test_nobody_waits_for_a_worker_that_stops(redis_url: str, tmp_path: Path) -> None:
    slow = "scripted-story:chunks=120,rate=20,slots=64"
    async with two_sites(redis_url, tmp_path, FLEET_DRAIN_S="20") as (relay, sites):
        first = Conversation(relay, "c")
        home = (await first.say("hello")).worker
        long = ChatRequest(
            model=slow, messages=(Message(role="user", content="long"),), conversation="c"
        )
        running, _ = await relay.queue.enqueue(long, queue=QUEUE)
        async with asyncio.timeout(10):
            while (await relay.records.get(running.id)).status != "running":
                await asyncio.sleep(0.05)
        stopping = next(each.worker for each in sites if each.worker.name == home)
        stopping.send(signal.SIGTERM)
        async with asyncio.timeout(3):
            while await relay.connection.command("HLEN", addresses(QUEUE)) > 1:
                await asyncio.sleep(0.02)
        record = await first.say("hello again")

        assert record.worker != home
        assert waited_s(record) < 1


async def test_slots_of_llama_server_are_named_while_they_suffice(
    redis_url: str, tmp_path: Path
) -> None:
    async with relay_on(redis_url) as relay:
        with site(redis_url, tmp_path) as one:
            await one.worker.ready(relay)
            some = [Conversation(relay, f"c{number}") for number in range(SLOTS)]
            for turn in range(2):
                for conversation in some:
                    await conversation.say(f"turn {turn}")
            named = one.seen()["named_slots"]
            await Conversation(relay, "one more").say("than there are slots")
            await some[0].say("is anybody there?")

            assert named == 2 * SLOTS
            assert one.seen()["named_slots"] == named
            assert one.seen()["prefix_hits"] == SLOTS + 1


async def test_queued_messages_run_in_order_over_two_workers(
    redis_url: str, tmp_path: Path
) -> None:
    async with two_sites(redis_url, tmp_path) as (relay, _):
        records = []
        for number in range(6):
            request = ChatRequest(
                model=MODEL,
                messages=(Message(role="user", content=f"{number}"),),
                conversation="c",
                conversation_policy="queue",
            )
            records.append((await relay.queue.enqueue(request, queue=QUEUE))[0])
        for record in records:
            async with asyncio.timeout(20):
                await relay.frames(record.id)
        done = [await relay.records.get(record.id) for record in records]

        for one, next_one in pairwise(done):
            assert one.ended_at is not None
            assert next_one.started_at is not None
            assert one.ended_at <= next_one.started_at
