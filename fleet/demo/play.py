"""Runs the demo: finds model servers, plays three scenes, prints a table."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from fleet.client.errors import CannotStart
from fleet.demo.minilm import MODEL_NAME, not_installed, write_minilm
from fleet.demo.narrator import Narrator
from fleet.demo.scenes import dropped_subscriber, killed_worker
from fleet.demo.stage import Stage, local_embeddings, stage
from fleet.local.launch_plan import PlannedBackend, discovered_backends
from fleet.real.cache import cache_folder

Scene = Callable[[Stage, Narrator], Awaitable[None]]

_NEXT_STEPS = """\
[bold]fleet up[/]                                 run the fleet on this machine
[bold]fleet chat[/] "Why is the sky blue?"        chat; Ctrl-C cancels
[bold]fleet embed[/] texts.txt -o vectors.npy     embed a file of texts
[bold]fleet jobs[/], [bold]fleet models[/], [bold]fleet doctor[/]   list jobs and models; check
A real chat model: start Ollama, llama-server, LM Studio or vLLM here and run this again, or
[bold]fleet up --backend box=ollama://10.0.0.5[/]; [bold]make demo-llama[/] builds llama.cpp."""


async def play(narrator: Narrator, *, with_embeddings: bool) -> None:
    """Play every scene; raises PromiseBroken, CannotStart, WeightsMissing."""
    if with_embeddings and (reason := not_installed()):
        raise CannotStart(f"{reason} (or skip the embeddings: --without-embeddings)")
    found = await discovered_backends()
    _say_what_was_found(narrator, found)
    planned = [replace(each, processes=2) for each in found]
    planned.append(PlannedBackend("scripted", processes=1 if found else 2))
    scenes: list[Scene] = [dropped_subscriber, killed_worker]
    if with_embeddings:
        folder = cache_folder() / "minilm"
        with narrator.waiting(f"{MODEL_NAME} as ONNX (written once)"):
            await asyncio.to_thread(write_minilm, folder)
        planned.append(local_embeddings(folder))
        scenes.append(_nearest_neighbours)
    await _play(narrator, planned, scenes)
    narrator.finish(_NEXT_STEPS)


async def play_with(narrator: Narrator, backend: PlannedBackend) -> None:
    """Play only the first scene, with one backend: it may be too fast for the second one."""
    await _play(narrator, [backend], [dropped_subscriber])
    narrator.finish(_NEXT_STEPS)


async def _nearest_neighbours(stage: Stage, narrator: Narrator) -> None:
    from fleet.demo.neighbours import nearest_neighbours  # noqa: PLC0415 - imports numpy

    await nearest_neighbours(stage, narrator)


async def _play(narrator: Narrator, planned: list[PlannedBackend], scenes: list[Scene]) -> None:
    starting = narrator.console.status("starting a Redis server, two shims and the workers")
    starting.start()
    try:
        async with stage(planned) as on:
            starting.stop()
            _introduce(narrator, on)
            for scene in scenes:
                await scene(on, narrator)
    finally:
        starting.stop()


def _say_what_was_found(narrator: Narrator, found: list[PlannedBackend]) -> None:
    for each in found:
        narrator.say(f"{each.name}: {each.why}", "green")
    if not found:
        narrator.say(
            "no model server responds on this machine's default ports (Ollama 11434, llama-server "
            "8080, LM Studio 1234, vLLM 8000): the scripted backend is used instead"
        )


def _introduce(narrator: Narrator, on: Stage) -> None:
    narrator.say(f"redis: {on.fleet.server.why}", "dim")
    for entry in on.fleet.entries:
        narrator.say(f"{entry.name}: pid {entry.pid}", "dim")
    narrator.say(f"chat: {on.chat.name} on {on.chat.backend}", "green")
