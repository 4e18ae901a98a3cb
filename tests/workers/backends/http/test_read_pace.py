"""How often a stream is read beside very many others."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import pairwise

import pytest

from workers.backends.http.client import BackendClient, BackendResponse
from workers.backends.http.read_pace import ReadPace

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def talkative(pause_s: float) -> AsyncGenerator[BackendClient]:
    """A server whose streams send a byte in each so many seconds, without an end."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            while not writer.is_closing():
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(pause_s)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    client = BackendClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        yield client
    finally:
        await client.aclose()
        listener.close()


async def read_times(answer: BackendResponse, reads: int) -> list[float]:
    """When each of the reads after the first had come."""
    times: list[float] = []
    async with aclosing(answer.packets()) as packets:
        async for _ in packets:
            answer.start_idle_timeout(60)
            times.append(asyncio.get_running_loop().time())
            if len(times) == reads:
                break
    return times


@pytest.mark.parametrize(
    ("streams", "interval_s"), [(1, 0.0), (200, 0.0), (201, 0.0201), (500, 0.05), (5000, 0.1)]
)
def test_the_interval_grows_with_the_streams_up_to_a_tenth_of_a_second(
    streams: int, interval_s: float
) -> None:
    pace = ReadPace()
    pace.streams = streams

    assert pace.interval_s == pytest.approx(interval_s)


async def test_beside_very_many_a_stream_is_read_at_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.backends.http.read_pace._FEW", 2)
    monkeypatch.setattr("workers.backends.http.read_pace._READS_PER_S", 60)  # 3 streams: 50 ms
    async with talkative(0.005) as client, AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(client.open("GET", "/")) for _ in range(3)]
        found = await asyncio.gather(*(read_times(answer, 7) for answer in opened))

    for times in found:
        assert all(later - earlier >= 0.04 for earlier, later in pairwise(times[3:]))


async def test_a_stream_that_has_ended_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.backends.http.read_pace._FEW", 0)
    async with talkative(0.001) as client:
        for _ in range(3):
            async with client.open("GET", "/") as answer:
                await read_times(answer, 2)
        async with client.open("GET", "/") as answer:
            pace = answer._pace
            await read_times(answer, 1)
            assert pace.streams == 1
        assert pace.streams == 0


async def test_a_whole_answer_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.backends.http.read_pace._FEW", 0)
    monkeypatch.setattr("workers.backends.http.read_pace._READS_PER_S", 1)
    async with talkative(0.001) as client, client.open("GET", "/") as answer:
        async with asyncio.timeout(2):
            assert len(await answer.read(50)) == 50
