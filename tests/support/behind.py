"""A fleet behind a proxy, as its clients meet it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx

from support.front_proxy import Front
from support.keys import Keyed, bearer


class Behind(NamedTuple):
    """A shim, and the proxy in front of it."""

    shim: Keyed
    front: Front
    redis_url: str

    def client(self, key: str | None = None, address: str = "127.0.0.2") -> httpx.AsyncClient:
        """A client of the proxy, with a tenant's key, that comes from this address."""
        limits = httpx.Limits(max_connections=1000)
        line = httpx.AsyncHTTPTransport(verify=self.front.tls, local_address=address, limits=limits)
        headers = bearer(key or self.shim.key) | {"X-Fleet-Backend": "scripted"}
        return httpx.AsyncClient(
            base_url=self.front.url, headers=headers, transport=line, timeout=30
        )

    async def status(self, job: str) -> str:
        """Of a job, as the shim itself says it."""
        async with self.shim.admin as admin:
            return str((await admin.get(f"/api/v1/jobs/{job}")).json()["status"])

    async def until(self, job: str, status: str) -> None:
        """Wait until a job has come to this status."""
        async with asyncio.timeout(10):
            while await self.status(job) != status:
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def raw(
        self, address: str = "127.0.0.2"
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection of a client that writes what it wants."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.front.port, ssl=self.front.tls, local_addr=(address, 0)
        )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
