"""What a chunk costs in the client, against plain aiohttp in the same run.

    python bench/client.py [--streams 400] [--chunks 100] [--rate 20] [--rounds 3]

Each way of reading runs in this process against the scripted server in another one. The figure is
CPU of this process a chunk, without the cost of the requests (a run with one chunk is taken off);
the least of some rounds, because a busy machine only ever adds.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple

import aiohttp
import uvloop

from contract.chat import ChatRequest, Message
from workers.backends.http.client import BackendClient
from workers.backends.ollama.adapter import Ollama
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import VLLM

PATH = "/v1/chat/completions"


async def plain_aiohttp(url: str, streams: int, model: str) -> None:
    """The yardstick: aiohttp, bytes thrown away."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> None:
            async with session.post(url + PATH, json=body(model)) as response:
                async for _ in response.content.iter_any():
                    pass

        await asyncio.gather(*(one() for _ in range(streams)))


async def our_packets(url: str, streams: int, model: str) -> None:
    """Our client: errors mapped, silence watched; bytes thrown away."""
    client = BackendClient(url)

    async def one() -> None:
        async with client.open("POST", PATH, body(model)) as answer:
            answer.start_idle_timeout(60.0)
            async with aclosing(answer.packets()) as packets:
                async for _ in packets:
                    pass

    await asyncio.gather(*(one() for _ in range(streams)))
    await client.aclose()


async def our_chat(url: str, streams: int, model: str, *, is_ollama: bool) -> None:
    """The whole adapter: decoded, parsed, events made."""
    backend = Ollama("b", url) if is_ollama else OpenAI("b", url + "/v1", VLLM)
    request = ChatRequest(model=model, messages=(Message(role="user", content="hi"),))

    async def one() -> None:
        async with aclosing(backend.chat(request)) as events:
            async for _ in events:
                pass

    await asyncio.gather(*(one() for _ in range(streams)))
    await backend.aclose()


WAYS: dict[str, Callable[[str, int, str], Awaitable[None]]] = {
    "aiohttp, bytes": plain_aiohttp,
    "ours, packets": our_packets,
    "ours, OpenAI.chat to events": lambda *a: our_chat(*a, is_ollama=False),
    "ours, Ollama.chat to events": lambda *a: our_chat(*a, is_ollama=True),
}


def body(model: str) -> dict[str, Any]:
    """A streamed chat."""
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}


def main() -> None:
    """Run every way, and print it beside the yardstick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--rate", type=int, default=20, help="chunks a second and stream")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    command = [sys.executable, "-m", "workers.scripted.server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            measure(url, server.pid, given)
        finally:
            server.terminate()


def measure(url: str, server: int, given: argparse.Namespace) -> None:
    """The table."""
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for _ in range(given.rounds):
        for name, way in WAYS.items():
            costs[name].append(cost(way, url, server, given))
    print(f"{given.streams} streams x {given.rate}/s, {given.chunks} chunks each, us of CPU")
    yardstick = min(round_.chunk_us for round_ in costs[next(iter(WAYS))])
    for name, rounds in costs.items():
        chunk, request, served = (min(figures) for figures in zip(*rounds, strict=True))
        print(
            f"{name:34} chunk {chunk:5.1f}  x {chunk / yardstick:4.2f}"
            f"   request {request:5.0f}   server's chunk {served:4.1f}"
        )


class Cost(NamedTuple):
    """Microseconds of CPU."""

    chunk_us: float
    request_us: float
    served_us: float


def cost(
    way: Callable[[str, int, str], Awaitable[None]],
    url: str,
    server: int,
    given: argparse.Namespace,
) -> Cost:
    """One round of one way."""
    streams, chunks = given.streams, given.chunks
    model = f"scripted-story:first=0.5,rate={given.rate},chunks="
    short = cpu_s(way, url, streams, f"{model}1")
    served_s = process_cpu_s(server)
    long = cpu_s(way, url, streams, f"{model}{chunks}")
    served_s = process_cpu_s(server) - served_s
    return Cost(
        (long - short) / (streams * (chunks - 1)) * 1e6,
        short / streams * 1e6,
        served_s / (streams * chunks) * 1e6,
    )


def cpu_s(way: Callable[[str, int, str], Awaitable[None]], url: str, n: int, model: str) -> float:
    """CPU seconds of this process for one run."""

    async def run() -> None:
        await way(url, n, model)

    began = time.process_time()
    uvloop.run(run())
    return time.process_time() - began


def process_cpu_s(pid: int) -> float:
    """CPU seconds of another process so far (Linux; elsewhere 0)."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - a line of the kernel
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
