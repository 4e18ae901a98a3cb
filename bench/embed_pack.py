"""Texts a second of embed jobs: one request a text, packed by the worker, batches made by hand.

    python -m bench.embed_pack [--rounds 3] [--texts 256]

Real models: all-MiniLM-L6-v2 in the worker's own process, and a real llama-server with a model of
random weights. Each is measured twice: at the worker's own door, without queue, Redis or HTTP to
callers, and through the whole fleet (POST /v1/embeddings, a job each). All ways of
one column take turns in one run, because a busy machine slows all of them; no text comes twice.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import psutil
import uvloop
from pydantic_core import from_json

from bench.machine import described, load
from bench.processes import environment, redis, started, wait_for
from bench.sections import put
from bench.wire import Line, connect, get, post
from contract.embeddings import EmbedRequest
from fleet.demo import minilm
from fleet.local.process import commands
from fleet.local.redis_server import free_port
from fleet.real.cache import cache_folder
from fleet.real.run_llama_server import running_llama_server
from fleet.real.tiny_model import TinyShape, write_model
from workers.backends.in_process.onnx import LocalEmbed
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import LLAMACPP
from workers.backends.protocols import Embed
from workers.embedding.packer import Packer, PackingRules

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
BATCH: Final = 32
AT_ONCE: Final = 64
"""Callers with one text each; with batches there are a quarter as many."""
SHAPE: Final = TinyShape(width=256, layers=3, heads=4, inner=768, context=2048)
WORDS: Final = Path(minilm.__file__).with_name("sentences.txt").read_text().split()
LENGTHS: Final = (4, 8, 8, 16, 16, 32)
"""Words of a text."""
WAYS: Final = (
    "one request a text",
    "one text a job, packed",
    f"batches of {BATCH} made by hand",
    f"batches of {BATCH} made by hand, packed",
)
SLOTS: Final = {"all-MiniLM-L6-v2, in the worker": 1, "llama-server": 4}
"""Requests at once: the defaults of the two types (workers/config.py)."""

Send = Callable[[Sequence[str]], Awaitable[None]]
"""Embeds some texts as one job."""


@dataclass(frozen=True)
class Way:
    """How texts are embedded."""

    send: Send
    texts_a_job: int
    at_once: int


def ways(plain: Send, packed: Send) -> dict[str, Way]:
    """One text a job and a batch a job, each without packing and with it."""
    jobs = ((plain, 1), (packed, 1), (plain, BATCH), (packed, BATCH))
    return {
        name: Way(send, size, AT_ONCE if size == 1 else AT_ONCE // 4)
        for name, (send, size) in zip(WAYS, jobs, strict=True)
    }


def texts(count: int, chance: random.Random) -> list[str]:
    """Texts that have not come before."""
    return [" ".join(chance.choices(WORDS, k=chance.choice(LENGTHS))) for _ in range(count)]


class Score(NamedTuple):
    """What was measured of one way."""

    texts_per_s: float
    cpu_ms: float
    """Processor time a text, of all processes but the load generator; it hardly depends on what
    else the machine does."""


async def score(way: Way, texts: Sequence[str], watched: Sequence[psutil.Process]) -> Score:
    """Embed these texts."""
    starts = range(0, len(texts), way.texts_a_job)
    jobs = iter([texts[start : start + way.texts_a_job] for start in starts])

    async def caller() -> None:
        for job in jobs:
            await way.send(job)

    began, used_s = time.perf_counter(), cpu_s(watched)
    await asyncio.gather(*(caller() for _ in range(way.at_once)))
    took_s, used_s = time.perf_counter() - began, cpu_s(watched) - used_s
    return Score(len(texts) / took_s, 1000 * used_s / len(texts))


def cpu_s(watched: Sequence[psutil.Process]) -> float:
    """Processor seconds that these have used so far."""
    return sum(times.user + times.system for times in (each.cpu_times() for each in watched))


async def scores(
    ways: Mapping[str, Way], watched: Sequence[psutil.Process], given: argparse.Namespace
) -> "Column":
    """Medians of rounds in which all take turns, each time in another order; one to warm up."""
    chance = random.Random(1)
    found: dict[str, list[Score]] = {name: [] for name in ways}
    for number in range(given.rounds + 1):
        for name in random.sample(list(ways), len(ways)):
            measured = await score(ways[name], texts(given.texts, chance), watched)
            if number:
                found[name].append(measured)
    return {
        name: Score(median(s.texts_per_s for s in each), median(s.cpu_ms for s in each))
        for name, each in found.items()
    }


@asynccontextmanager
async def at_the_worker(backend: Embed, model: str, slots: int) -> AsyncGenerator[dict[str, Way]]:
    """The adapter with as many jobs at once as it has slots, and a packer over it."""
    packer, free = Packer(backend, PackingRules(max_requests=slots)), asyncio.Semaphore(slots)

    async def plain(job: Sequence[str]) -> None:
        async with free:
            await embed(backend, model, job)

    async def packed(job: Sequence[str]) -> None:
        await embed(packer, model, job)

    async def packs() -> bool:
        return packer.packs(model) is True

    await until(packs, packed)
    try:
        yield ways(plain, packed)
    finally:
        await packer.aclose()


async def embed(backend: Embed, model: str, job: Sequence[str]) -> None:
    """Embed to the last word."""
    request = EmbedRequest(model=model, input=tuple(job))
    async with aclosing(backend.embed(request)) as events:
        kinds = [event.type async for event in events]
    assert kinds[-1] == "done"


async def until(packs: Callable[[], Awaitable[bool]], send: Send) -> None:
    """Send texts until it is known that they may share requests; raises TimeoutError."""
    async with asyncio.timeout(120):
        while not await packs():
            await asyncio.gather(*(send([f"warm up {number}"]) for number in range(16)))


@asynccontextmanager
async def through_the_fleet(port: int, model: str) -> AsyncGenerator[dict[str, Way]]:
    """Callers of one shim, with two workers behind it: one packs, the other does not."""

    async def ask(backend: str, job: Sequence[str]) -> None:
        body = {"model": model, "input": list(job), "encoding_format": "base64"}
        async with line(port) as one:
            await one.ask(post("/v1/embeddings", body, {"x-fleet-backend": backend}), b"embedding")

    async def plain(job: Sequence[str]) -> None:
        await ask("plain", job)

    async def packed(job: Sequence[str]) -> None:
        await ask("packed", job)

    async def packs() -> bool:
        async with line(port) as one:
            answer = await one.ask(get("/api/v1/models", "application/json"))
        models = from_json(answer.body)["models"]
        return any(each["backend"] == "packed" and each.get("packs") for each in models)

    await until(packs, packed)
    yield ways(plain, packed)


@asynccontextmanager
async def line(port: int) -> AsyncGenerator[Line]:
    """A connection for one exchange: a server closes those that were idle for long."""
    one = await connect(port)
    try:
        yield one
    finally:
        one.close()


@contextmanager
def fleet(folder: Path, dsn: str) -> Generator[tuple[int, list[psutil.Process]]]:
    """Redis, one shim, two workers for one backend; yields the shim's port, and all of them."""
    folder.mkdir()
    with ExitStack() as stack:
        url, server = stack.enter_context(redis(folder / "redis"))
        port = free_port()
        own = environment(FLEET_REDIS_URL=url, FLEET_PORT=str(port))
        shim = stack.enter_context(started("shim", commands()["shim"], own, folder))
        running = [server, shim]
        for name, packs in (("plain", "false"), ("packed", "true")):
            variables = own | {
                f"LLM_{name.upper()}": dsn,
                "FLEET_WORKER_BACKEND": name,
                "FLEET_WORKER_NAME": f"bench-{name}",
                "FLEET_EMBED_PACK": packs,
            }
            worker = started(name, commands()["worker"], variables, folder)
            running.append(stack.enter_context(worker))
        wait_for(shim, port, "/readyz?workers=2")
        yield port, [psutil.Process(each.pid) for each in running]


