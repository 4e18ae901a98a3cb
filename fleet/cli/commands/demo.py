"""`fleet demo`: shows the main features, and checks that each works."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from fleet.cli.exit_codes import Exit, run
from fleet.cli.terminal import Terminal
from fleet.client.errors import CannotStart


def demo(
    *,
    llama: Annotated[
        bool, typer.Option("--llama", help="Chat with the real llama-server and a tiny model.")
    ] = False,
    without_embeddings: Annotated[
        bool, typer.Option("--without-embeddings", help="Skip the embedding model.")
    ] = False,
) -> None:
    """Stream, disconnect, resume, kill, embed: on free ports, in a temporary folder."""
    from fleet.demo.narrator import Narrator  # noqa: PLC0415 - slow to import
    from fleet.demo.play import play  # noqa: PLC0415

    narrator = Narrator()
    if llama:
        run(_checked(_llama(narrator)))
    run(_checked(play(narrator, with_embeddings=not without_embeddings)))


async def _llama(narrator: Any) -> None:
    try:
        from fleet.demo.llama import play_llama  # noqa: PLC0415
    except ImportError as error:
        raise CannotStart(
            f"the tiny model needs {error.name}: pip install 'llm-fleet[real]'"
        ) from error
    await play_llama(narrator)


async def _checked(scenes: Coroutine[Any, Any, None]) -> Exit:
    """Run the scenes; prints the notes of an error, which are the processes' last lines."""
    from fleet.demo.minilm import WeightsMissing  # noqa: PLC0415

    try:
        await scenes
    except asyncio.CancelledError:
        raise
    except WeightsMissing as error:
        Terminal().message(f"{error}; or skip them with --without-embeddings", "red")
        return Exit.FAILED
    except Exception as error:
        for note in getattr(error, "__notes__", ()):
            Terminal().message(note)
        raise
    return Exit.OK
