"""`fleet chat` and `fleet run`: send a prompt to a model and stream the answer."""

import asyncio
import base64
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import typer

from contract.chat import ImagePart, Message, Part, TextPart
from contract.errors import FleetError, UnknownModel
from contract.result import Result
from contract.roster import utc
from fleet.cli.commands.options import PASSED, At, Backend, Json, Model, Raw, Url, time_of
from fleet.cli.event_printer import EventPrinter
from fleet.cli.exit_codes import Exit, complain, run
from fleet.cli.interrupts import cancel
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.job import raise_job_ended
from fleet.client.requests import chat_of
from fleet.client.roster import model_for

_ADDRESSES: Final = ("http://", "https://", "data:")
Prompt = Annotated[str | None, typer.Argument(help="Without it: stdin, or a conversation.")]
System = Annotated[str | None, typer.Option(help="System prompt.")]
Temperature = Annotated[float | None, typer.Option(help="0 always picks the likeliest token.")]
MaxTokens = Annotated[int | None, typer.Option(help="Maximum length of the answer.")]
Think = Annotated[
    str | None, typer.Option(help="auto, off, on, minimal, low, medium, high, xhigh.")
]
Images = Annotated[
    list[str] | None,
    typer.Option("--image", "-i", metavar="FILE|URL", help="An image; can be repeated."),
]
OnMissing = Annotated[
    str | None, typer.Option(help="fail, or pull the model first if it is missing.")
]


def chat(
    prompt: Prompt = None,
    *,
    model: Model = None,
    backend: Backend = None,
    system: System = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    think: Think = None,
    image: Images = None,
    on_missing: OnMissing = None,
    at: At = None,
    raw: Raw = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Send a prompt to a model; Ctrl-C cancels the answer.

    With --at the job is left to the fleet, and its id is printed: `fleet jobs watch` shows it.
    """
    fields = {"temperature": temperature, "max_tokens": max_tokens, "backend": backend}
    fields |= {"think": think, "on_missing": on_missing, "not_before": time_of(at)}
    talk = Talk(Terminal(json=json, raw=raw), url, model, fields)
    _begin(talk, prompt, system, image)


def run_(
    model: Annotated[str, typer.Argument(help="Pulled first if it is missing.")],
    prompt: Prompt = None,
    *,
    backend: Backend = None,
    system: System = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    think: Think = None,
    image: Images = None,
    raw: Raw = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Like `chat`, but pull the model first if it is missing; Ctrl-C cancels the answer."""
    fields = {"temperature": temperature, "max_tokens": max_tokens, "backend": backend}
    fields |= {"think": think, "on_missing": "pull"}
    talk = Talk(Terminal(json=json, raw=raw), url, model, fields)
    _begin(talk, prompt, system, image)


class Talk:
    """A conversation with one model."""

    def __init__(
        self, terminal: Terminal, url: str | None, model: str | None, fields: dict[str, Any]
    ) -> None:
        """`fields` are of every request, those that are None left out.

        If `model` is None, the first turn chooses one.
        """
        self.terminal = terminal
        self._url = url
        self._model = model
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self._fields["conversation"] = uuid4().hex

    async def answer(self, messages: list[Message]) -> Result:
        """Stream the answer to the terminal; cancels the job if it is interrupted.

        Raises JobEnded if the job fails or is cancelled.
        """
        async with AsyncClient(self._url) as fleet:
            self._model = self._model or await self._choose(fleet)
            request = chat_of(messages, {"model": self._model, **self._fields})
            job = await fleet.enqueue(request)
            printer = EventPrinter(self.terminal)
            try:
                async with aclosing(job.frames()) as frames:
                    async for frame in frames:
                        printer.add(frame)
            except (asyncio.CancelledError, FleetError):
                printer.end()
                await cancel(job, self.terminal)
                raise
        raise_job_ended(job.id, printer.result)
        return printer.result

    @property
    def is_later(self) -> bool:
        """Whether its requests are for a later time."""
        return "not_before" in self._fields

    async def leave(self, messages: list[Message]) -> None:
        """Enqueue a request and print its job's id."""
        async with AsyncClient(self._url) as fleet:
            self._model = self._model or await self._choose(fleet)
            job = await fleet.enqueue(chat_of(messages, {"model": self._model, **self._fields}))
        if self.terminal.json:
            self.terminal.write_json_object({"id": job.id})
            return
        self.terminal.write_line(job.id)
        begins = f"it starts at {utc(self._fields['not_before'])}"
        if job.accepted is not None and job.accepted.status != "scheduled":
            begins = f"{PASSED}, it starts at once"
        self.terminal.message(f"{begins}: `fleet jobs watch {job.id}` shows its answer")

    async def _choose(self, fleet: AsyncClient) -> str:
        backend = self._fields.get("backend")
        models = await fleet.models()
        found = model_for("chat", (m for m in models if backend in {None, m.backend}))
        if found is None:
            raise UnknownModel("no model can chat: see `fleet models`, or pull one")
        self._fields["backend"] = found.backend
        self.terminal.message(f"{found.name} on {found.backend}")
        return found.name


def _begin(talk: Talk, prompt: str | None, system: str | None, images: list[str] | None) -> None:
    try:
        encoded = [image_data(each) for each in images or ()]
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}") from error
    before = [Message(role="system", content=system)] if system else []
    if prompt is None and sys.stdin.isatty() and not talk.is_later:
        _converse(talk, before, encoded)
        return
    text = sys.stdin.read() if prompt is None else prompt
    run(_once(talk, [*before, user_message(text, encoded)]))


async def _once(talk: Talk, messages: list[Message]) -> Exit:
    if talk.is_later:
        await talk.leave(messages)
    else:
        await talk.answer(messages)
    return Exit.OK


def _converse(talk: Talk, messages: list[Message], images: list[str]) -> None:
    talk.terminal.message("/bye or Ctrl-D ends the conversation; Ctrl-C cancels an answer")
    while True:
        try:
            text = input(">>> ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if text == "/bye":
            return
        if not text:
            continue
        sent = [*messages, user_message(text, images)]
        try:
            result = asyncio.run(talk.answer(sent))
        except KeyboardInterrupt:
            continue
        except FleetError as error:
            complain(error)
            continue
        messages = [*sent, Message(role="assistant", content=result.content)]
        images = []


def image_data(source: str) -> str:
    """A file in base64, or an `http`, `https` or `data` URL as it is; raises OSError."""
    if source.lower().startswith(_ADDRESSES):
        return source
    return base64.b64encode(Path(source).expanduser().read_bytes()).decode()


def user_message(text: str, images: Sequence[str]) -> Message:
    """A user's message: text, then images in base64 or by URL."""
    if not images:
        return Message(role="user", content=text)
    parts: list[Part] = [TextPart(text=text), *(ImagePart(image=each) for each in images)]
    return Message(role="user", content=tuple(parts))
