"""The ways to write, read and enqueue that bench/relay_path.py compares: ours and theirs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from time import process_time
from typing import Any, Final

import redis.asyncio
from celery import Celery
from redis.asyncio.client import PubSub

from contract import redis_keys
from contract.chat import ChatRequest, Message
from contract.events import (
    Delta,
    EventId,
    Frame,
)
from contract.jobs import JobRecord
from contract.redis_keys import TICKET_TASK
from contract.wire import VERSION
from relay.claims import StartedJob
from relay.connection import Connection
from relay.publisher import Publisher
from relay.queue import Queue
from relay.subscriber import Subscriber, Subscription

ATTEMPT_LOGS: Final = 500
FRAMES: Final = 10_000
JOBS: Final = 1_000
AT_ONCE: Final = 64
_WORD: Final = Delta(content=" word")
_LIMIT_S: Final = 60.0
_fresh = count()

Cost = tuple[float, float]
"""Microseconds of processor time an item: of this process, of Redis."""
Trial = Callable[["Bench"], Awaitable[None]]


class Bench:
    """One server, our connection to it, and theirs."""

    def __init__(self, url: str, connection: Connection) -> None:
        """Everything connects when first used."""
        self.url = url
        self.connection = connection
        self.theirs = redis.asyncio.Redis.from_url(url, protocol=2)
        self.celery = Celery("bench", broker=url)
        self.celery.conf.task_ignore_result = True

    async def redis_cpu_s(self) -> float:
        """Processor seconds that Redis has used."""
        told = await self.theirs.info("cpu")
        return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])

    async def cost(self, trial: Trial, items: int) -> Cost:
        """Run it once."""
        redis_before, before = await self.redis_cpu_s(), process_time()
        await trial(self)
        spent = process_time() - before
        return spent / items * 1e6, (await self.redis_cpu_s() - redis_before) / items * 1e6


def _logs() -> list[str]:
    run = next(_fresh)
    return [f"{run:016x}{number:016x}" for number in range(ATTEMPT_LOGS)]


async def _claimed(bench: Bench) -> list[StartedJob]:
    """What claims would have made: records with a nonce, and empty logs."""
    ids = _logs()
    await bench.connection.pipeline([("HSET", redis_keys.record(id), "nonce", "n") for id in ids])
    return [StartedJob(_record(id), b"", 0) for id in ids]


def _record(id: str) -> JobRecord:
    return JobRecord(
        id=id, v=VERSION, kind="chat", status="running", queue="bench.chat", backend="bench",
        tenant="default", priority="standard", attempt=1, max_attempts=1, created_at=0.0,
        nonce="n",
    )  # fmt: skip


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncGenerator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def write_ours(bench: Bench, per_tick: int = 100) -> None:
    """relay/publisher.py, with so many words a tick of the loop."""
    writer = Publisher(bench.connection)
    attempt_logs = [writer.attempt_log(claim) for claim in await _claimed(bench)]
    async with _beside(writer.write()):
        for number in range(FRAMES):
            attempt_logs[number % ATTEMPT_LOGS].append(_WORD)
            if number % per_tick == 0:
                await asyncio.sleep(0.001)
        for attempt_log in attempt_logs:
            await attempt_log.flush()


async def write_calls(bench: Bench) -> None:
    """redis-py, XADD and PUBLISH for each word."""
    ids = _logs()
    for number in range(FRAMES // 5):
        log, frame = ids[number % ATTEMPT_LOGS], _frame(number)
        await bench.theirs.xadd(redis_keys.log(log), {"f": frame})
        await bench.theirs.publish(redis_keys.channel(log), frame)


async def write_pipeline(bench: Bench) -> None:
    """redis-py, 64 words a pipeline."""
    ids = _logs()
    for begin in range(0, FRAMES, 64):
        async with bench.theirs.pipeline(transaction=False) as pipe:
            for number in range(begin, begin + 64):
                log, frame = ids[number % ATTEMPT_LOGS], _frame(number)
                pipe.xadd(redis_keys.log(log), {"f": frame})
                pipe.publish(redis_keys.channel(log), frame)
            await pipe.execute()


def _frame(number: int) -> bytes:
    return Frame.of(EventId(1, number + 2), 0.0, _WORD).to_wire()


_SAY_ALL: Final = """
for i = 1, ARGV[1] do redis.call('PUBLISH', KEYS[i], ARGV[2]) end
"""


async def _say_all(bench: Bench, channels: list[str]) -> None:
    """Have Redis say FRAMES messages by itself, in waves that a listener can follow."""
    for number in range(FRAMES // ATTEMPT_LOGS):
        await bench.connection.run(_SAY_ALL, channels, [ATTEMPT_LOGS, _frame(number)])
        await asyncio.sleep(0.005)


async def read_ours(bench: Bench) -> None:
    """relay/subscriber.py, a follower a channel."""
    reader, channels = Subscriber(bench.connection), [redis_keys.channel(id) for id in _logs()]
    heard, ready, all_heard = [0], asyncio.Semaphore(0), asyncio.Event()

    async def follow(channel: str) -> None:
        async with reader.subscribe(channel) as subscription:
            subscription.catch_up()
            ready.release()
            while True:
                await subscription.wait(30)
                heard[0] += _drained(subscription)
                if heard[0] >= FRAMES:
                    all_heard.set()

    async with _beside(reader.listen()), _beside(_all_of(map(follow, channels))):
        for _ in channels:
            await ready.acquire()
        await _say_all(bench, channels)
        async with asyncio.timeout(_LIMIT_S):
            await all_heard.wait()


def _drained(subscription: Subscription) -> int:
    return sum(message.count(b"\n") + 1 for message in subscription.take())


async def _all_of(works: Any) -> None:
    await asyncio.gather(*works)


async def read_alone(bench: Bench) -> None:
    """The same without anybody who waits: parsing, and finding the follower."""
    reader, channels = Subscriber(bench.connection), [redis_keys.channel(id) for id in _logs()]
    async with _beside(reader.listen()), AsyncExitStack() as stack, asyncio.timeout(_LIMIT_S):
        hearing = (stack.enter_async_context(reader.subscribe(channel)) for channel in channels)
        subscriptions = await asyncio.gather(*hearing)
        for subscription in subscriptions:
            subscription.catch_up()
        await _say_all(bench, channels)
        while sum(len(subscription.messages) for subscription in subscriptions) < FRAMES:  # noqa: ASYNC110 - nobody is woken
            await asyncio.sleep(0.005)


async def read_pubsub(bench: Bench) -> None:
    """redis-py's PubSub, one for all channels, with a queue and a follower for each."""
    queues = {redis_keys.channel(id).encode(): asyncio.Queue[bytes]() for id in _logs()}
    channels = [name.decode() for name in queues]

    async def follow(queue: asyncio.Queue[bytes]) -> None:
        while True:
            async with asyncio.timeout(30):
                await queue.get()

    async with bench.theirs.pubsub() as pubsub, asyncio.timeout(_LIMIT_S):
        await pubsub.subscribe(*channels)
        await _hear(pubsub, "subscribe", ATTEMPT_LOGS, queues)
        async with (
            _beside(_all_of(map(follow, queues.values()))),
            _beside(_say_all(bench, channels)),
        ):
            await _hear(pubsub, "message", FRAMES, queues)


