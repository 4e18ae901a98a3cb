"""Continues the answer of an earlier attempt where that is sound, and starts over elsewhere.

A chat is continued by sending its beginning back as a message of the assistant; the log gets
`resumed`. Everything else gets `reset` and starts over, if there was any output. Only this module
decides what is sound:

- The backend continues a trailing assistant message with this model (Prefill in protocols.py).
- The request is for plain text, and there is no other output. A grammar would start again in the
  middle (ai-dynamo/dynamo #7930), a tool parser would see half a call. A request has one answer, so
  #7930's other case (n > 1) cannot happen.
- There is no thinking: it is not sent back, so the model would write the rest without it. Where
  thinking was requested, the server would expect thinking first (vllm #38749 takes the rest of the
  answer for it), and some models think without showing it.
- The text ends between two characters, contains nothing like a mark of a chat template (a server
  would parse it as one), and does not end like the beginning of a stop sequence: what completes it
  could not be seen, and its beginning could not be taken back.

If the backend refuses the beginning, or thinks first nevertheless, the attempt starts over.
A seed gives the rest another course than the whole would have had; the beginning stays as it is.
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
"""A longer fragment is more than one token: the publisher or the server has joined some."""
_BYTES_A_TOKEN: Final = 4


Open = Callable[[AnyRequest], AsyncGenerator[Event, None]]

_BROKE_OFF: Final = "the attempt before did not finish"
_MARKS: Final = (
    "<|", "|>", "<\uff5c", "<s>", "</s>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>",
    "<think>", "</think>", "<tool_call>",
)  # fmt: skip
_REPLACEMENT: Final = "\ufffd"


class EarlierOutput:
    """What earlier attempts have written into a log since its last reset."""

    def __init__(self) -> None:
        """Start empty."""
        self.answer = Fold()
        self.pieces: list[str] = []
        self.has_unknown = False
        """Whether there is an event that this version cannot read."""
        self.size_bytes = 0
        """Bytes of all events in the log, reset or not."""

    @classmethod
    async def of(cls, log: Log, job_id: str) -> "EarlierOutput":
        """Read the log of a job; raises RelayUnavailable."""
        output, damage = cls(), list[bool]()
        async with aclosing(log.read(job_id, on_damage=lambda: damage.append(True))) as pages:
            async for frames in pages:
                for frame in frames:
                    output.size_bytes += len(frame.body)
                    output.add(frame.event)
        output.has_unknown |= bool(damage)
        return output

    def add(self, event: AnyEvent) -> None:
        """Add the next event."""
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


class Joiner:
    """Joins the rest of an answer to its beginning."""

    def __init__(self, pieces: Iterable[str]) -> None:
        """Take the fragments of the beginning, in order."""
        text = "".join(pieces := list(pieces))
        self.beginning = text.rstrip()
        """What is sent back to the backend, without trailing white space."""
        self.tokens = _tokens(pieces, len(self.beginning))
        """Tokens of the beginning: an estimate, see `_tokens`."""
        self._trailing = text[len(self.beginning) :]
        self._is_first = True

    def join(self, content: str) -> str:
        """Return the part of the next fragment that is not in the log yet."""
        if self._is_first and content:
            self._is_first = False
            content = self._without_echo(content)
        while content and self._trailing and content[0] == self._trailing[0]:
            content, self._trailing = content[1:], self._trailing[1:]
        if content:
            self._trailing = ""
        return content

    def _without_echo(self, content: str) -> str:
        """Remove the beginning, which llama-server repeats in its first fragment.

        Versions since May 2026 do not, with the flags that the adapter sends (llama.cpp #23012,
        #23089). A short repetition may be the model's own; a long one is more than one token.
        """
        is_long = len(self.beginning.encode()) > _LONGEST_TOKEN_BYTES
        return content.removeprefix(self.beginning) if is_long else content

    def whole(self, done: Done) -> Done:
        """Return the `done` of the whole answer, with the usage of both parts."""
        return done.model_copy(update={"usage": self.added_up(done.usage)})

    def added_up(self, usage: Usage | None) -> Usage | None:
        """Return the usage of both parts: the beginning counts as completion, not as prompt.

        A backend that counts nothing gets no estimate.
        """
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
    """Estimate the tokens of the first `length` characters from the fragments.

    Servers that can continue an answer send one token a fragment. They hold back what may become a
    stop sequence or is half a character, so a fragment may be two tokens; longer ones are estimated
    by their bytes.
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


@dataclass(frozen=True, slots=True)
class Fresh:
    """There is no output: send the request as it is."""


@dataclass(frozen=True, slots=True)
class StartOver:
    """Reset the log, and send the request as it is."""

    why: str


@dataclass(frozen=True, slots=True)
class Continue:
    """Request the rest of the answer."""

    request: ChatRequest
    joiner: Joiner


@dataclass(frozen=True, slots=True)
class Complete:
    """The answer already has all the tokens that the request allows."""

    done: Done


Plan = Fresh | StartOver | Continue | Complete


class _UnsoundError(Exception):
    """The rest does not fit the beginning."""


async def plan(request: AnyRequest, earlier: EarlierOutput, backend: Backend) -> Plan:
    """Decide how an attempt continues; raises BackendError if the backend cannot be reached."""
    if not earlier.answer.has_output:
        return Fresh()
    if not isinstance(request, ChatRequest):
        return StartOver("this kind of job is run as a whole")
    if earlier.has_unknown:
        return StartOver("a newer worker wrote events that this one cannot read")
    why = unsound(request, earlier.answer.result)
    if why is None and not await _continues(backend, request):
        why = "the backend cannot continue an answer"
    if why is not None:
        return StartOver(why)
    joiner = Joiner(earlier.pieces)
    limit = request.max_tokens
    if limit is not None and limit <= joiner.tokens:
        return Complete(Done(finish_reason="length", usage=Usage(completion_tokens=joiner.tokens)))
    return Continue(_with_beginning(request, joiner), joiner)


def unsound(request: ChatRequest, answer: Result) -> str | None:
    """Return why the rest of this answer cannot be requested; None if it can."""
    return _unsound_request(request) or _unsound_answer(answer) or _unsound_end(request, answer)


def _unsound_request(request: ChatRequest) -> str | None:
    if not isinstance(request.response_format, TextFormat):
        return "an answer in a format is generated as a whole"
    if request.tools and request.tool_choice != "none":
        return "an answer that may call tools is generated as a whole"
    if request.logprobs:
        return "log probabilities belong to a whole answer"
    if request.suffix is not None or isinstance(request.prompt, tuple):
        return "text in the middle, or after ids of tokens, is generated as a whole"
    if request.prompt is not None:
        return None
    if request.think not in {"auto", "off"} or request.messages[-1].tool_calls:
        return "the model would think first"
    return None


def _unsound_answer(answer: Result) -> str | None:
    if answer.thinking:
        return "thinking cannot be sent back to the model"
    if answer.refusal or answer.tool_calls or answer.provider_meta or not answer.content.strip():
        return "there is no text that could be continued"
    if any(mark in answer.content for mark in _MARKS):
        return "the text looks like a mark of a chat template"
    return None


def _unsound_end(request: ChatRequest, answer: Result) -> str | None:
    if answer.content.endswith(_REPLACEMENT):
        return "the text ends inside of a character"
    if any(_begins_at_the_end(stop, answer.content) for stop in request.stop):
        return "the text ends like the beginning of a stop sequence"
    return None


def _begins_at_the_end(stop: str, text: str) -> bool:
    return any(text.endswith(stop[:length]) for length in range(1, len(stop) + 1))


async def _continues(backend: Backend, request: ChatRequest) -> bool:
    if request.prompt is not None and not isinstance(backend, HasModelLease):
        return True  # raw text continues anywhere; only a library may lose a space there
    return isinstance(backend, Prefill) and await backend.prefills(request.model)


def _with_beginning(request: ChatRequest, joiner: Joiner) -> ChatRequest:
    """Return the request with the beginning as its last message.

    A trailing assistant message of the client and the beginning become one message: servers refuse
    two in a row.
    """
    limit = None if request.max_tokens is None else request.max_tokens - joiner.tokens
    if isinstance(request.prompt, str):
        prompt = request.prompt + joiner.beginning
        return request.model_copy(update={"prompt": prompt, "max_tokens": limit})
    *earlier, last = request.messages
    before, own = (earlier, last.text) if last.role == "assistant" else (request.messages, "")
    beginning = Message(role="assistant", content=own + joiner.beginning)
    messages = (*before, beginning)
    return request.model_copy(update={"messages": messages, "max_tokens": limit})


class Continuation:
    """The events of one attempt, by its plan."""

    def __init__(self, chosen: Plan, request: AnyRequest, attempt: int, open: Open) -> None:
        """`open` sends a request to the backend and returns its stream."""
        self._plan = chosen
        self._request = request
        self._attempt = attempt
        self._open = open

    def events(self) -> AsyncGenerator[Event, None]:
        """Yield all events of the attempt, `resumed` or `reset` first.

        May be called again after a missing model was pulled: `reset` is not repeated. Raises
        BackendError.
        """
        if isinstance(self._plan, Fresh):
            return self._open(self._request)  # as nearly all: one generator less for each event
        return self._continued()

    async def _continued(self) -> AsyncGenerator[Event, None]:
        if isinstance(self._plan, Complete):
            yield self._resumed
            yield self._plan.done
            return
        if isinstance(self._plan, Continue):
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

    async def _rest(self, chosen: Continue) -> AsyncGenerator[Event, None]:
        """Yield the rest, joined to the beginning; raises _UnsoundError before its first event."""
        is_resumed = False
        try:
            async with aclosing(self._open(chosen.request)) as rest:
                async for event in rest:
                    if not is_resumed and isinstance(event, Delta | Done):
                        _demand_text(event)
                        is_resumed = True
                        yield self._resumed
                    joined = _joined(chosen.joiner, event)
                    if joined is not None:
                        yield joined
        except (BackendRejected, NotSupported) as error:
            if is_resumed:
                raise
            raise _UnsoundError("the backend refused to continue it") from error
        except ContextExceeded:
            # The prompt fitted before, or there would be no output: the answer has filled the rest.
            if is_resumed:
                raise
            yield self._resumed
            spent = Usage(completion_tokens=chosen.joiner.tokens)
            yield Done(finish_reason="length", usage=spent)


def _demand_text(event: Delta | Done) -> None:
    if isinstance(event, Delta) and (event.thinking or event.tool_calls or event.refusal):
        raise _UnsoundError("the model did not continue the text")


def _joined(joiner: Joiner, event: Event) -> Event | None:
    match event:
        case Delta():
            content = joiner.join(event.content or "")
            usage = joiner.added_up(event.usage)
            rest = event.model_copy(update={"content": content or None, "usage": usage})
            return rest if rest != Delta() else None
        case Done():
            return joiner.whole(event)
        case _:
            return event
