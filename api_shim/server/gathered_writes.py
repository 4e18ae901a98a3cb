"""The head of a response and what follows in the same tick leave in one write.

uvicorn writes a response's head and its body separately, which is two system calls, two packets and
two wake-ups of the client: a twentieth of a shim's CPU a job.
"""

import asyncio
from typing import Any, Final

_MOST_BYTES: Final = 64 * 1024
"""What is gathered at most before it is written, so that flow control sees a fast writer."""


class GatheringTransport:
    """A transport whose writes of one tick of the event loop are one; else it is the given one."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Gather what is written to this one."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._size_bytes = 0
        self._written_bytes = 0

    @property
    def taken_bytes(self) -> int:
        """Bytes that the operating system has taken: they grow while the client reads."""
        return self._written_bytes - self._transport.get_write_buffer_size()

    def __getattr__(self, name: str) -> Any:
        """Whatever is no write, of the given transport."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write at the end of this tick."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > _MOST_BYTES:
            self._flush()

    def writelines(self, pieces: list[bytes]) -> None:
        """The same for several pieces."""
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        """Write what is gathered, then the end."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Write what is gathered, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        self._written_bytes += self._size_bytes
        pieces, self._unsent, self._size_bytes = self._unsent, [], 0
        # uvloop refuses to write to a lost connection, which the protocol is about to notice.
        if pieces and not self._transport.is_closing():
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
