"""What a chunk costs the processes that write and follow it, counted in calls and blocks, not time.

Subjects: relay/publisher.py, relay/subscriber.py, relay/log.py, api_shim/following/event_stream.py.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from types import FrameType
from typing import Any

from support.relay import Relay, relay_on

from api_shim.following.event_stream import to_sse
from contract.events import Delta, Frame
from relay.publisher import AttemptLog

CALLS_A_CHUNK = 120
"""Calls of Python functions, ours and of libraries, of a chunk that is written and read alone: 100
when this was written."""
CALLS_A_CHUNK_OF_MANY = 20
"""The same of a chunk that is written with a hundred others: 16."""
BLOCKS_A_CHUNK = 0.1
"""Blocks of memory that stay allocated after a chunk was read."""


class Calls:
    """Counts calls of Python functions while it is on."""

    def __init__(self) -> None:
        self.count = 0

    def _add(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self.count += 1

    @contextmanager
    def counted(self) -> Generator[None]:
        sys.setprofile(self._add)
        try:
            yield
        finally:
            sys.setprofile(None)


async def read_until(pages: AsyncGenerator[list[Frame], None], text: str) -> int:
    """Render what arrives for a client, up to this chunk; the bytes."""
    size_bytes = 0
    async for frames in pages:
        size_bytes += len(to_sse(frames))
        if frames and text.encode() in frames[-1].body:
            return size_bytes
    raise AssertionError(text)


async def write_and_read(
    log: AttemptLog, pages: AsyncGenerator[list[Frame], None], groups: int, size: int
) -> None:
    for at in range(groups):
        for number in range(size):
            log.append(Delta(content=f"word {at}-{number};"))
        await read_until(pages, f"word {at}-{size - 1};")


async def begun(relay: Relay) -> tuple[AttemptLog, AsyncGenerator[list[Frame], None]]:
    job = await relay.enqueue()
    log = relay.attempt_log(await relay.claim())
    pages = relay.log.follow(job)
    log.append(Delta(content="first;"))
    await read_until(pages, "first;")
    return log, pages


async def calls_a_chunk(relay: Relay, groups: int, size: int) -> float:
    log, pages = await begun(relay)
    async with aclosing(pages):
        await write_and_read(log, pages, 5, size)
        calls = Calls()
        with calls.counted():
            await write_and_read(log, pages, groups, size)
    return calls.count / (groups * size)


async def test_a_chunk_costs_its_processes_no_more_calls_than_its_bound(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(60):
        alone = await calls_a_chunk(relay, groups=200, size=1)
        together = await calls_a_chunk(relay, groups=20, size=100)

        assert alone <= CALLS_A_CHUNK
        assert together <= CALLS_A_CHUNK_OF_MANY


async def test_a_chunk_that_was_read_leaves_no_memory_behind(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(60):
        log, pages = await begun(relay)
        async with aclosing(pages):
            await write_and_read(log, pages, 100, 10)
            gc.collect()
            before = sys.getallocatedblocks()
            await write_and_read(log, pages, 300, 10)
            gc.collect()

            assert sys.getallocatedblocks() - before <= BLOCKS_A_CHUNK * 3000
