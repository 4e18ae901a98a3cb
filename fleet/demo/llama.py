"""The demo with the real llama-server, which is built once on each machine."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

from fleet.client.errors import CannotStart
from fleet.demo.narrator import Narrator
from fleet.demo.play import play_with
from fleet.local.launch_plan import PlannedBackend
from fleet.real.build import CannotBuild
from fleet.real.llama_server import NotBuilt, build_once
from fleet.real.run_llama_server import DidNotStart, running_llama_server
from fleet.real.tiny_model import DEFAULT, write_model

_TOKENS = 3000
"""Mean length of an answer: so long that the demo's `max_tokens` ends it."""


async def play_llama(narrator: Narrator) -> None:
    """Chat with llama.cpp and its tiny model; raises CannotStart, PromiseBroken."""
    try:
        with narrator.waiting("llama-server (built once a machine, some ten minutes)"):
            binary = await asyncio.to_thread(build_once)
        narrator.say(f"{binary}", "dim")
        with (
            tempfile.TemporaryDirectory(prefix="fleet-demo-") as folder,
            running_llama_server(model=_talkative(Path(folder))) as server,
        ):
            narrator.say(
                f"a real llama-server on port {server.port}; its tiny model has random weights "
                "and writes made-up words",
                "green",
            )
            address = f"llamacpp://127.0.0.1:{server.port}"
            await play_with(narrator, PlannedBackend("llamacpp", {"LLM_LLAMACPP": address}))
    except (CannotBuild, NotBuilt, DidNotStart) as error:
        raise CannotStart(str(error)) from error


def _talkative(folder: Path) -> Path:
    """The tiny model, with answers long enough to be interrupted."""
    path = folder / "talkative.gguf"
    write_model(path, replace(DEFAULT, mean_answer_tokens=_TOKENS))
    return path
