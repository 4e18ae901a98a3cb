"""The load generator: callers that ask one thing after another, streams that start at once."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from statistics import median
from time import perf_counter
from typing import Final, NamedTuple

from bench.targets import Heard, OpenAiShaped, said_by
from bench.wire import BadAnswer, Line, connect

LIMIT_S: Final = 90.0
"""Most that one measurement may take; what takes longer is a failure, not a figure."""
_CONNECT_AT_ONCE: Final = 100


@asynccontextmanager
async def connected(port: int, count: int) -> AsyncGenerator[list[Line]]:
    """Open connections, which are closed at the end."""
    lines: list[Line] = []
    try:
        while len(lines) < count:
            some = min(_CONNECT_AT_ONCE, count - len(lines))
            lines += await asyncio.gather(*(connect(port) for _ in range(some)))
        yield lines
    finally:
        for line in lines:
            line.close()


async def answers_per_s(
    lines: Sequence[Line], request: bytes, sign: bytes, count: int, *, stream: bool = False
) -> float:
    """Answers a second to callers that each ask again as soon as they are answered.

    Raises BadAnswer if one does not contain `sign`, TimeoutError.
    """
    left = iter(range(count))

    async def caller(line: Line) -> None:
        for _ in left:
            answer = await line.ask(request, sign if stream else b"")
            if sign not in answer.body:
                raise BadAnswer(f"{sign!r} is missing in {answer.body[:300]!r}")

    began = perf_counter()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(caller(line))
    return count / (perf_counter() - began)


class Burst(NamedTuple):
    """Streams that started at once, as their callers saw them."""

    first_ms: float
    """The median until the first chunk."""
    chunks_per_s: float
    """Of all together, from the start to the last end."""
    faults: list[str]


async def burst(target: OpenAiShaped, streams: int, model: str, chunks: int) -> Burst:
    """Start streams at once, and check every word of them; raises TimeoutError."""
    async with connected(target.port, streams) as lines:
        with no_gc():
            began = perf_counter()
            async with asyncio.timeout(LIMIT_S):
                heard = await asyncio.gather(
                    *(target.chat(line, model) for line in lines), return_exceptions=True
                )
    good = [each for each in heard if isinstance(each, Heard)]
    if not good:
        raise BadAnswer(f"no stream was answered: {heard[0]!r}")
    took = max(each.answer.ended for each in good) - began
    return Burst(
        median(each.first_s * 1000 for each in good),
        chunks * len(good) / took,
        faults(target, heard, said_by(model)),
    )


def faults(
    target: OpenAiShaped, heard: Sequence[Heard | BaseException], expected: str
) -> list[str]:
    """What is wrong with streams that should all have said the same."""
    found = (
        repr(each) if isinstance(each, BaseException) else target.fault(each, expected)
        for each in heard
    )
    return [fault for fault in found if fault]


@contextmanager
def no_gc() -> Generator[None]:
    """A pause of ours would look like one of theirs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