async def _hear(
    pubsub: PubSub, type: str, wanted: int, queues: dict[bytes, asyncio.Queue[bytes]]
) -> None:
    heard = 0
    while heard < wanted:
        message = await pubsub.get_message(timeout=1)
        if message is not None and message["type"] == type:
            heard += 1
            if type == "message":
                queues[message["channel"]].put_nowait(message["data"])


def _chat() -> ChatRequest:
    return ChatRequest(backend="bench", model="m", messages=(Message(role="user", content="hi"),))


async def enqueue_ours(bench: Bench) -> None:
    """relay/queue.py: record, log, backlog and ticket; 64 callers."""
    queue, left = Queue(bench.connection), iter(range(JOBS))

    async def call() -> None:
        for _ in left:
            await queue.enqueue(_chat(), queue="bench.chat")

    await asyncio.gather(*(call() for _ in range(AT_ONCE)))


async def enqueue_celery(bench: Bench) -> None:
    """Celery's own way: a message, and nothing else. It blocks the loop."""
    body = _chat().model_dump(mode="json")
    for _ in range(JOBS):
        bench.celery.send_task(TICKET_TASK, kwargs=body, queue="theirs")


TRIALS: Final[dict[str, list[tuple[str, Trial, int]]]] = {
    "write a chunk": [
        ("relay/publisher.py", write_ours, FRAMES),
        ("redis-py, XADD and PUBLISH a call", write_calls, FRAMES // 5),
        ("redis-py, 64 a pipeline", write_pipeline, FRAMES),
    ],
    "read a chunk": [
        ("relay/subscriber.py", read_ours, FRAMES),
        ("relay/subscriber.py, no follower awake", read_alone, FRAMES),
        ("redis-py PubSub and queues", read_pubsub, FRAMES),
    ],
    "enqueue a job": [
        ("relay/queue.py", enqueue_ours, JOBS),
        ("Celery apply_async", enqueue_celery, JOBS),
    ],
}