@contextmanager
def minilm_folder() -> Generator[Path]:
    """Where all-MiniLM-L6-v2 is."""
    yield minilm.write_minilm(cache_folder() / "minilm")


@contextmanager
def llama(folder: Path) -> Generator[tuple[str, psutil.Process]]:
    """A real llama-server.

    Its model is causal, so it takes the last token's state: means would not be the same in company
    (tests/real/test_packing.py).
    """
    path = folder / "shape.gguf"
    write_model(path, SHAPE)
    with running_llama_server("--pooling", "last", embeddings=True, model=path) as server:
        yield server.url, psutil.Process(server.process.pid)


Column = dict[str, Score]


@dataclass(frozen=True)
class Subject:
    """A backend that is measured."""

    backend: Embed
    model: str
    dsn: str
    slots: int
    own: tuple[psutil.Process, ...] = ()
    """Its server."""


async def both(it: Subject, folder: Path, given: argparse.Namespace) -> tuple[Column, Column]:
    """Scores by way, at the worker's door and through the fleet."""
    async with at_the_worker(it.backend, it.model, it.slots) as here:
        door = await scores(here, [psutil.Process(), *it.own], given)
    with fleet(folder, it.dsn) as (port, running):
        async with through_the_fleet(port, it.model) as there:
            return door, await scores(there, [*running, *it.own], given)


