"""`fleet image`: generates images from a prompt and writes them to files."""

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
from fleet.client.job import AsyncJob, raise_job_ended
from fleet.client.requests import request_of
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
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same image.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strictly to follow it.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--image", exists=True, dir_okay=False, help="An image to start from."),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much to change it: 0 keeps it, 1 ignores it.")
    ] = None,
    count: Annotated[int, typer.Option(help="More than one: cat-1.png, cat-2.png ...")] = 1,
    json: Json = False,
    url: Url = None,
) -> None:
    """Generate images; Ctrl-C detaches from the job, a second one cancels it."""
    options = {
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
    fields = {name: value for name, value in options.items() if value is not None}
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
        raise InvalidRequest(f"{out.parent} is not a folder: images cannot be written there")
    if start is not None:
        check_apart([start], [out, *(_numbered(out, n) for n in range(1, fields["count"] + 1))])
    async with AsyncClient(url) as fleet:
        if "model" not in fields:
            fields |= await _choose(fleet, fields.get("backend"), terminal)
        job = await fleet.enqueue(request_of("image", {**fields, "prompt": prompt}))
        result = await detachable(_print_events(job, terminal), lambda: [job], terminal)
    if result.ignored:
        terminal.message(f"ignored, the backend does not support it: {', '.join(result.ignored)}")
    _write([each for each in result.images if not each.partial], out, terminal)
    return Exit.OK


async def _print_events(job: AsyncJob, terminal: Terminal) -> Result:
    """Follow a job with a progress bar; raises JobEnded unless it is done."""
    printer = EventPrinter(terminal)
    with _drawing(terminal) as bar:
        task = bar.add_task("image", total=None)
        async with aclosing(job.frames()) as frames:
            async for frame in frames:
                printer.add(frame)
                event = frame.event if frame.type == "phase" else None
                if isinstance(event, Phase) and event.progress is not None:
                    bar.update(task, total=1.0, completed=event.progress)
        if printer.result.status == "done":
            # Servers report progress at intervals, and not at the end.
            bar.update(task, total=1.0, completed=1.0)
    raise_job_ended(job.id, printer.result)
    return printer.result


async def _choose(fleet: AsyncClient, backend: str | None, terminal: Terminal) -> dict[str, str]:
    models = await fleet.models()
    found = model_for("image", (each for each in models if backend in {None, each.backend}))
    if found is None:
        raise UnknownModel("no model can generate images: see `fleet models`, or name one")
    terminal.message(f"{found.name} on {found.backend}")
    return {"model": found.name, "backend": found.backend}


def _write(images: list[Image], out: Path, terminal: Terminal) -> None:
    wanted = _MIME_TYPES.get(out.suffix.lower(), _PNG)
    for number, each in enumerate(images, start=1):
        file = _numbered(out, number) if len(images) > 1 else out
        if each.data is None:
            terminal.message(f"image {number} is at {each.url}", style="bold")
            continue
        with whole(file) as opened:
            opened.write(base64.b64decode(each.data))
        note = "" if each.mime_type == wanted else f", which is {each.mime_type}"
        terminal.message(f"wrote {file}{note}")


def _numbered(out: Path, number: int) -> Path:
    return out.with_stem(f"{out.stem}-{number}")


def _drawing(terminal: Terminal) -> Progress:
    """A progress bar in percent, with the time so far."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=terminal.stderr,
    )
