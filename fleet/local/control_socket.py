"""The ear of `fleet up`: a socket in its data folder, on which its shims ask for backends.

Whoever can open the socket can run workers as this user, so only this user can: it has mode 0600
before anybody can connect. Orders and answers are in `api_shim.control`.
"""

import asyncio
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from api_shim.control import (
    LONGEST_LINE,
    AddBackend,
    BackendProcesses,
    ControlRequest,
    ControlResponse,
    ListBackends,
    RemoveBackend,
    close_writer,
    decode_request,
    send,
)
from fleet.local.launch_plan import named_backend
from fleet.local.redis_server import LONGEST_SOCKET_PATH
from fleet.local.worker_teams import WorkerTeams
from workers.backends.dsn import DsnError

_HEARD_WITHIN_S: Final = 5.0
_CALLERS: Final = 16
"""More than these at once wait until their patience ends."""


@contextmanager
def address(folder: Path, *, is_ours: bool) -> Generator[Path]:
    """Where to listen: in the data folder, if it is locked for us and its path is short enough.

    Else in a new folder of our own, which goes away with us.
    """
    path = folder.resolve() / "control.sock"
    if is_ours and len(str(path).encode()) <= LONGEST_SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fleet-") as own:
        yield Path(own) / "control.sock"


@contextmanager
def _bound(path: Path) -> Generator[socket.socket]:
    path.unlink(missing_ok=True)  # of a `fleet up` that was killed: the folder is locked
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(path))
        try:
            path.chmod(0o600)  # before anybody can connect: nobody listens yet
            yield line
        finally:
            path.unlink(missing_ok=True)


class ControlSocket:
    """Carries out orders; `say` tells the person at the terminal of it, without any key."""

    def __init__(self, crew: WorkerTeams, say: Callable[[str], None]) -> None:
        """Work for this crew."""
        self._crew = crew
        self._say = say
        self._free = asyncio.Semaphore(_CALLERS)
        self._callers: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncGenerator[None]:
        """Take orders until this ends; then nobody is left who waits for an answer."""
        with _bound(path) as line:
            server = await asyncio.start_unix_server(self._call, sock=line, limit=LONGEST_LINE)
            try:
                yield
            finally:
                server.close()
                for task in self._callers:
                    task.cancel()
                await asyncio.gather(*self._callers, return_exceptions=True)

    def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="control")
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._free:
                async with asyncio.timeout(_HEARD_WITHIN_S):
                    line = await reader.readuntil(b"\n")
                await send(writer, await self._obeyed(line))
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
            self._say(f"an order on the control socket broke off ({type(error).__name__})")
        finally:
            await close_writer(writer)

    async def _obeyed(self, line: bytes) -> ControlResponse:
        try:
            return await self.obey(decode_request(line))
        except ValueError as error:
            return ControlResponse(error="invalid", message=str(error))

    async def obey(self, order: ControlRequest) -> ControlResponse:
        """Carry out an order."""
        match order:
            case AddBackend():
                return self._add(order)
            case RemoveBackend():
                return await self._remove(order.name)
            case ListBackends():
                return ControlResponse(backends=self._staff())

    def _add(self, order: AddBackend) -> ControlResponse:
        name = order.name
        if name in self._crew.teams:
            leaving = self._crew.teams[name].leaving is not None
            state = "is being removed; wait a little" if leaving else "is there already"
            return ControlResponse(error="taken", message=f"backend {name} {state}")
        try:
            backend = named_backend(name, order.dsn.get_secret_value(), "added while running")
        except DsnError as error:
            return ControlResponse(error="invalid", message=str(error))
        self._crew.hire(backend)
        self._say(f"backend {name} was added: its worker starts")
        return ControlResponse(processes=backend.processes, backends=self._staff())

    async def _remove(self, name: str) -> ControlResponse:
        team = self._crew.teams.get(name)
        if team is None:
            return ControlResponse(error="unknown", message=f"`fleet up` runs no backend {name}")
        self._say(f"backend {name} is removed: its workers finish what they do")
        processes = len(team.entries)
        await self._crew.dismiss(name)
        self._say(f"backend {name} is gone")
        return ControlResponse(processes=processes, backends=self._staff())

    def _staff(self) -> tuple[BackendProcesses, ...]:
        return tuple(
            BackendProcesses(
                name=name,
                why=team.backend.why,
                processes=len(team.entries),
                is_leaving=team.leaving is not None,
            )
            for name, team in sorted(self._crew.teams.items())
        )
