"""Room for files: who may store how much, and what of it is still to come.

A tenant leaves others half of what is free (docs/adr/0058), in the quota of all files and on their
disk. What uploads have announced is taken, although the disk does not show it yet.
"""

import asyncio
from typing import Final
from uuid import uuid4

from api_shim.file_storage import Storage
from contract.batches import LEAST_FILE_BYTES
from contract.tenants import DEFAULT_TENANT
from relay.files import FileBounds, Files

_FILES_OF_A_BATCH: Final = 2
"""With the answers, and with the errors."""


class FileRoom:
    """Counts the objects that this process writes against the quotas of files."""

    def __init__(
        self, files: Files, storage: Storage, bounds: FileBounds, reserve_bytes: int
    ) -> None:
        """`bounds` hold for a tenant with a share; so many bytes stay free on the disk."""
        self._files = files
        self._storage = storage
        self._bounds = bounds
        self._reserve_bytes = reserve_bytes
        self._coming: dict[str, int] = {}
        """Bytes that have room and are not written, by the names of their objects."""
        self._reserving = asyncio.Lock()

    async def reserve(
        self, name: str, tenant: str, size_bytes: int, written_bytes: int = 0
    ) -> None:
        """Count an object with so many bytes, of which some are written.

        If some are not, `set_coming` must follow, with 0 at the end. Raises FileQuotaFull,
        StorageUnavailable, RelayUnavailable.
        """
        async with self._reserving:  # two at once would both take the same free bytes
            bounds = await self._bounds_for(name, tenant)
            await self._files.reserve(name, tenant, max(LEAST_FILE_BYTES, size_bytes), bounds)
            self.set_coming(name, size_bytes - written_bytes)

    async def demand_results(self, tenant: str) -> None:
        """Raise as `reserve` if the results of another batch, when small, have no room.

        Results are stored whatever they take, so batches without end would fill what others have.
        """
        name, size_bytes = f"files/{uuid4().hex}", _FILES_OF_A_BATCH * LEAST_FILE_BYTES
        await self.reserve(name, tenant, size_bytes, size_bytes)
        await self._files.forget(name)

    def set_coming(self, name: str, size_bytes: int) -> None:
        """So many bytes of an object have room and are not written; 0 at its end."""
        if size_bytes > 0:
            self._coming[name] = size_bytes
        else:
            self._coming.pop(name, None)

    async def _bounds_for(self, name: str, tenant: str) -> FileBounds:
        if tenant == DEFAULT_TENANT.name:
            return self._bounds._replace(share=1.0)
        if self._bounds.share == 1 or (disk := await self._storage.disk()) is None:
            return self._bounds
        coming = sum(size for other, size in self._coming.items() if other != name)
        free_bytes = max(0, disk.room_bytes(self._reserve_bytes) - coming)
        return self._bounds._replace(free_bytes=free_bytes)
