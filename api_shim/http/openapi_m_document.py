"""The document at /openapi.json as bytes, made in a thread while the shim starts.

To make it takes a second of processor time, which on the loop would be a second in which no stream
goes on. Whoever asks before it is there waits for it, and nobody else.
"""

import asyncio
from collections.abc import Callable


class Document:
    """Something that costs much to make, and is made once."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        """`make` runs in a thread."""
        self._make = make
        self._making: asyncio.Task[bytes] | None = None

    def begin(self) -> None:
        """Make it now; a second time changes nothing."""
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(self._make))

    async def read(self) -> bytes:
        """The document, when it is there."""
        self.begin()
        assert self._making is not None  # noqa: S101 - for the type checker
        return await asyncio.shield(self._making)

    def drop(self) -> None:
        """Let go of it: nobody will ask any more."""
        if self._making is not None:
            self._making.cancel()
