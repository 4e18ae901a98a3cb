"""The protocol between `fleet up` and the shims it started: one JSON line each way on a socket.

Both sides use these models. A request may hold a key, in its DSN: no response repeats it.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, TypeAdapter, ValidationError, field_serializer

from contract.redis_keys import BACKEND_NAME
from contract.wire import WireModel, decode, encode

LONGEST_LINE: Final = 64 * 1024
"""Bytes of a request or response."""
_WRITE_WITHIN_S: Final = 5.0

BackendName = Annotated[str, Field(pattern=BACKEND_NAME.pattern)]


class AddBackend(WireModel):
    """Start workers for a backend."""

    verb: Literal["add"] = "add"
    name: BackendName
    dsn: SecretStr

    @field_serializer("dsn", when_used="json")
    def _in_full(self, dsn: SecretStr) -> str:
        return dsn.get_secret_value()


class RemoveBackend(WireModel):
    """Drain a backend's workers and end them."""

    verb: Literal["remove"] = "remove"
    name: BackendName


class ListBackends(WireModel):
    """List the backends that have workers."""

    verb: Literal["list"] = "list"


ControlRequest = AddBackend | RemoveBackend | ListBackends
_order: TypeAdapter[ControlRequest] = TypeAdapter(
    Annotated[ControlRequest, Field(discriminator="verb")]
)

ControlError = Literal["invalid", "taken", "unknown"]


class BackendProcesses(WireModel):
    """A backend and its worker processes."""

    name: str
    why: str
    """Where the backend was configured."""
    processes: int
    is_leaving: bool = False


class ControlResponse(WireModel):
    """The outcome of a request."""

    error: ControlError | None = None
    """None if it succeeded."""
    message: str = ""
    processes: int = 0
    """How many were started or ended."""
    backends: tuple[BackendProcesses, ...] = ()


class ControlLost(Exception):
    """`fleet up` has exited or does not respond."""


def decode_request(line: bytes) -> ControlRequest:
    """Parse a request; raises ValueError, whose message repeats nothing of the line."""
    try:
        return _order.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "order"
        raise ValueError(f"{where}: {first['msg']}") from None


async def send_request(path: Path, order: ControlRequest, within_s: float) -> ControlResponse:
    """Send a request and return the response; raises ControlLost."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=LONGEST_LINE)
            try:
                await send(writer, order)
                return decode(ControlResponse, await reader.readuntil(b"\n"))
            finally:
                await close_writer(writer)
    except (OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise ControlLost(f"`fleet up` does not respond ({type(error).__name__})") from None


async def send(writer: asyncio.StreamWriter, noun: WireModel) -> None:
    """Write one line; raises OSError, and TimeoutError if the other side does not read it."""
    writer.write(encode(noun) + b"\n")
    async with asyncio.timeout(_WRITE_WITHIN_S):
        await writer.drain()


async def close_writer(writer: Any) -> None:
    """Close the connection and ignore errors."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_WRITE_WITHIN_S):
            await writer.wait_closed()
