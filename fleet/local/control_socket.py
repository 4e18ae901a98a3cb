"""The control socket of `fleet up`: its shims send it requests to add and remove backends.

A process that can open the socket can run workers as this user, so it has mode 0600 before it
accepts connections. Requests and responses are in `api_shim.control`.
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
from fleet.local.launch_plan import backend_from_dsn
from fleet.local.redis_server import LONGEST_SOCKET_PATH
from fleet.local.worker_teams import WorkerTeams
from workers.backends.dsn import DsnError

_READ_TIMEOUT_S: Final = 5.0
_MAX_CLIENTS: Final = 16
"""Clients served at once; others wait."""


@contextmanager
def address(folder: Path, *, is_locked: bool) -> Generator[Path]:
    """Path of the socket: in the data folder, if it is locked and the path is short enough.

    Else in a temporary folder, deleted when the context ends.
    """
    path = folder.resolve() / "control.sock"
    if is_locked and len(str(path).encode()) <= LONGEST_SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fleet-") as own:
        yield Path(own) / "control.sock"


@contextmanager
def _bound(path: Path) -> Generator[socket.socket]:
    path.unlink(missing_ok=True)  # left by a killed `fleet up`: we hold the folder's lock
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        try:
            path.chmod(0o600)  # before it listens, so before a client can connect
            yield listener
        finally:
            path.unlink(missing_ok=True)


class ControlSocket:
    """Handles requests; `say` prints messages about them, which never contain a key."""

    def __init__(self, teams: WorkerTeams, say: Callable[[str], None]) -> None:
        """Start and stop the workers of `teams`."""
        self._teams = teams
        self._say = say
        self._free = asyncio.Semaphore(_MAX_CLIENTS)
        self._clients: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncGenerator[None]:
        """Serve requests until the context ends; requests that are in progress are cancelled."""
        with _bound(path) as listener:
            server = await asyncio.start_unix_server(self._call, sock=listener, limit=LONGEST_LINE)
            try:
                yield
            finally:
                server.close()
                for task in self._clients:
                    task.cancel()
                await asyncio.gather(*self._clients, return_exceptions=True)

    def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="control")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._free:
                async with asyncio.timeout(_READ_TIMEOUT_S):
                    line = await reader.readuntil(b"\n")
                await send(writer, await self._response(line))
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
            self._say(f"a request on the control socket failed ({type(error).__name__})")
        finally:
            await close_writer(writer)

    async def _response(self, line: bytes) -> ControlResponse:
        try:
            return await self.handle(decode_request(line))
        except ValueError as error:
            return ControlResponse(error="invalid", message=str(error))

    async def handle(self, request: ControlRequest) -> ControlResponse:
        """Handle a request; an error is in the response."""
        match request:
            case AddBackend():
                return self._add(request)
            case RemoveBackend():
                return await self._remove(request.name)
            case ListBackends():
                return ControlResponse(backends=self._backends())

    def _add(self, request: AddBackend) -> ControlResponse:
        name = request.name
        if name in self._teams.teams:
            leaving = self._teams.teams[name].stopping is not None
            state = "is being removed; try again later" if leaving else "exists already"
            return ControlResponse(error="taken", message=f"backend {name} {state}")
        try:
            backend = backend_from_dsn(name, request.dsn.get_secret_value(), "added while running")
        except DsnError as error:
            return ControlResponse(error="invalid", message=str(error))
        self._teams.start(backend)
        self._say(f"backend {name} was added: its worker is starting")
        return ControlResponse(processes=backend.processes, backends=self._backends())

    async def _remove(self, name: str) -> ControlResponse:
        team = self._teams.teams.get(name)
        if team is None:
            return ControlResponse(error="unknown", message=f"`fleet up` runs no backend {name}")
        self._say(f"backend {name} is being removed: its workers finish their jobs")
        processes = len(team.entries)
        await self._teams.stop(name)
        self._say(f"backend {name} is removed")
        return ControlResponse(processes=processes, backends=self._backends())

    def _backends(self) -> tuple[BackendProcesses, ...]:
        return tuple(
            BackendProcesses(
                name=name,
                why=team.backend.why,
                processes=len(team.entries),
                is_leaving=team.stopping is not None,
            )
            for name, team in sorted(self._teams.teams.items())
        )
