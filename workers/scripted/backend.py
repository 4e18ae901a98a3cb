"""The scripted backend: an in-process backend whose model names are scripts (`script.py`).

It is for tests and the demo, and the fallback of `fleet up` when no real server is found; the text
of its story says so.
"""

import asyncio
import math
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from contract.chat import ChatRequest, CountRequest
from contract.embeddings import EmbedRequest, pack
from contract.errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
    ContextExceeded,
    ModelLoading,
    ModelMissing,
    ServerFault,
    TruncatedStream,
)
from contract.events import (
    Delta,
    Details,
    Done,
    FinishReason,
    Image,
    LogProb,
    Phase,
    Progress,
    Scores,
    ToolCallDelta,
    Usage,
    Vectors,
)
from contract.features import Feature
from contract.images import ImageRequest
from contract.model_kinds import MODEL_KINDS
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.rerank import RerankRequest
from contract.roster import ModelReport, ModelTrait
from workers.backends.protocols import Stream
from workers.scripted.picture import drawn
from workers.scripted.script import (
    EARLY_FAULTS,
    FORMS,
    Prompt,
    Script,
    Turn,
    generate,
    may_fail,
    parse,
    scores,
    turns_in,
    vectors,
)

VERSION: Final = "scripted"
EMBED_BATCH: Final = 64
LAYERS: Final = (("sha256:" + "a" * 64, 4_000_000), ("sha256:" + "b" * 64, 1_000_000))
"""The layers of a pull: digests and sizes in bytes."""
PULL_STEPS: Final = 10

_EARLY: Final[dict[str, BackendError]] = {
    "html": BadEndpoint("an HTML page titled 'scripted' (HTTP 200)"),
    "body": ServerFault("scripted error in a body of status 200"),
    "busy": BackendBusy("scripted: too many requests (HTTP 429)", retry_after_s=2.0),
    "loading": ModelLoading("Loading model (HTTP 503)"),
    "missing": ModelMissing("scripted: model not found (HTTP 404)"),
    "context": ContextExceeded("scripted: the prompt exceeds the context length (HTTP 400)"),
    "auth": AuthenticationRefused("scripted: invalid key (HTTP 401)"),
    "crash": ServerFault("scripted: crashed (HTTP 500)", scope="model"),
}
_TRAITS: Final[dict[str, tuple[ModelTrait, ...]]] = {
    "scripted-echo": ("chat", "vision"),
    "scripted-think": ("chat", "thinking"),
    "scripted-tools": ("chat", "tools", "thinking"),
    "scripted-embed": ("embed",),
    "scripted-image": ("image",),
    "scripted-rerank": ("rerank",),
}


class ScriptedMemory:
    """Holds `room` models; the least recently used one is evicted."""

    def __init__(self, room: int | None) -> None:
        """Empty; `room` None is unlimited, and no model counts as cold."""
        self._room = room
        self._models: dict[str, None] = {}

    def __contains__(self, model: str) -> bool:
        """Whether the model is loaded."""
        return model in self._models

    def __iter__(self) -> Iterator[str]:
        """The loaded models."""
        return iter(tuple(self._models))

    @property
    def limited_models(self) -> tuple[str, ...]:
        """The loaded models if `room` is limited, else ()."""
        return () if self._room is None else tuple(self._models)

    def use(self, model: str) -> None:
        """Load a model, or mark it as used."""
        self._models.pop(model, None)
        self._models[model] = None
        while self._room is not None and len(self._models) > self._room:
            self.drop(next(iter(self._models)))

    def drop(self, model: str) -> None:
        """Unload a model, if it is loaded."""
        self._models.pop(model, None)

    def is_warm(self, model: str) -> bool | None:
        """Whether the model is loaded; None if not loaded and `room` is unlimited."""
        return True if model in self._models else (None if self._room is None else False)


