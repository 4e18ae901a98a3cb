"""What a new attempt makes of what earlier ones have said: it goes on from there, or starts over.

A chat goes on where that is sound: its beginning is sent back as the assistant's own turn, and the
log says `resumed`. Everything else says `reset` and starts over, if anything was said at all. What
is sound is decided here and nowhere else:

- The backend continues a trailing assistant message with this model (Prefill in protocols.py).
- Plain text was asked for, and nothing else was said. A grammar would begin anew in the middle
  (ai-dynamo/dynamo #7930), a tool parser would see half a call. One answer is all that a request
  can ask for, so #7930's other case (n > 1) cannot come up.
- No thoughts: they are not sent back, so the rest would be written without knowing them. Where
  thinking was asked for, the server would expect thoughts first (vllm #38749 takes the rest of the
  answer for them), and some models think without showing it.
- The text ends between two letters, holds nothing that looks like a mark of a chat template (a
  server would read it as one), and does not end like the beginning of a stop word: what completed
  it could not be seen, and its beginning could not be taken back.

If the backend refuses the beginning, or thinks first all the same, the attempt starts over then.
A seed gives the rest another course than the whole would have had; what was said stays as it is.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from contract.chat import ChatRequest, Message, TextFormat
from contract.errors import BackendRejected, ContextExceeded, NotSupported
from contract.events import (
    AnyEvent,
    Delta,
    Done,
    Event,
    LogReset,
    Reset,
    Resumed,
    Unknown,
    Usage,
)
from contract.jobs import AnyRequest
from contract.result import Fold, Result
from relay.log import Log
from workers.backends.protocols import Backend, HasModelLease, Prefill

_LONGEST_TOKEN_BYTES: Final = 32
"""A fragment that is longer is more than one token: the writer has joined some, or the server."""
_BYTES_A_TOKEN: Final = 4


class Seam:
    """Joins one answer."""

    def __init__(self, pieces: Iterable[str]) -> None:
        """`pieces` are the fragments that were said."""
        said = "".join(pieces := list(pieces))
        self.beginning = said.rstrip()
        """What goes back to the backend."""
        self.tokens = _tokens(pieces, len(self.beginning))
        """Of the beginning: an estimate, see `_tokens`."""
        self._owed = said[len(self.beginning) :]
        self._is_first = True

    def join(self, content: str) -> str:
        """What of the next fragment was not said before."""
        if self._is_first and content:
            self._is_first = False
            content = self._without_echo(content)
        while content and self._owed and content[0] == self._owed[0]:
            content, self._owed = content[1:], self._owed[1:]
        if content:
            self._owed = ""
        return content

    def _without_echo(self, content: str) -> str:
        """llama-server repeats a beginning in its first fragment unless it knows our flags.

        It does since May 2026 (llama.cpp #23012, #23089). A shorter repetition may be the
        model's own, a longer one is no single token.
        """
        is_long = len(self.beginning.encode()) > _LONGEST_TOKEN_BYTES
        return content.removeprefix(self.beginning) if is_long else content

    def whole(self, done: Done) -> Done:
        """The last word for both parts: the prompt counted once, the completion added up.

        The backend has counted the beginning as a part of the prompt. A backend that counts
        nothing is not helped out.
        """
        return done.model_copy(update={"usage": self.added_up(done.usage)})

    def added_up(self, usage: Usage | None) -> Usage | None:
        """What the backend has counted of the rest, with the beginning."""
        if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
            return usage
        prompt = max(0, usage.prompt_tokens - self.tokens)
        return usage.model_copy(
            update={
                "prompt_tokens": prompt,
                "completion_tokens": usage.completion_tokens + self.tokens,
                "cached_tokens": min(usage.cached_tokens, prompt),
            }
        )


def _tokens(pieces: Iterable[str], length: int) -> int:
    """Tokens of the first `length` letters, as near as fragments tell.

    Servers that can continue an answer send a fragment a token. They hold back what may become a
    stop word or is half a letter, so that a fragment may be two; longer ones are estimated.
    """
    total = 0
    for piece in pieces:
        if length <= 0:
            break
        size_bytes = len(piece[:length].encode())
        length -= len(piece)
        joined = size_bytes > _LONGEST_TOKEN_BYTES
        total += -(-size_bytes // _BYTES_A_TOKEN) if joined else 1
    return total


Open = Callable[[AnyRequest], AsyncGenerator[Event, None]]

_BROKE_OFF: Final = "the attempt before did not finish"
_MARKS: Final = (
    "<|", "|>", "<\uff5c", "<s>", "</s>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>",
    "<think>", "</think>", "<tool_call>",
)  # fmt: skip
_HALF_A_LETTER: Final = "\ufffd"


class Said:
    """What stands in a log since it was last reset."""

    def __init__(self) -> None:
        """Nothing was said."""
        self.answer = Fold()
        self.pieces: list[str] = []
        self.has_unknown = False
        """Whether there is anything that this version cannot read."""
        self.size_bytes = 0
        """Of all that stands in the log, taken back or not."""

    @classmethod
    async def of(cls, log: Log, job_id: str) -> "Said":
        """Read it; raises RelayUnavailable."""
        said = cls()
        async with aclosing(log.read(job_id)) as pages:
            async for frames in pages:
                for frame in frames:
                    said.size_bytes += len(frame.body)
                    said.add(frame.event)
        return said

    def add(self, event: AnyEvent) -> None:
        """Take the next event."""
        self.answer.add(event)
        match event:
            case Reset() | LogReset():
                self.pieces.clear()
                self.has_unknown = False
            case Delta(content=str(text)) if text:
                self.pieces.append(text)
            case Unknown():
                self.has_unknown = True
            case _:
                pass


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nothing was said: just ask."""


@dataclass(frozen=True, slots=True)
class StartOver:
    """Take back what was said, and ask again."""

    why: str


@dataclass(frozen=True, slots=True)
class GoOn:
    """Ask for the rest."""

    request: ChatRequest
    seam: Seam


@dataclass(frozen=True, slots=True)
class Enough:
    """All the tokens that it may have were said."""

    done: Done


Plan = Fresh | StartOver | GoOn | Enough


class _UnsoundError(Exception):
    """The rest does not fit to the beginning."""


async def plan(request: AnyRequest, said: Said, backend: Backend) -> Plan:
    """Decide what to make of what was said; raises what the backend raises when it is asked."""
    if not said.answer.has_output:
        return Fresh()
    if not isinstance(request, ChatRequest):
        return StartOver("this kind of job is done as a whole")
    if said.has_unknown:
        return StartOver("a worker of a newer version said what this one does not know")
    why = unsound(request, said.answer.result)
    if why is None and not await _continues(backend, request):
        why = "the backend cannot continue an answer"
    if why is not None:
        return StartOver(why)
    seam = Seam(said.pieces)
    limit = request.max_tokens
    if limit is not None and limit <= seam.tokens:
        return Enough(Done(finish_reason="length", usage=Usage(completion_tokens=seam.tokens)))
    return GoOn(_with_beginning(request, seam), seam)


def unsound(request: ChatRequest, answer: Result) -> str | None:
    """Why the rest of this answer cannot be asked for, in words; None if it can."""
    return _unsound_request(request) or _unsound_answer(answer) or _unsound_end(request, answer)


def _unsound_request(request: ChatRequest) -> str | None:
    if not isinstance(request.response_format, TextFormat):
        return "an answer in a format is written as a whole"
    if request.tools and request.tool_choice != "none":
        return "an answer that may call tools is written as a whole"
    if request.logprobs:
        return "how likely the tokens were is told of an answer as a whole"
    if request.suffix is not None or isinstance(request.prompt, tuple):
        return "text in the middle, or behind ids of tokens, is written as a whole"
    if request.prompt is not None:
        return None
    if request.think not in {"auto", "off"} or request.messages[-1].tool_calls:
        return "the model would think first"
    return None


def _unsound_answer(answer: Result) -> str | None:
    if answer.thinking:
        return "thoughts cannot be given back to the model"
    if answer.refusal or answer.tool_calls or answer.provider_meta or not answer.content.strip():
        return "nothing was said that could be continued"
    if any(mark in answer.content for mark in _MARKS):
        return "the text looks like a mark of a chat template"
    return None


def _unsound_end(request: ChatRequest, answer: Result) -> str | None:
    if answer.content.endswith(_HALF_A_LETTER):
        return "the text ends inside of a letter"
    if any(_begins_at_the_end(stop, answer.content) for stop in request.stop):
        return "the text ends like the beginning of a stop word"
    return None


def _begins_at_the_end(stop: str, text: str) -> bool:
    return any(text.endswith(stop[:length]) for length in range(1, len(stop) + 1))


async def _continues(backend: Backend, request: ChatRequest) -> bool:
    if request.prompt is not None and not isinstance(backend, HasModelLease):
        return True  # raw text goes on wherever it ends; only a library may lose a space there
    return isinstance(backend, Prefill) and await backend.prefills(request.model)


def _with_beginning(request: ChatRequest, seam: Seam) -> ChatRequest:
    """The caller's own beginning, if there is one, and ours are one message: two are refused."""
    limit = None if request.max_tokens is None else request.max_tokens - seam.tokens
    if isinstance(request.prompt, str):
        prompt = request.prompt + seam.beginning
        return request.model_copy(update={"prompt": prompt, "max_tokens": limit})
    *earlier, last = request.messages
    kept, own = (earlier, last.text) if last.role == "assistant" else (request.messages, "")
    beginning = Message(role="assistant", content=own + seam.beginning)
    messages = (*kept, beginning)
    return request.model_copy(update={"messages": messages, "max_tokens": limit})


class Continuation:
    """What one attempt says, as its plan wants it."""

    def __init__(self, chosen: Plan, request: AnyRequest, attempt: int, open: Open) -> None:
        """`open` asks the backend."""
        self._plan = chosen
        self._request = request
        self._attempt = attempt
        self._open = open

    async def events(self) -> AsyncGenerator[Event, None]:
        """Everything to be said, `resumed` or `reset` first; may be asked for again.

        That is for a model that was missing at first: what has been taken back stays taken back.
        """
        if isinstance(self._plan, Enough):
            yield self._resumed
            yield self._plan.done
            return
        if isinstance(self._plan, GoOn):
            try:
                async with aclosing(self._rest(self._plan)) as rest:
                    async for event in rest:
                        yield event
            except _UnsoundError as error:
                self._plan = StartOver(str(error))
            else:
                return
        if isinstance(self._plan, StartOver):
            yield Reset(attempt=self._attempt, reason=f"{_BROKE_OFF}, and {self._plan.why}")
            self._plan = Fresh()
        async with aclosing(self._open(self._request)) as whole:
            async for event in whole:
                yield event

    @property
    def _resumed(self) -> Resumed:
        return Resumed(attempt=self._attempt, reason=_BROKE_OFF)

    async def _rest(self, chosen: GoOn) -> AsyncGenerator[Event, None]:
        """The rest, joined to the beginning; raises _UnsoundError before anything was said."""
        is_resumed = False
        try:
            async with aclosing(self._open(chosen.request)) as rest:
                async for event in rest:
                    if not is_resumed and isinstance(event, Delta | Done):
                        _demand_text(event)
                        is_resumed = True
                        yield self._resumed
                    joined = _joined(chosen.seam, event)
                    if joined is not None:
                        yield joined
        except (BackendRejected, NotSupported) as error:
            if is_resumed:
                raise
            raise _UnsoundError("the backend would not continue it") from error
        except ContextExceeded:
            # The prompt had room, or nothing would have been said: the answer has filled it.
            if is_resumed:
                raise
            yield self._resumed
            spent = Usage(completion_tokens=chosen.seam.tokens)
            yield Done(finish_reason="length", usage=spent)


def _demand_text(event: Delta | Done) -> None:
    if isinstance(event, Delta) and (event.thinking or event.tool_calls or event.refusal):
        raise _UnsoundError("the model did something else than to go on")


def _joined(seam: Seam, event: Event) -> Event | None:
    match event:
        case Delta():
            content = seam.join(event.content or "")
            usage = seam.added_up(event.usage)
            rest = event.model_copy(update={"content": content or None, "usage": usage})
            return rest if rest != Delta() else None
        case Done():
            return seam.whole(event)
        case _:
            return event
