"""Packing with real models: llama-server over HTTP, all-MiniLM-L6-v2 in the worker itself."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from support.processes import worker
from support.relay import Relay, relay_on

from contract.embeddings import EmbedRequest, unpack
from contract.events import Vectors
from contract.result import fold
from fleet.demo import minilm
from fleet.real.cache import cache_folder
from fleet.real.run_llama_server import LlamaServer, running_llama_server
from workers.backends.in_process.onnx import LocalEmbed
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import LLAMACPP
from workers.backends.protocols import Embed
from workers.embedding.packer import Packer, PackingRules
from workers.embedding.packing_check import similarity
from workers.embedding.request_sender import Budget

pytestmark = pytest.mark.real

TEXTS = [f"{'the queue and the model ' * (number % 9)}number {number}" for number in range(120)]
Rows = list[list[float]]


class Counted:
    """A backend, and how many texts each request to it had."""

    def __init__(self, backend: Embed) -> None:
        self.backend = backend
        self.sizes: list[int] = []

    def embed(self, request: EmbedRequest) -> AsyncGenerator[object, None]:
        self.sizes.append(request.count)
        return self.backend.embed(request)


@asynccontextmanager
async def packer_over(backend: Embed, most: int = 1) -> AsyncGenerator[tuple[Packer, Counted]]:
    counted = Counted(backend)
    packer = Packer(counted, PackingRules(Budget(32, 4096), most))
    try:
        yield packer, counted
    finally:
        await packer.aclose()


async def rows(backend: Embed, model: str, *texts: str) -> Rows:
    found: Rows = []
    async with aclosing(backend.embed(EmbedRequest(model=model, input=texts))) as events:
        async for event in events:
            if isinstance(event, Vectors):
                found += unpack(event.data, event.dimension)
    return found


async def at_once(backend: Embed, model: str, texts: Sequence[str]) -> Rows:
    """Each text as a job of its own."""
    return [row for (row,) in await asyncio.gather(*(rows(backend, model, t) for t in texts))]


async def check(backend: Embed, model: str) -> None:
    """Vectors that came packed are those of each text alone, in a quarter of the requests."""
    async with packer_over(backend) as (packer, counted):
        async with asyncio.timeout(60):
            while packer.packs(model) is None:
                await at_once(packer, model, TEXTS[:8])
        counted.sizes.clear()
        packed = await at_once(packer, model, TEXTS)
        requests = len(counted.sizes)
        alone = [(await rows(backend, model, text))[0] for text in TEXTS]

        assert packer.packs(model) is True
        assert requests <= len(TEXTS) / 4
        assert similarity(alone, packed).is_same


async def test_llama_servers_vectors_are_the_same_in_company(llama_binary: Path) -> None:
    with running_llama_server("--pooling", "last", embeddings=True) as server:
        async with aclosing(OpenAI("llamacpp", server.url, LLAMACPP)) as backend:
            await check(backend, "tiny")


async def test_where_company_changes_the_vectors_each_text_goes_alone(
    embed_server: LlamaServer,
) -> None:
    # Means over a causal model: texts of other lengths in one batch are cut into equal pieces, and
    # the mean is taken of the last piece. The same happens to requests at the same time.
    async with (
        aclosing(OpenAI("llamacpp", embed_server.url, LLAMACPP)) as backend,
        packer_over(backend, most=4) as (packer, counted),
    ):
        async with asyncio.timeout(60):
            while packer.packs("tiny") is None:  # the check runs beside these
                await at_once(packer, "tiny", TEXTS[:8])
        await at_once(packer, "tiny", TEXTS[:8])
        counted.sizes.clear()
        found = await at_once(packer, "tiny", TEXTS[:40])
        sizes = list(counted.sizes)
        alone = [(await rows(backend, "tiny", text))[0] for text in TEXTS[:40]]

        assert packer.packs("tiny") is False
        assert sizes == [1] * 40
        assert similarity(alone, found).is_same


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    return minilm.write_minilm(cache_folder() / "minilm")


async def test_minilms_vectors_are_the_same_in_company(minilm_folder: Path) -> None:
    async with aclosing(LocalEmbed("local", minilm_folder, model="mini")) as backend:
        await check(backend, "mini")


async def test_a_text_that_minilm_refuses_is_named_and_fails_alone(minilm_folder: Path) -> None:
    async with (
        aclosing(LocalEmbed("local", minilm_folder, model="mini")) as backend,
        packer_over(backend) as (packer, _),
    ):
        while packer.packs("mini") is None:
            await at_once(packer, "mini", TEXTS[:8])

        async def one(text: str) -> str:
            request = EmbedRequest(model="mini", input=("short", text), truncate=False)
            try:
                async with aclosing(packer.embed(request)) as events:
                    return [event.type async for event in events][-1]
            except Exception as error:  # noqa: BLE001 - what it is, is the question
                return str(error)

        ends = await asyncio.gather(*(one(text) for text in (*TEXTS[:20], "long " * 600)))

        assert set(ends[:20]) == {"done"}
        assert ends[20].startswith("input[1] has ")


async def test_a_worker_packs_jobs_for_a_model_of_its_own(
    redis_url: str, tmp_path: Path, minilm_folder: Path
) -> None:
    with worker(redis_url, tmp_path, "local", LLM_LOCAL=f"local://{minilm_folder}") as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            async with asyncio.timeout(60):
                while not await packs(relay):
                    await embedded(relay, TEXTS[:20])
            packed = await embedded(relay, TEXTS[:40])
            async with aclosing(LocalEmbed("x", minilm_folder, model="mini")) as backend:
                alone = [(await rows(backend, "mini", text))[0] for text in TEXTS[:40]]

            assert np.abs(np.array(packed) - np.array(alone)).max() < 1e-4


async def packs(relay: Relay) -> bool | None:
    (report,) = await relay.roster.workers()
    (model,) = report.backends[0].models
    return model.packs


async def embedded(relay: Relay, texts: Sequence[str]) -> Rows:
    """Each text as a job of its own, through the queue."""

    async def one(text: str) -> list[float]:
        request = EmbedRequest(model="minilm", input=(text,))
        record, _ = await relay.queue.enqueue(request, queue="local.embed")
        found = fold(frame.event for frame in await relay.frames(record.id)).embeddings
        assert found is not None
        return unpack(found.data, found.dimension)[0]

    return await asyncio.gather(*map(one, texts))
