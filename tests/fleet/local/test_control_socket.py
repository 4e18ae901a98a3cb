"""The control socket itself: what it makes of orders that are wrong, slow or too long."""

import asyncio
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api_shim.control import (
    AddBackend,
    ControlLost,
    ListBackends,
    RemoveBackend,
    decode_request,
    send_request,
)
from fleet.local.control_socket import ControlSocket, address
from fleet.local.launch_plan import PlannedBackend
from fleet.local.supervisor import Supervisor, silent_printer
from fleet.local.worker_teams import WorkerTeams
from relay.settings import RelaySettings

KEY = "sk-sesame-4711"


@asynccontextmanager
async def listening(folder: Path, said: list[str]) -> AsyncGenerator[Path]:
    """The ear of a fleet whose only backend `here` has no process."""
    async with Supervisor(silent_printer(), 5) as processes:
        teams = WorkerTeams(processes, RelaySettings(), {}, iter(["1"] * 9))
        teams.start(PlannedBackend("here", why="given", processes=0))
        path = folder / "control.sock"
        async with ControlSocket(teams, said.append).listening(path):
            yield path
        assert not path.exists()


async def spoken(path: Path, line: bytes) -> bytes:
    """What is answered to a line as it is."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    if not line.endswith(b"\n"):
        writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_it_tells_who_is_there_and_is_its_owners_alone(tmp_path: Path) -> None:
    async with listening(tmp_path, []) as path:
        told = await send_request(path, ListBackends(), 5)

        assert [(each.name, each.why) for each in told.backends] == [("here", "given")]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"nonsense\n",
        b'{"verb":"dance"}\n',
        f'{{"verb":"add","name":"x","dsn":"{KEY}"}}\n'.encode(),
        f'{{"verb":"add","name":"{KEY} ","dsn":"a://b"}}\n'.encode(),
        f'{{"verb":"add","name":"x","dsn":["{KEY}"]}}\n'.encode(),
        f'{{"verb":"add","name":"x","dsn":"scripted://","{KEY}":1}}\n'.encode().replace(
            KEY.encode(), b"more"
        ),
    ],
)
async def test_a_wrong_order_is_refused_without_its_words(tmp_path: Path, line: bytes) -> None:
    said: list[str] = []
    async with listening(tmp_path, said) as path:
        answer = await spoken(path, line)

        assert b'"error":"invalid"' in answer
        assert KEY not in answer.decode() + "".join(said)


@pytest.mark.parametrize("line", [b"half an order", b"x" * 200_000 + b"\n", b""])
async def test_an_order_that_breaks_off_or_never_ends_is_dropped(
    tmp_path: Path, line: bytes
) -> None:
    said: list[str] = []
    async with listening(tmp_path, said) as path:
        with pytest.raises((OSError, AssertionError)):
            assert await spoken(path, line)

        assert (await send_request(path, ListBackends(), 5)).error is None
        assert "failed" in said[0]


async def test_names_are_looked_at(tmp_path: Path) -> None:
    async with listening(tmp_path, []) as path:
        taken = await send_request(path, AddBackend(name="here", dsn="scripted://"), 5)
        unknown = await send_request(path, RemoveBackend(name="there"), 5)
        gone = await send_request(path, RemoveBackend(name="here"), 5)

        assert (taken.error, unknown.error) == ("taken", "unknown")
        assert (gone.error, gone.backends) == (None, ())


async def test_nobody_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ControlLost, match="fleet up"):
        await send_request(tmp_path / "control.sock", ListBackends(), 5)


def test_an_order_with_a_key_does_not_show_it() -> None:
    order = decode_request(f'{{"verb":"add","name":"x","dsn":"openai://{KEY}@h"}}'.encode())

    assert KEY not in repr(order) + str(order)


def test_it_listens_in_the_data_folder_or_where_it_can(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    with address(tmp_path, is_locked=True) as path:
        assert path == tmp_path.resolve() / "control.sock"
    for folder, is_locked in ((deep, True), (tmp_path, False)):
        with address(folder, is_locked=is_locked) as path:
            assert path.parent.is_dir()
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert not path.parent.exists()
