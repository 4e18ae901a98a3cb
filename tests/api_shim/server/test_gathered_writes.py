"""What is written in one tick leaves in one piece, and never more than flow control may hold."""

import asyncio
from typing import Any

from api_shim.server.gathered_writes import GatheringTransport


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def gathering() -> tuple[Wire, Any]:
    wire = Wire()
    return wire, GatheringTransport(wire)  # type: ignore[arg-type]


async def test_the_writes_of_a_tick_are_one_in_their_order() -> None:
    wire, transport = gathering()
    transport.write(b"head ")
    transport.writelines([b"bo", b"dy"])
    at_once = list(wire.written)
    await asyncio.sleep(0)
    transport.write(b" next")
    await asyncio.sleep(0)

    assert at_once == []
    assert wire.written == [b"head body", b" next"]


async def test_a_fast_writer_does_not_gather_without_bound() -> None:
    wire, transport = gathering()
    for _ in range(40):
        transport.write(b"x" * 10_000)

    assert len(b"".join(wire.written)) >= 400_000 - 64 * 1024


async def test_a_close_writes_what_is_gathered_first_and_nothing_after_it() -> None:
    wire, transport = gathering()
    transport.write(b"last words")
    transport.close()
    transport.write(b"too late")
    await asyncio.sleep(0)

    assert wire.written == [b"last words"]
    assert wire.is_closed
