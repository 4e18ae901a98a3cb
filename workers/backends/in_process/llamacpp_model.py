"""A GGUF model loaded through llama-cpp-python: text generation and embeddings, blocking.

The chat template is rendered here and not by the library, whose chat API passes no variables to
the template, does not return the prompt, counts no tokens, and supports no prefill. Not
thread-safe.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from contract.chat import ChatRequest
from contract.errors import (
    BackendRejected,
    BadEndpoint,
    ContextExceeded,
    InputTooLarge,
    NotSupported,
    ServerFault,
)
from contract.events import FinishReason, Usage
from workers.backends.in_process.chat_template import TemplatedChat, unsupported_fields
from workers.backends.in_process.thread_stream import ThreadStream
from workers.backends.in_process.tool_parser import (
    THINK,
    GeneratedItem,
    GenerationEnd,
    GenerationStart,
)

EXTRA: Final = "pip install 'llama-cpp-python>=0.3.16'"
"""Not an extra: it has no wheels and compiles for minutes."""
DEFAULT_CONTEXT: Final = 4096
"""Tokens of context if not configured; less if the model has less."""
TEMPLATE: Final = "tokenizer.chat_template"
Pooling = Literal["mean", "cls", "last"]
_POOLING: Final[Mapping[Pooling | None, int]] = {None: -1, "mean": 1, "cls": 2, "last": 3}
"""llama.cpp's enum values; -1 is the default of the model."""
_NONE: Final = 0
_SEEDS: Final = 2**32
_SAMPLING: Final = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "frequency_penalty", "presence_penalty",
    "repeat_penalty",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How a model is loaded."""

    context: int = 0
    """Tokens; 0: what the model was trained for, up to DEFAULT_CONTEXT."""
    threads: int | None = None
    gpu_layers: int = 0
    batch: int = 512
    """Tokens of one batch; a cancel takes effect between batches."""
    pooling: Pooling | None = None


class StreamClosed(Exception):
    """The reader has closed the stream."""


class LlamaModel:
    """One loaded model."""

    def __init__(self, file: Path, options: LlamaOptions, *, embeds: bool) -> None:
        """Load it, to chat or to embed; raises BadEndpoint if llama.cpp fails to."""
        import llama_cpp  # noqa: PLC0415 - the package is optional

        trained = trained_context(metadata(file))
        context = options.context or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        # An embedding is computed in one batch, so a longer text cannot be embedded.
        batch = context if embeds else min(options.batch, context)
        self._library = llama_cpp
        with _foreign(BadEndpoint, f"cannot load {file.name}"):
            self._llama: Any = _counting(llama_cpp)(
                model_path=str(file),
                n_ctx=context,
                n_batch=batch,
                n_ubatch=batch,
                n_threads=options.threads,
                n_threads_batch=options.threads,
                n_gpu_layers=options.gpu_layers,
                embedding=embeds,
                pooling_type=_POOLING[options.pooling],
                verbose=False,
            )
        self.name = file.stem

    def chat(
        self, request: ChatRequest, chat: TemplatedChat, stream: ThreadStream[GeneratedItem]
    ) -> None:
        """Generate into `stream` until the end, or until it is closed.

        Raises ContextExceeded, NotSupported or BackendRejected for an unusable request.
        """
        template = self._llama.metadata.get(TEMPLATE, "")
        prompt = self._prompt(chat, template)
        stream.put(
            GenerationStart(prompt.rstrip().endswith(THINK), unsupported_fields(chat, template))
        )
        # A template contains the BOS token itself.
        is_raw = not chat.messages
        tokens = self._llama.tokenize(prompt.encode(), add_bos=is_raw, special=not is_raw)
        self._llama.begin(lambda: not stream.is_closed)
        finish: FinishReason = "stop"
        with (
            _foreign(ServerFault, f"{self.name} failed"),
            closing(
                self._llama.create_completion(tokens, stream=True, **self._options(request, chat))
            ) as chunks,
        ):
            for chunk in chunks:
                (choice,) = chunk["choices"]
                finish = choice["finish_reason"] or finish
                if choice["text"] and not stream.put(choice["text"]):
                    break
        stream.put(GenerationEnd(finish, self._llama.usage()))

    def _prompt(self, chat: TemplatedChat, template: str) -> str:
        if not chat.messages:
            return chat.prefix
        if not template:
            raise NotSupported(f"{self.name} has no chat template: it cannot chat")
        formatter = self._library.llama_chat_format.Jinja2ChatFormatter(
            template, eos_token=self._piece("eos"), bos_token=self._piece("bos")
        )
        with _foreign(BackendRejected, f"{self.name}'s template refuses the messages"):
            filled = formatter(messages=chat.messages, tools=chat.tools, **chat.context)
        return str(filled.prompt) + chat.prefix

    def _piece(self, kind: str) -> str:
        token = getattr(self._llama, f"token_{kind}")()
        return self._llama._model.token_get_text(token) if token >= 0 else ""  # noqa: SLF001 - the library does the same

    def _options(self, request: ChatRequest, chat: TemplatedChat) -> dict[str, Any]:
        sampling = {
            name: value for name in _SAMPLING if (value := getattr(request, name)) is not None
        }
        # The library's default seed is the same after every load.
        seed = secrets.randbelow(_SEEDS) if request.seed is None else request.seed % _SEEDS
        options = {"max_tokens": None, **sampling, "seed": seed, "stop": list(request.stop)}
        if request.logit_bias:
            options["logit_bias"] = request.logit_bias
        if chat.schema is not None:
            grammar = self._library.LlamaGrammar.from_json_schema
            with _foreign(NotSupported, "response_format: llama.cpp cannot enforce this schema"):
                options["grammar"] = grammar(json.dumps(chat.schema), verbose=False)
        return options

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[list[list[float]], int]:
        """A unit vector per text, and the tokens of all texts.

        `first` is the index of the first text. Raises InputTooLarge for a text longer than one
        batch without `truncate`, NotSupported for a model without a pooling type.
        """
        llama = self._llama
        if llama.pooling_type() == _NONE:
            raise NotSupported(
                f"{self.name} has no pooling type: configure pooling=mean, cls or last"
            )
        if not truncate:
            self._demand_room(texts, first)
        with _foreign(ServerFault, f"{self.name} failed"):
            rows, tokens = llama.embed(list(texts), normalize=True, return_count=True)
        return rows, tokens

    def _demand_room(self, texts: Sequence[str], first: int) -> None:
        limit = self._llama.n_batch
        for at, text in enumerate(texts, first):
            if (count := len(self._llama.tokenize(text.encode()))) > limit:
                raise InputTooLarge(
                    f"input[{at}] has {count} tokens, and {self.name} takes {limit}; cut it, or"
                    " allow truncate"
                )

    def close(self) -> None:
        """Free the memory."""
        self._llama.close()


def metadata(file: Path) -> dict[str, str]:
    """The metadata of a GGUF file, read without its weights; raises BadEndpoint."""
    import llama_cpp  # noqa: PLC0415

    with _foreign(BadEndpoint, f"cannot read {file.name}"):
        reader = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
        with closing(reader):
            return dict(reader.metadata)


def trained_context(gguf: Mapping[str, str]) -> int | None:
    """Tokens of context that the model was trained for."""
    return _number(gguf, "context_length")


def width(gguf: Mapping[str, str]) -> int | None:
    """The width of an embedding."""
    return _number(gguf, "embedding_length")


def is_pooled(gguf: Mapping[str, str]) -> bool:
    """Whether the model has a pooling type, which only embedding models have."""
    return (_number(gguf, "pooling_type") or _NONE) != _NONE


def _number(gguf: Mapping[str, str], name: str) -> int | None:
    text = gguf.get(f"{gguf.get('general.architecture')}.{name}", "")
    return int(text) if text.isdecimal() else None


def _counting(library: Any) -> Any:  # noqa: C901 - a class of four short methods
    """A subclass of the library's model that counts tokens and can be stopped in a prompt."""

    class Counting(library.Llama):  # type: ignore[misc]
        """Counts the tokens of one completion at a time."""

        _is_read = staticmethod(lambda: True)

        def begin(self, is_read: Callable[[], bool]) -> None:
            self._is_read = is_read
            self._prompt = self._read = self._written = 0

        def usage(self) -> Usage:
            return Usage(
                prompt_tokens=self._prompt,
                completion_tokens=self._written,
                cached_tokens=max(0, self._prompt - self._read),
            )

        def eval(self, tokens: Sequence[int]) -> None:
            if not self._written:
                self._read += len(tokens)
            for start in range(0, len(tokens), self.n_batch):
                if not self._is_read():
                    raise StreamClosed
                super().eval(tokens[start : start + self.n_batch])

        def generate(self, tokens: Sequence[int], *args: Any, **options: Any) -> Iterator[int]:
            self._prompt = len(tokens)
            for token in super().generate(tokens, *args, **options):
                if not library.llama_vocab_is_eog(self._model.vocab, token):
                    self._written += 1
                yield token

    return Counting


@contextmanager
def _foreign(
    error: type[BadEndpoint | ServerFault | NotSupported | BackendRejected], what: str
) -> Iterator[None]:
    """Raise errors of the library, which are built-in exceptions, as BackendError."""
    try:
        yield
    except StreamClosed:
        return
    except Exception as problem:
        gguf = " ".join(str(problem).split())[:300]
        if isinstance(problem, ValueError) and "exceed context" in gguf:
            raise ContextExceeded(gguf) from problem
        raise error(f"{what}: {gguf}") from problem