class Scripted:
    """Generates the responses of scripts; models can be pulled, copied and deleted."""

    grants: Final[frozenset[Feature]] = frozenset({"prompt", "suffix", "token_ids", "logprobs"})

    def __init__(
        self,
        name: str = "scripted",
        *,
        idle_s: float = 120.0,
        room: int | None = None,
        evicts: bool = False,
        may_die: bool = False,
    ) -> None:
        """`idle_s` is the idle timeout of a stalled script, `room` the models in memory at once.

        `evicts`: a model may be evicted while it generates, which cuts its responses off.
        `may_die`: a script may kill this process.
        """
        self.name = name
        self._evicts = evicts
        self._may_die = may_die
        self._idle_s = idle_s
        self._failed: Counter[str] = Counter()
        self._warm = ScriptedMemory(room)
        self._scripts = {form: form for form in FORMS}

    async def check(self) -> str | None:
        """Always succeeds."""
        return VERSION

    async def prefills(self, model: str) -> bool:  # noqa: ARG002 - all of them do
        """Always: a script continues after any character."""
        return True

    async def models(self) -> Sequence[ModelReport]:
        """The forms, the pulled, copied and created models, and the loaded ones."""
        names = {name: self._form(name) for name in self._warm.limited_models} | self._scripts
        return [self._report(name, form) for name, form in names.items()]

    async def aclose(self) -> None:
        """No connection is open."""

    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """Generate the response of the model's script; raises the error of its fault."""
        script = self._script(request.model)
        fault = self._fault(script)
        if script.load and request.model not in self._warm:
            yield Phase(phase="loading")
            await asyncio.sleep(script.load)
        self._warm.use(request.model)
        turn = generate(script, prompt_of(request))
        async for delta in self._stream_words(script, turn, fault, request):
            yield delta
        finish: FinishReason = "content_filter" if fault == "refuse" else finish_of(turn)
        yield Done(
            finish_reason=finish,
            stop_sequence=turn.stop_sequence if fault is None else None,
            usage=Usage(prompt_tokens=turn.prompt_tokens, completion_tokens=turn.completion_tokens),
        )

    async def count(self, request: CountRequest) -> Stream[Details | Done]:
        """Count the words of the messages; raises the error of the script's fault."""
        script = self._script(request.model)
        if (fault := self._fault(script)) is not None:
            await self._raise_fault(fault)
        words = sum(len(message.text.split()) for message in request.messages)
        yield Details(details={"input_tokens": words})
        yield Done()

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Yield hashed vectors; raises the error of the script's fault."""
        script = self._script(request.model)
        dimension = request.dimensions or script.dim
        texts = texts_of(request)
        if may_fail(script, texts) and (fault := self._fault(script)) is not None:
            await self._raise_fault(fault)
        for start in range(0, len(texts), EMBED_BATCH):
            rows = vectors(script, texts[start : start + EMBED_BATCH], dimension)
            yield Vectors(index=start, count=len(rows), dimension=dimension, data=pack(rows))
            await asyncio.sleep(1 / script.rate if script.rate else 0)
        yield Done(usage=Usage(prompt_tokens=sum(len(text.split()) for text in texts)))

    def max_pairs(self, model: str) -> int:  # noqa: ARG002 - the same for all
        """The most pairs of one request."""
        return EMBED_BATCH

    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """Yield the scores of the script; raises the error of its fault."""
        script = self._script(request.model)
        if may_fail(script, request.documents) and (fault := self._fault(script)) is not None:
            await self._raise_fault(fault)
        pairs = request.pairs
        for start in range(0, len(pairs), EMBED_BATCH):
            found = scores(script, pairs[start : start + EMBED_BATCH])
            yield Scores(index=start, scores=tuple(found), top_n=request.top_n)
            await asyncio.sleep(1 / script.rate if script.rate else 0)
        words = sum(len(text.split()) for pair in pairs for text in pair)
        yield Done(usage=Usage(prompt_tokens=words))

    async def image(self, request: ImageRequest) -> Stream[Phase | Progress | Image | Done]:
        """Draw images; raises the error of the script's fault."""
        script = self._script(request.model)
        fault = self._fault(script)
        async for event in drawn(script, request, until=None if fault is None else script.after):
            yield event
        if fault is not None:
            await self._raise_fault(fault)
        yield Done(ignored=("mime_type",) if request.mime_type != "image/png" else ())

    async def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """Report the progress of two layers, `rate` steps per second if the name is a script."""
        script = parse(request.model if request.model.startswith(FORMS) else FORMS[0])
        if (fault := self._fault(script)) is not None:
            await self._raise_fault(fault)
        yield Progress(status="pulling manifest")
        done_bytes, seen_bytes = 0, 0
        for digest, total in LAYERS:
            seen_bytes += total
            for step in range(1, PULL_STEPS + 1):
                await asyncio.sleep(1 / script.rate if script.rate else 0)
                completed = total * step // PULL_STEPS
                yield Progress(
                    status=f"pulling {digest[7:19]}",
                    digest=digest,
                    total_bytes=total,
                    completed_bytes=completed,
                    overall_total_bytes=seen_bytes,
                    overall_completed_bytes=done_bytes + completed,
                )
            done_bytes += total
        self._scripts.setdefault(request.model, script.form)
        yield Progress(status="success")
        yield Done()

    async def show(self, request: ShowRequest) -> Stream[Details | Done]:
        """The report of a model, with a license and family."""
        form = self._form(request.model)
        report = self._report(request.model, form).model_dump(exclude_none=True)
        yield Details(details=report | {"license": "none", "details": {"family": "scripted"}})
        yield Done()

    async def create(self, request: CreateRequest) -> Stream[Progress | Done]:
        """Register a model under the script of its source."""
        self._scripts[request.model] = self._form(request.source)
        yield Progress(status="success")
        yield Done()

    async def copy(self, request: CopyRequest) -> Stream[Done]:
        """Register a model under a second name."""
        self._scripts[request.destination] = self._form(request.model)
        yield Done()

    async def delete(self, request: DeleteRequest) -> Stream[Done]:
        """Delete a model."""
        self._form(request.model)
        self._scripts.pop(request.model, None)
        self._warm.drop(request.model)
        yield Done()

    async def running(self) -> Stream[Details | Done]:
        """The models in memory."""
        yield Details(details={"models": [{"name": name} for name in sorted(self._warm)]})
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """Load a model, for the seconds of the script."""
        script = self._script(request.model)
        yield Phase(phase="loading")
        await asyncio.sleep(script.load)
        self._warm.use(request.model)
        yield Done()

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """Unload a model."""
        self._form(request.model)
        self._warm.drop(request.model)
        yield Done()

    async def _stream_words(
        self, script: Script, turn: Turn, fault: str | None, request: ChatRequest
    ) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(script.first)
        for at, delta in enumerate(deltas(turn, request), start=1):
            if fault is not None and at > script.after:
                if fault == "refuse":
                    return
                await self._raise_fault(fault)
            if self._evicts and script.model not in self._warm:
                raise TruncatedStream("scripted: its model was evicted from memory")
            yield delta
            await asyncio.sleep(1 / script.rate if script.rate else 0)
        if fault is not None and fault != "refuse":
            await self._raise_fault(fault)

    async def _raise_fault(self, fault: str) -> None:
        """Raise the error of a fault; `die` kills the process if `may_die` allows it."""
        match fault:
            case "die" if self._may_die:
                os.kill(os.getpid(), signal.SIGKILL)
            case "stall":
                await asyncio.sleep(self._idle_s)
                raise BackendStalled(f"scripted: silent for {self._idle_s:g} s")
            case "error":
                raise ServerFault("scripted error in the middle of the stream")
            case "drop":
                raise BackendUnreachable("scripted: connection dropped")
            case _:
                raise TruncatedStream(f"scripted: {fault}")

    def _fault(self, script: Script) -> str | None:
        """The fault of this request; raises faults that replace the response at once."""
        if script.fail is None or self._failed[script.model] >= script.times:
            return None
        if script.times != math.inf:
            self._failed[script.model] += 1
        if script.fail in EARLY_FAULTS:
            error = _EARLY[script.fail]
            raise type(error)(error.message, retry_after_s=error.retry_after_s, scope=error.scope)
        return script.fail

    def _form(self, model: str) -> str:
        return self._scripts.get(model) or parse(model).form

    def _script(self, model: str) -> Script:
        return parse(self._scripts.get(model, model))

    def _report(self, name: str, form: str) -> ModelReport:
        is_embedding = form == "scripted-embed"
        traits = _TRAITS.get(form, ("chat",))
        known: tuple[ModelTrait, ...] = (*MODEL_KINDS, "thinking")
        return ModelReport(
            name=name,
            traits=traits,
            lacks=tuple(trait for trait in known if trait not in traits),
            warm=self._warm.is_warm(name),
            context_length=8192,
            dimension=parse(form).dim if is_embedding else None,
        )


