"""Vectors of tenants: each has its own, so that no one learns from times what another embeds."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from support.packing import SLOW, Stage, close, packing, request, unpack

from contract.events import Vectors
from workers.embedding.packer import Packer


class Memory:
    """A cache of vectors that a test can look into."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    async def get(self, digests: Sequence[str]) -> list[bytes | None]:
        return [self.rows.get(digest) for digest in digests]

    async def put(self, rows: Mapping[str, bytes]) -> None:
        self.rows.update(rows)


async def embedded(packer: Packer, tenant: str, *texts: str) -> list[list[float]]:
    rows: list[list[float]] = []
    expected = packer.expect_job()
    expected.tenant = tenant
    async with aclosing(expected.embed(request(*texts, model=SLOW))) as events:
        async for event in events:
            if isinstance(event, Vectors):
                rows += unpack(event.data, event.dimension)
    return rows


async def of_both(stage: Stage) -> list[list[list[float]]]:
    return await asyncio.gather(*(embedded(stage.packer, name, "same") for name in ("ann", "bob")))


async def test_tenants_share_requests_but_no_text_and_no_cached_vector() -> None:
    memory = Memory()
    async with packing(max_requests=1, memory=memory) as stage:
        await stage.trusted(SLOW)
        holding = asyncio.create_task(embedded(stage.packer, "ann", "first"))
        answers = await of_both(stage)
        await holding
        together = list(stage.sizes)
        again = await embedded(stage.packer, "ann", "same")
        await embedded(stage.packer, "cid", "same")

        assert together == [1, 2]
        assert stage.sizes == [1, 2, 1]
        assert all(close(rows[0], "same") for rows in (*answers, again))
        assert {name.partition(":")[0] for name in memory.rows} >= {"ann", "bob"}


async def test_tenants_that_trust_each_other_share_vectors() -> None:
    memory = Memory()
    async with packing(max_requests=1, memory=memory, shares_vectors=True) as stage:
        await stage.trusted(SLOW)
        holding = asyncio.create_task(embedded(stage.packer, "ann", "first"))
        await of_both(stage)
        await holding
        await embedded(stage.packer, "cid", "same")

        assert stage.sizes == [1, 1]
        assert not any(":" in name for name in memory.rows)


async def test_vectors_of_a_job_that_is_not_kept_are_not_cached() -> None:
    memory = Memory()
    async with packing(max_requests=1, memory=memory) as stage:
        await stage.trusted(SLOW)
        memory.rows.clear()
        expected = stage.packer.expect_job()
        expected.tenant, expected.keeps = "ann", False
        async with aclosing(expected.embed(request("secret", model=SLOW))) as events:
            async for _ in events:
                pass
        await embedded(stage.packer, "ann", "other")
        async with asyncio.timeout(5):
            while not memory.rows:
                await asyncio.sleep(0)

        assert len(memory.rows) == 1
