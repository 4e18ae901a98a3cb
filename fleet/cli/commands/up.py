"""`fleet up` and `fleet demo`: the whole fleet on this machine, in the foreground; a demo of it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.cli.commands.options import Json, backend_given
from fleet.cli.exit_codes import Exit, run
from fleet.cli.terminal import Terminal
from fleet.client.errors import CannotStart

Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="First port; 0: free ones.  [default: FLEET_PORT, else 8700]"
    ),
]
DataFolder = Annotated[Path | None, typer.Option(help="Data folder.  [default: FLEET_DATA_DIR]")]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DSN",
        help="As in box=ollama://10.0.0.5; NAME=@FILE reads the DSN, with its key, from a file.",
    ),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=LEAST..MOST",
        help="As in box=0..4: start and end workers of this backend by demand.",
    ),
]
ScaleDownAfter = Annotated[
    float, typer.Option(min=0, max=86400, help="Seconds of lower demand before a worker is ended.")
]


def up(
    *,
    port: Port = None,
    shims: Annotated[int, typer.Option(min=1, max=64, help="Number of HTTP processes.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes for each backend.")] = 1,
    data_dir: DataFolder = None,
    backend: Backends = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="While there are no API keys, serve other machines, too."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what every process prints.")
    ] = False,
    scale: Scale = None,
    scale_down_after: ScaleDownAfter = 60.0,
    json: Json = False,
) -> None:
    """Run the whole fleet on this machine; Ctrl-C stops it, a second one immediately.

    It prints five lines, then only changes; `fleet logs` has the output of its processes.
    """
    from fleet.cli.foreground import serve  # noqa: PLC0415 - slow to import

    run(
        serve(
            port=port,
            shims=shims,
            workers=workers,
            data_dir=data_dir,
            given=[backend_given(each) for each in backend or ()],
            variables={"FLEET_INSECURE": "true"} if insecure else {},
            scales=scale or (),
            down_after_s=scale_down_after,
            verbose=verbose,
            json=json,
        )
    )


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