def prompt_of(request: ChatRequest) -> Prompt:
    """The `Prompt` of a chat request."""
    if request.prompt is not None:
        text = _text(request.prompt)
        return Prompt(text=text, is_raw=True, max_tokens=request.max_tokens, stop=request.stop)
    last = request.messages[-1]
    users = [message for message in request.messages if message.role == "user"]
    turns, turn = turns_in((message.role, message.text) for message in request.messages)
    return Prompt(
        text=users[-1].text if users else "",
        prefill=last.text if last.role == "assistant" else "",
        tools=tuple(tool.name for tool in request.tools) if request.tool_choice != "none" else (),
        max_tokens=request.max_tokens,
        stop=request.stop,
        images=len(users[-1].images) if users else 0,
        turns=turns,
        turn=turn,
    )


def texts_of(request: EmbedRequest) -> tuple[str, ...]:
    """The texts of a request; each token id is a word."""
    return request.input or tuple(_text(ids) for ids in request.tokens)


def deltas(turn: Turn, request: ChatRequest) -> Iterator[Delta]:
    """The deltas of a turn, one per word; with logprobs of -0.5 if requested."""
    for word in turn.thinking:
        yield Delta(thinking=word)
    for word in turn.content:
        yield Delta(content=word, logprobs=_logprobs(word, request) if request.logprobs else None)
    for index, (name, arguments) in enumerate(turn.calls):
        call = ToolCallDelta(index=index, id=f"call_{index}", name=name, arguments=arguments)
        yield Delta(tool_calls=(call,))


def _logprobs(word: str, request: ChatRequest) -> tuple[LogProb, ...]:
    one = LogProb(token=word, logprob=-0.5, bytes=tuple(word.encode()))
    return (one.model_copy(update={"top_logprobs": (one,) * min(1, request.top_logprobs)}),)


def finish_of(turn: Turn) -> FinishReason:
    """The finish reason of a turn."""
    if turn.calls:
        return "tool_calls"
    return "length" if turn.finish == "length" else "stop"


def _text(prompt: str | tuple[int, ...]) -> str:
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
