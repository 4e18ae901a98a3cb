"""One upload: a form whose file goes straight into the storage, whatever its size."""

import time
from contextlib import AsyncExitStack
from typing import Final

from fastapi import Request

from api_shim.batch.storage import Writing
from api_shim.dependencies import Wiring
from api_shim.http.forms_m_multipart import Part, form
from api_shim.openai.request_fields import wrong
from relay.files import WRITING_S

_LONGEST_FIELD_BYTES: Final = 4096
_LONGEST_NAME: Final = 255


class Upload:
    """Takes a form in; then it knows its fields, and the file is stored."""

    def __init__(self, wiring: Wiring, name: str) -> None:
        """Store the file under this name; `take` says first that it is there."""
        self._wiring = wiring
        self._name = name
        self._kept_at = 0.0
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.size_bytes = 0

    async def take(self, request: Request) -> None:
        """Read the form; raises Refusal, StorageUnavailable, RelayUnavailable."""
        is_there = False
        field = b""
        part = Part("", None)
        async with AsyncExitStack() as stack:
            writing: Writing | None = None
            async for news in form(request):
                if isinstance(news, Part):
                    self._finish_field(part, field)
                    part, field = news, b""
                    if part.name == "file":
                        if is_there:
                            raise wrong("file", "one file an upload")
                        is_there = True
                        self.filename = (part.filename or "file")[:_LONGEST_NAME]
                        await self._keep()
                        writing = await stack.enter_async_context(
                            self._wiring.storage.write(self._name)
                        )
                elif part.name == "file" and writing is not None:
                    await writing.write(news)
                    self.size_bytes = writing.size_bytes
                    await self._keep()
                elif len(field) < _LONGEST_FIELD_BYTES:
                    field += news
            self._finish_field(part, field)
            if not is_there:
                raise wrong("file", "it is missing: send the file as the form's field `file`")

    def _finish_field(self, part: Part, value: bytes) -> None:
        if part.name and part.name != "file":
            self.fields[part.name] = value.decode("utf-8", "replace")

    async def _keep(self) -> None:
        """Say that the bytes are still coming, so that nobody takes them for left over."""
        if time.monotonic() - self._kept_at > WRITING_S / 4 or not self._kept_at:
            self._kept_at = time.monotonic()
            await self._wiring.files.keep(self._name)
