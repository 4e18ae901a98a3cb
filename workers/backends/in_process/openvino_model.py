"""A model in memory through OpenVINO GenAI: messages to text, texts to vectors. It blocks.

Stop words are looked for here: the library's own are missed where a token is longer than the word
(seen in 2026.4). Not for two threads at once.
"""

import json
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from contract.events import Usage
from workers.backends.in_process.chat_template import TemplatedChat, unsupported_fields
from workers.backends.in_process.stops import Stops
from workers.backends.in_process.thread_stream import ThreadStream
from workers.backends.in_process.tool_parser import (
    THINK,
    GeneratedItem,
    GenerationEnd,
    GenerationStart,
)

EXTRA: Final = "pip install openvino-genai openvino-tokenizers"
Pooling = Literal["mean", "cls", "last"]
_POOLING: Final = {"mean": "MEAN", "cls": "CLS", "last": "LAST_TOKEN"}
_SEEDS: Final = 2**32
_SAMPLING: Final = (
    "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OpenVinoOptions:
    """How a model is loaded."""

    device: str = "CPU"
    """As OpenVINO names them: CPU, GPU, NPU, AUTO."""
    context: int = 0
    """Tokens; 0: what the model says of itself."""
    threads: int | None = None
    pooling: Pooling = "mean"

    @property
    def properties(self) -> dict[str, Any]:
        """For the device."""
        return {} if self.threads is None else {"INFERENCE_NUM_THREADS": self.threads}


class OpenVinoChat:
    """A loaded model that chats."""

    def __init__(self, path: Path, options: OpenVinoOptions, context: int) -> None:
        """Load it; `context` is its length in tokens. Raises BadEndpoint if OpenVINO cannot."""
        import openvino_genai  # noqa: PLC0415 - the package is optional

        self._library = openvino_genai
        self._name = path.stem
        self._context = context
        with _foreign(BadEndpoint, f"cannot load {path.name}"):
            self._pipeline: Any = openvino_genai.LLMPipeline(
                str(path), options.device, **options.properties
            )
            self._tokenizer: Any = self._pipeline.get_tokenizer()

    def chat(
        self, request: ChatRequest, asked: TemplatedChat, stream: ThreadStream[GeneratedItem]
    ) -> None:
        """Say the answer, until it ends or nobody listens.

        Raises ContextExceeded, NotSupported or BackendRejected for what the model cannot take.
        """
        prompt = self._prompt(asked)
        ignored = unsupported_fields(asked, self._tokenizer.chat_template)
        stream.put(GenerationStart(prompt.rstrip().endswith(THINK), ignored))
        tokens = self._tokenizer.encode(prompt, add_special_tokens=not asked.messages)
        room = self._context - int(tokens.input_ids.shape[1])
        if room <= 0:
            raise ContextExceeded(
                f"the prompt has {self._context - room} tokens, and the context of {self._name}"
                f" is {self._context}"
            )
        stops = Stops(request.stop)
        with _foreign(ServerFault, f"{self._name} broke"):
            result = self._pipeline.generate(
                tokens, self._config(request, asked, room), self._streamer(stops, stream)
            )
        stream.put(stops.rest())
        reason = result.finish_reasons[0] if result.finish_reasons else None
        is_cut = reason == self._library.GenerationFinishReason.LENGTH and not stops.is_met
        metrics = result.perf_metrics
        usage = Usage(
            prompt_tokens=metrics.get_num_input_tokens(),
            completion_tokens=metrics.get_num_generated_tokens(),
        )
        stream.put(GenerationEnd("length" if is_cut else "stop", usage))

    def _prompt(self, asked: TemplatedChat) -> str:
        if not asked.messages:
            return asked.said
        if not self._tokenizer.chat_template:
            raise NotSupported(f"{self._name} has no chat template: it cannot chat")
        with _foreign(BackendRejected, f"{self._name}'s template refuses the messages"):
            filled = self._tokenizer.apply_chat_template(
                asked.messages,
                add_generation_prompt=True,
                tools=asked.tools,
                extra_context=asked.context or None,
            )
        return str(filled) + asked.said

    def _streamer(self, stops: Stops, stream: ThreadStream[GeneratedItem]) -> Callable[[str], Any]:
        status = self._library.StreamingStatus

        def on_text(text: str) -> Any:
            said = stops.add(text)
            if stream.is_closed or (said and not stream.put(said)):
                return status.CANCEL
            return status.STOP if stops.is_met else status.RUNNING

        return on_text

    def _config(self, request: ChatRequest, asked: TemplatedChat, room: int) -> Any:
        """The model's own settings, where the request says nothing."""
        config = self._pipeline.get_generation_config()
        config.max_new_tokens = min(room, request.max_tokens or room)
        if request.temperature is None:
            wishes = (request.top_p, request.top_k, request.min_p, request.seed)
            config.do_sample = config.do_sample or any(wish is not None for wish in wishes)
        else:
            # A temperature is only heard where there is sampling, and 0 means none.
            config.do_sample = request.temperature > 0
        if config.do_sample:
            self._sample(config, request)
        if asked.schema is not None:
            config.structured_output_config = self._library.StructuredOutputConfig(
                json_schema=json.dumps(asked.schema)
            )
        return config

    def _sample(self, config: Any, request: ChatRequest) -> None:
        for name in _SAMPLING:
            # A top_k of 0 is no limit, as no top_k is.
            if (value := getattr(request, name)) is not None and (name != "top_k" or value):
                setattr(config, name, value)
        # The library's own seed is 0, always.
        config.rng_seed = (
            secrets.randbelow(_SEEDS) if request.seed is None else request.seed % _SEEDS
        )

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[list[list[float]], int]:
        """Never called: a model is loaded for one of both."""
        raise NotSupported(f"{self._name} was loaded to chat ({len(texts)}, {first}, {truncate})")

    def close(self) -> None:
        """Free the memory."""
        self._pipeline = self._tokenizer = None


class OpenVinoEmbed:
    """A loaded model that makes vectors."""

    def __init__(self, path: Path, options: OpenVinoOptions, context: int) -> None:
        """Load it; raises BadEndpoint if OpenVINO cannot, as for one that only chats."""
        import openvino_genai as library  # noqa: PLC0415 - the package is optional

        self._name = path.stem
        self._context = context
        pooling = getattr(library.TextEmbeddingPipeline.PoolingType, _POOLING[options.pooling])
        with _foreign(BadEndpoint, f"cannot load {path.name} to embed"):
            config = library.TextEmbeddingPipeline.Config(
                pooling_type=pooling, normalize=True, max_length=context
            )
            self._tokenizer: Any = library.Tokenizer(str(path))
            self._pipeline: Any = library.TextEmbeddingPipeline(
                str(path), options.device, config, **options.properties
            )

    def chat(
        self, request: ChatRequest, asked: TemplatedChat, stream: ThreadStream[GeneratedItem]
    ) -> None:
        """Never called: a model is loaded for one of both."""
        raise NotSupported(
            f"{request.model} was loaded to embed ({asked.said}, {stream.is_closed})"
        )

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[list[list[float]], int]:
        """A vector for each text, of length 1, and the tokens of all; raises InputTooLarge."""
        fitting, used = [], 0
        for at, text in enumerate(texts, first):
            length = self._length(text)
            if length > self._context and not truncate:
                raise InputTooLarge(
                    f"input[{at}] has {length} tokens, and {self._name} takes {self._context};"
                    " cut it, or allow truncate"
                )
            # The library's own max_length is only heard by tokenizers exported with a limit.
            fitting.append(text if length <= self._context else self._cut(text))
            used += min(length, self._context)
        with _foreign(ServerFault, f"{self._name} broke"):
            rows = self._pipeline.embed_documents(fitting)
        return [list(row) for row in rows], used

    def _length(self, text: str) -> int:
        with _foreign(ServerFault, f"{self._name} broke"):
            return int(self._tokenizer.encode(text).input_ids.shape[1])

    def _cut(self, text: str) -> str:
        """As many letters of the text as fit: what is longer never has fewer tokens, or hardly."""
        ends = range(len(text))
        end = bisect_right(ends, self._context, key=lambda at: self._length(text[:at])) - 1
        return text[: max(end, 0)]

    def close(self) -> None:
        """Free the memory."""
        self._pipeline = self._tokenizer = None


@contextmanager
def _foreign(error: type[BadEndpoint | ServerFault | BackendRejected], what: str) -> Iterator[None]:
    """Turn the library's errors, which are RuntimeErrors with stacks of C++, into one of ours."""
    try:
        yield
    except Exception as problem:
        raise error(f"{what}: {' '.join(str(problem).split())[-300:]}") from problem
