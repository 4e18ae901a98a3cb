"""An upload of a file: a multipart form, whose file is stored while it arrives.

Its name is registered before the first byte, and its bytes are counted against the quotas before
they are written, so that a shim that dies in between leaves nothing behind for long.
"""

import time
from contextlib import AsyncExitStack
from typing import Final

from fastapi import Request

from api_shim.dependencies import Dependencies
from api_shim.file_storage import Writing
from api_shim.http.forms import FormPart, stream_form
from api_shim.openai.request_fields import invalid_field
from relay.files import WRITING_S

_LONGEST_FIELD_BYTES: Final = 4096
_LONGEST_NAME: Final = 255
_STEP_BYTES: Final = 16 * 2**20
"""Bytes that are reserved at once for a file whose size is not known."""


class Upload:
    """Reads a multipart form: stores its file, and collects its other fields."""

    def __init__(self, dependencies: Dependencies, name: str, tenant: str) -> None:
        """Store the file under this name, which is registered before the first byte."""
        self._dependencies = dependencies
        self._name = name
        self._tenant = tenant
        self._kept_at = 0.0
        self._reserved_bytes = 0
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.size_bytes = 0

    async def take(self, request: Request) -> None:
        """Read the form; raises Refusal, FileQuotaFull, StorageUnavailable, RelayUnavailable."""
        is_there = False
        field = b""
        part = FormPart("", None)
        async with AsyncExitStack() as stack:
            stack.callback(self._dependencies.file_room.set_coming, self._name, 0)
            writing: Writing | None = None
            async for part_or_data in stream_form(request):
                if isinstance(part_or_data, FormPart):
                    self._finish_field(part, field)
                    part, field = part_or_data, b""
                    if part.name == "file":
                        if is_there:
                            raise invalid_field(
                                "file", "an upload has one file: send one request per file"
                            )
                        is_there = True
                        self.filename = (part.filename or "file")[:_LONGEST_NAME]
                        await self._reserve(_announced(request))
                        writing = await stack.enter_async_context(
                            self._dependencies.storage.write(self._name)
                        )
                elif part.name == "file" and writing is not None:
                    await writing.write(part_or_data)
                    self.size_bytes = writing.size_bytes
                    await self._keep()
                elif len(field) < _LONGEST_FIELD_BYTES:
                    field += part_or_data
            self._finish_field(part, field)
            if not is_there:
                raise invalid_field("file", "required: send the file in the form field `file`")

    def _finish_field(self, part: FormPart, value: bytes) -> None:
        if part.name and part.name != "file":
            self.fields[part.name] = value.decode("utf-8", "replace")

    async def _keep(self) -> None:
        """Renew the registration of the name, which the sweep would delete otherwise.

        Reserve more bytes if the file has more than its head has announced.
        """
        coming_bytes = self._reserved_bytes - self.size_bytes
        self._dependencies.file_room.set_coming(self._name, coming_bytes)
        if self.size_bytes > self._reserved_bytes:
            await self._reserve(self.size_bytes + _STEP_BYTES)
        elif time.monotonic() - self._kept_at > WRITING_S / 4:
            await self._reserve(self._reserved_bytes)

    async def _reserve(self, size_bytes: int) -> None:
        self._kept_at, self._reserved_bytes = time.monotonic(), size_bytes
        await self._dependencies.storage.demand_room(size_bytes - self.size_bytes)
        await self._dependencies.file_room.reserve(
            self._name, self._tenant, size_bytes, self.size_bytes
        )


def _announced(request: Request) -> int:
    """The bytes that a form announces, which are a few more than those of its file."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else _STEP_BYTES
