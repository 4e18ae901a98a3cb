"""The demo with the real llama-server: built once a machine, asked through the whole fleet."""

import asyncio

from fleet.demo.narrator import Narrator
from fleet.demo.play import play_with
from fleet.errors import CannotStart
from fleet.plan import PlannedBackend
from fleet.real.build import CannotBuild
from fleet.real.llama_server import NotBuilt, build_once
from fleet.real.running import DidNotStart, running_llama_server


async def play_llama(narrator: Narrator) -> None:
    """Chat with llama.cpp and its tiny model; raises CannotStart, PromiseBroken."""
    try:
        with narrator.waiting("llama-server (built once a machine, some ten minutes)"):
            binary = await asyncio.to_thread(build_once)
        narrator.say(f"{binary}", "dim")
        with running_llama_server() as server:
            narrator.say(
                f"a real llama-server on port {server.port}; its tiny model has random weights "
                "and speaks words that nobody taught it",
                "green",
            )
            address = f"llamacpp://127.0.0.1:{server.port}"
            await play_with(narrator, PlannedBackend("llamacpp", {"LLM_LLAMACPP": address}))
    except (CannotBuild, NotBuilt, DidNotStart) as error:
        raise CannotStart(str(error)) from error
