"""`fleet image`: words in, pictures out, as files that appear whole or not at all."""

import base64
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from contract.errors import InvalidRequest, UnknownModel
from contract.events import Image, Phase
from contract.result import Result
from fleet.atomic_file import check_apart, whole
from fleet.cli.commands.options import Backend, Json, Model, Url
from fleet.cli.event_printer import EventPrinter
from fleet.cli.exit_codes import Exit, run
from fleet.cli.interrupts import detachable
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.job import AsyncJob
from fleet.client.requests import request_of
from fleet.client.results import demand_done
from fleet.client.roster import model_for

_MIME_TYPES: Final = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_PNG: Final = "image/png"


def image(
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help=".png, .jpg or .webp")],
    model: Model = None,
    backend: Backend = None,
    width: Annotated[int | None, typer.Option(help="Pixels.  [default: 512]")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.  [default: 512]")] = None,
    steps: Annotated[int | None, typer.Option(help="More are slower, and often better.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same one makes the same image.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strictly to follow words.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--image", exists=True, dir_okay=False, help="An image to start from."),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far from it to go: 0 keeps it, 1 forgets it.")
    ] = None,
    count: Annotated[int, typer.Option(help="Several become cat-1.png, cat-2.png ...")] = 1,
    json: Json = False,
    url: Url = None,
) -> None:
    """Make images; Ctrl-C lets go of the job, a second one cancels it."""
    asked = {
        "model": model,
        "backend": backend,
        "width": width,
        "height": height,
        "steps": steps,
        "seed": seed,
        "guidance": guidance,
        "negative_prompt": negative,
        "image": base64.b64encode(start.read_bytes()).decode() if start else None,
        "strength": strength,
        "count": count,
        "mime_type": _MIME_TYPES.get(out.suffix.lower(), _PNG),
    }
    fields = {name: value for name, value in asked.items() if value is not None}
    run(_image(prompt, fields, out, Terminal(json=json), url, start=start))


async def _image(
    prompt: str,
    fields: dict[str, Any],
    out: Path,
    terminal: Terminal,
    url: str | None,
    *,
    start: Path | None,
) -> Exit:
    if not out.parent.is_dir():
        raise InvalidRequest(f"{out.parent} is no folder: an image could not be written there")
    if start is not None:
        check_apart([start], [out, *(_of_several(out, n) for n in range(1, fields["count"] + 1))])
    async with AsyncClient(url) as fleet:
        if "model" not in fields:
            fields |= await _chosen(fleet, fields.get("backend"), terminal)
        job = await fleet.enqueue(request_of("image", {**fields, "prompt": prompt}))
        result = await detachable(_followed(job, terminal), lambda: [job], terminal)
    if result.ignored:
        terminal.say(f"ignored, the backend has no such thing: {', '.join(result.ignored)}")
    _write([each for each in result.images if not each.partial], out, terminal)
    return Exit.OK


async def _followed(job: AsyncJob, terminal: Terminal) -> Result:
    """The answer, with a bar until it is there; raises JobEnded if it does not end well."""
    shown = EventPrinter(terminal)
    with _drawing(terminal) as bar:
        task = bar.add_task("image", total=None)
        async with aclosing(job.frames()) as frames:
            async for frame in frames:
                shown.add(frame)
                event = frame.event if frame.type == "phase" else None
                if isinstance(event, Phase) and event.progress is not None:
                    bar.update(task, total=1.0, completed=event.progress)
        if shown.result.status == "done":
            # Servers tell how far they are now and then, and say nothing more when it is there.
            bar.update(task, total=1.0, completed=1.0)
    demand_done(job.id, shown.result)
    return shown.result


async def _chosen(fleet: AsyncClient, backend: str | None, terminal: Terminal) -> dict[str, str]:
    models = await fleet.models()
    found = model_for("image", (each for each in models if backend in {None, each.backend}))
    if found is None:
        raise UnknownModel("no model here can make images: look at `fleet models`, or name one")
    terminal.say(f"{found.name} on {found.backend}")
    return {"model": found.name, "backend": found.backend}


def _write(images: list[Image], out: Path, terminal: Terminal) -> None:
    wanted = _MIME_TYPES.get(out.suffix.lower(), _PNG)
    for number, each in enumerate(images, start=1):
        file = _of_several(out, number) if len(images) > 1 else out
        if each.data is None:
            terminal.say(f"image {number} is at {each.url}", style="bold")
            continue
        with whole(file) as opened:
            opened.write(base64.b64decode(each.data))
        note = "" if each.mime_type == wanted else f", which is {each.mime_type}"
        terminal.say(f"wrote {file}{note}")


def _of_several(out: Path, number: int) -> Path:
    return out.with_stem(f"{out.stem}-{number}")


def _drawing(terminal: Terminal) -> Progress:
    """A bar for a share of a whole."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=terminal.talk,
    )