async def measured(folder: Path, given: argparse.Namespace) -> dict[str, tuple[Column, Column]]:
    """Both backends."""
    local, server = SLOTS
    found = {}
    with minilm_folder() as place:
        async with aclosing(LocalEmbed("bench", place)) as mini:
            subject = Subject(mini, place.name, f"local://{place}", SLOTS[local])
            found[local] = await both(subject, folder / "1", given)
    with llama(folder) as (url, process):
        async with aclosing(OpenAI("bench", url, LLAMACPP)) as speaker:
            (model,) = [each.name for each in await speaker.models()]
            dsn = url.replace("http://", "llamacpp://") + f"?slots={SLOTS[server]}"
            subject = Subject(speaker, model, dsn, SLOTS[server], (process,))
            found[server] = await both(subject, folder / "2", given)
    return found


def report(
    found: Mapping[str, tuple[Column, Column]], given: argparse.Namespace, load_before: float
) -> str:
    """The section of RESULTS.md."""
    lines = [
        "## Embeddings, packed",
        "",
        (
            f"Written by `python -m bench.embed_pack`: texts a second (how many times those of one "
            f"request a text), then milliseconds of processor time a text over all processes but "
            f"the load generator (how many times less); medians of {given.rounds} rounds "
            f"of {given.texts} texts of 4 to 32 words. "
            "*At the worker* is the adapter and the packer without queue, Redis or "
            f"callers' HTTP; *through the fleet* is POST /v1/embeddings with {AT_ONCE} callers of "
            f"one text each or {AT_ONCE // 4} of {BATCH}, everything on one machine with the load "
            f"generator. Both models run in one thread of a busy processor, where a request costs "
            f"little beside its texts: this is not what packing saves on a card or over a network."
        ),
        "",
        *(f"- {line}" for line in described()[:1]),
        f"- the machine's load when it began: {load_before:.1f}",
        "",
        "| " + " | ".join(["", *(f"{n}: {at}" for n in found for at in _PLACES)]) + " |",
        "| --- |" + " ---: |" * (2 * len(found)),
    ]
    columns = [column for pair in found.values() for column in pair]
    for way in WAYS:
        cells = (_cell(each[way], each[WAYS[0]]) for each in columns)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(one: Score, alone: Score) -> str:
    faster, cheaper = one.texts_per_s / alone.texts_per_s, alone.cpu_ms / one.cpu_ms
    return f"{one.texts_per_s:,.0f} ({faster:.2f}), {one.cpu_ms:.1f} ms ({cheaper:.2f})"


_PLACES: Final = ("at the worker", "through the fleet")


def main() -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--dry", action="store_true", help="do not write RESULTS.md")
    given = parser.parse_args()
    load_before = load()
    with tempfile.TemporaryDirectory() as place:
        section = report(uvloop.run(measured(Path(place), given)), given, load_before)
    print(section)
    if not given.dry:
        put(RESULTS, "embed_pack", section)


if __name__ == "__main__":
    main()
