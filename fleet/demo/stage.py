"""The fleet of the demo: on free loopback ports, in a temporary folder."""

import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TextIO
from urllib.parse import quote

from honcho.printer import Printer

from fleet.client.async_client import AsyncClient
from fleet.client.roster import ModelInfo, model_for
from fleet.local.launch_plan import Plan, PlannedBackend, shim_ports
from fleet.local.up import Running, running
from relay.settings import RelaySettings

_HOST = "127.0.0.1"
_LAST_LINES = 30


class Stage(NamedTuple):
    """A running fleet, and a client of each of its two shims."""

    fleet: Running
    first: AsyncClient
    """A client of the first shim only."""
    second: AsyncClient
    chat: ModelInfo
    """The chat model."""

    @property
    def is_scripted(self) -> bool:
        """Whether the chat model is a scripted one."""
        return self.chat.name.startswith("scripted-")


def local_embeddings(folder: Path) -> PlannedBackend:
    """A backend whose workers run the model in a folder themselves."""
    return PlannedBackend("local", {"LLM_LOCAL": f"local://{quote(str(folder))}"}, "real model")


@asynccontextmanager
async def stage(planned: Sequence[PlannedBackend]) -> AsyncGenerator[Stage, None]:
    """Start everything and wait until it is ready, except for the backend `local`."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    log = folder / "processes.log"
    try:
        with log.open("w", encoding="utf-8") as lines:
            async with _playing(folder, planned, lines) as playing:
                yield playing
    except Exception as error:
        error.add_note(_tail(log))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _playing(
    folder: Path, planned: Sequence[PlannedBackend], lines: TextIO
) -> AsyncGenerator[Stage, None]:
    plan = Plan(folder, _HOST, shim_ports(_HOST, 0, 2), tuple(planned))
    settings = RelaySettings()
    early = sum(each.processes for each in planned if each.name != "local")
    async with running(plan, Printer(lines), settings) as fleet:
        await fleet.ready(early)
        first, second = plan.urls
        async with AsyncClient(first) as one, AsyncClient(second) as two:
            chat = model_for("chat", await one.models())
            if chat is None:
                raise LookupError("no backend here has a model that can chat")
            yield Stage(fleet, one, two, chat)


def _tail(log: Path) -> str:
    last = log.read_text(encoding="utf-8").splitlines()[-_LAST_LINES:]
    return os.linesep.join(["the last lines of the processes:", *last])
