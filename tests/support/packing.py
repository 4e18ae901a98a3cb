"""A packer with an adapter of the scripted server, and embed jobs that use it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from contract.embeddings import EmbedRequest, unpack
from contract.events import Done, Vectors
from support.backends import against_server
from workers.embedding.packer import Packer, PackingRules
from workers.embedding.request_sender import Budget
from workers.scripted.script import vector
from workers.scripted.server import ScriptedServer

MODEL = "scripted-embed:dim=16"
SLOW = "scripted-embed:dim=16,first=0.1"
"""Responds after 0.1 s."""


class Answer:
    """The events of one job."""

    def __init__(self) -> None:
        self.blocks: list[Vectors] = []
        self.done: Done | None = None

    @property
    def rows(self) -> list[list[float]]:
        return [row for block in self.blocks for row in unpack(block.data, block.dimension)]


class Stage:
    """A packer, its server, and jobs."""

    def __init__(self, packer: Packer, server: ScriptedServer) -> None:
        self.packer = packer
        self.server = server
        self.capacities: list[bool] = []

    @property
    def sizes(self) -> list[int]:
        """The number of texts of each embed request so far."""
        return list(self.server.seen.texts)

    async def job(self, *texts: str, model: str = MODEL, **fields: Any) -> Answer:
        answer = Answer()
        async with aclosing(self.packer.embed(request(*texts, model=model, **fields))) as events:
            async for event in events:
                if isinstance(event, Vectors):
                    answer.blocks.append(event)
                elif isinstance(event, Done):
                    answer.done = event
        return answer

    async def jobs(self, texts: Sequence[str], model: str = MODEL) -> list[Any]:
        """Run one job per text concurrently; return the result or the error of each."""
        work = (self.job(text, model=model) for text in texts)
        return await asyncio.gather(*work, return_exceptions=True)

    async def trusted(self, model: str = MODEL) -> None:
        """Wait until texts of several jobs may share a request."""
        async with asyncio.timeout(10):
            while self.packer.packs(model) is None:
                await self.jobs(["one", "two", "three"], model)
                await asyncio.sleep(0.01)
        self.server.seen.texts.clear()


def request(*texts: str, model: str = MODEL, **fields: Any) -> EmbedRequest:
    return EmbedRequest(model=model, input=texts, **fields)


def close(row: Sequence[float], text: str) -> bool:
    """Whether this is the scripted vector of the text."""
    return max(abs(a - b) for a, b in zip(row, vector(text, len(row)), strict=True)) < 1e-6


@asynccontextmanager
async def packing(
    type: str = "llamacpp",
    *,
    texts: int = 64,
    tokens: int = 16384,
    max_requests: int = 2,
    wait_s: float = 0.02,
    shares_vectors: bool = False,
    **options: Any,
) -> AsyncGenerator[Stage]:
    """A packer with an adapter of this type."""
    async with against_server(type) as (backend, server):
        rules = PackingRules(Budget(texts, tokens), max_requests, wait_s, shares_vectors)
        capacities: list[bool] = []
        packer = Packer(
            backend,
            rules,
            on_capacity_change=lambda: capacities.append(packer.has_capacity),
            **options,
        )
        stage = Stage(packer, server)
        stage.capacities = capacities
        try:
            yield stage
        finally:
            await packer.aclose()
