"""The end of a batch: its parts put together into files, and both made known in one step."""

import logging
from typing import Final
from uuid import uuid4

from api_shim.batch.parts import BAD, GOOD, stored_parts
from api_shim.dependencies import Wiring
from contract.batches import LastStatus, LineError
from contract.batches_m_files import File
from contract.errors import UnknownFile
from relay.batches import Batches, Lease
from relay.files import stored_name

_log = logging.getLogger(__name__)

_NAMES: Final = {GOOD: "output", BAD: "error"}


class Ending:
    """Ends the batch of a lease."""

    def __init__(self, wiring: Wiring, batches: Batches, lease: Lease) -> None:
        """Nothing written yet."""
        self._wiring = wiring
        self._batches = batches
        self._lease = lease
        self._batch = lease.batch
        self._missing: list[str] = []

    async def ended_as(self, status: LastStatus) -> bool:
        """Write the files, which exist however the batch ends, and end it.

        A batch that was completed without a failure has no error file: clients take one for a
        failure. False: the lease is lost, or not all rows have an answer (any more). Raises
        StorageUnavailable, RelayUnavailable.
        """
        parts = await self._batches.parts(self._batch.id)
        has_errors = status != "completed" or any(BAD in part for part in parts)
        output = await self._joined(parts, GOOD)
        errors = await self._joined(parts, BAD) if has_errors else None
        lost = [
            LineError(code="output_lost", message=f"The storage of files has lost {name}.")
            for name in self._missing
        ]
        last: LastStatus = "failed" if lost else status
        return await self._batches.finish(self._lease, last, files=(output, errors), errors=lost)

    async def _joined(self, parts: list[str], ending: str) -> File:
        """Put parts together under a name that nobody else has; its record comes at the end."""
        file_id = f"file-{uuid4().hex}"
        name = stored_name(file_id)
        await self._wiring.files.keep(name)
        async with self._wiring.storage.write(name) as writing:
            for part in stored_parts(self._batch.id, parts, ending):
                try:
                    async for piece in self._wiring.storage.read(part):
                        await writing.write(piece)
                except UnknownFile:
                    _log.exception("batch %s: the storage has lost a part", self._batch.id)
                    self._missing.append(part)
        return File(
            id=file_id,
            tenant=self._batch.tenant.name,
            filename=f"{self._batch.id}_{_NAMES[ending]}.jsonl",
            purpose="batch_output",
            size_bytes=writing.size_bytes,
            expires_at=0.0,
        )
