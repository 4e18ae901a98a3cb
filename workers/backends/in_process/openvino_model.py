"""Models loaded through OpenVINO GenAI: text generation and embeddings, blocking.

Stop words are matched here: the library misses them if a token is longer than the word (seen in
2026.4). Not thread-safe.
"""

import json
import os
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
    """OpenVINO's device name: CPU, GPU, NPU, AUTO."""
    context: int = 0
    """Tokens; 0: the limit of the model."""
    threads: int | None = None
    pooling: Pooling = "mean"

    @property
    def properties(self) -> dict[str, Any]:
        """OpenVINO properties of the device."""
        found: dict[str, Any] = {}
        if self.threads is not None:
            found["INFERENCE_NUM_THREADS"] = self.threads
        if self.device == "CPU" and (self.threads or _usable_cpus()) == 1:
            # Where the CPU has AMX, bfloat16 is the default, and ends the process: OpenVINO 2026.4
            # divides by zero with one thread.
            found["INFERENCE_PRECISION_HINT"] = "f32"
        return found


def _usable_cpus() -> int:
    """How many CPUs the process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OpenVinoChat:
    """A loaded chat model."""

    def __init__(self, path: Path, options: OpenVinoOptions, context: int) -> None:
        """Load it; `context` is in tokens. Raises BadEndpoint if OpenVINO fails to."""
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
        self, request: ChatRequest, chat: TemplatedChat, stream: ThreadStream[GeneratedItem]
    ) -> None:
        """Generate into `stream` until the end, or until it is closed.

        Raises ContextExceeded, NotSupported or BackendRejected for an unusable request.
        """
        prompt = self._prompt(chat)
        ignored = unsupported_fields(chat, self._tokenizer.chat_template)
        stream.put(GenerationStart(prompt.rstrip().endswith(THINK), ignored))
        tokens = self._tokenizer.encode(prompt, add_special_tokens=not chat.messages)
        room = self._context - int(tokens.input_ids.shape[1])
        if room <= 0:
            raise ContextExceeded(
                f"the prompt has {self._context - room} tokens, and the context of {self._name}"
                f" is {self._context}"
            )
        stops = Stops(request.stop)
        with _foreign(ServerFault, f"{self._name} failed"):
            result = self._pipeline.generate(
                tokens, self._config(request, chat, room), self._streamer(stops, stream)
            )
        stream.put(stops.rest())
        reason = result.finish_reasons[0] if result.finish_reasons else None
        is_cut = reason == self._library.GenerationFinishReason.LENGTH and stops.met is None
        metrics = result.perf_metrics
        usage = Usage(
            prompt_tokens=metrics.get_num_input_tokens(),
            completion_tokens=metrics.get_num_generated_tokens(),
        )
        stream.put(GenerationEnd("length" if is_cut else "stop", usage, stops.met))

    def _prompt(self, chat: TemplatedChat) -> str:
        if not chat.messages:
            return chat.prefix
        if not self._tokenizer.chat_template:
            raise NotSupported(f"{self._name} has no chat template: it cannot chat")
        with _foreign(BackendRejected, f"{self._name}'s template refuses the messages"):
            filled = self._tokenizer.apply_chat_template(
                chat.messages,
                add_generation_prompt=True,
                tools=chat.tools,
                extra_context=chat.context or None,
            )
        return str(filled) + chat.prefix

    def _streamer(self, stops: Stops, stream: ThreadStream[GeneratedItem]) -> Callable[[str], Any]:
        status = self._library.StreamingStatus

        def on_text(text: str) -> Any:
            passed = stops.add(text)
            if stream.is_closed or (passed and not stream.put(passed)):
                return status.CANCEL
            return status.RUNNING if stops.met is None else status.STOP

        return on_text

    def _config(self, request: ChatRequest, chat: TemplatedChat, room: int) -> Any:
        """The generation config of the model, with the options of the request."""
        config = self._pipeline.get_generation_config()
        config.max_new_tokens = min(room, request.max_tokens or room)
        if request.temperature is None:
            sampling = (request.top_p, request.top_k, request.min_p, request.seed)
            config.do_sample = config.do_sample or any(value is not None for value in sampling)
        else:
            # A temperature needs sampling, and 0 means greedy decoding.
            config.do_sample = request.temperature > 0
        if config.do_sample:
            self._sample(config, request)
        if chat.schema is not None:
            config.structured_output_config = self._library.StructuredOutputConfig(
                json_schema=json.dumps(chat.schema)
            )
        return config

    def _sample(self, config: Any, request: ChatRequest) -> None:
        for name in _SAMPLING:
            # A top_k of 0 means no limit.
            if (value := getattr(request, name)) is not None and (name != "top_k" or value):
                setattr(config, name, value)
        # The library's default seed is always 0.
        config.rng_seed = (
            secrets.randbelow(_SEEDS) if request.seed is None else request.seed % _SEEDS
        )

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[list[list[float]], int]:
        """Raises NotSupported: a model is loaded for one purpose."""
        raise NotSupported(f"{self._name} was loaded to chat ({len(texts)}, {first}, {truncate})")

    def close(self) -> None:
        """Free the memory."""
        self._pipeline = self._tokenizer = None


class OpenVinoEmbed:
    """A loaded embedding model."""

    def __init__(self, path: Path, options: OpenVinoOptions, context: int) -> None:
        """Load it; raises BadEndpoint if OpenVINO fails to, as for a chat model."""
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
        self, request: ChatRequest, chat: TemplatedChat, stream: ThreadStream[GeneratedItem]
    ) -> None:
        """Raises NotSupported: a model is loaded for one purpose."""
        raise NotSupported(
            f"{request.model} was loaded to embed ({chat.prefix}, {stream.is_closed})"
        )

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[list[list[float]], int]:
        """A unit vector per text, and the tokens of all texts; raises InputTooLarge."""
        fitting, used = [], 0
        for at, text in enumerate(texts, first):
            length = self._length(text)
            if length > self._context and not truncate:
                raise InputTooLarge(
                    f"input[{at}] has {length} tokens, and {self._name} takes {self._context};"
                    " cut it, or allow truncate"
                )
            # The library's max_length works only for tokenizers exported with a limit.
            fitting.append(text if length <= self._context else self._cut(text))
            used += min(length, self._context)
        with _foreign(ServerFault, f"{self._name} failed"):
            rows = self._pipeline.embed_documents(fitting)
        return [list(row) for row in rows], used

    def _length(self, text: str) -> int:
        with _foreign(ServerFault, f"{self._name} failed"):
            return int(self._tokenizer.encode(text).input_ids.shape[1])

    def _cut(self, text: str) -> str:
        """The longest prefix that fits, by bisection: tokens grow with the length of a text."""
        ends = range(len(text))
        end = bisect_right(ends, self._context, key=lambda at: self._length(text[:at])) - 1
        return text[: max(end, 0)]

    def close(self) -> None:
        """Free the memory."""
        self._pipeline = self._tokenizer = None


@contextmanager
def _foreign(error: type[BadEndpoint | ServerFault | BackendRejected], what: str) -> Iterator[None]:
    """Raise errors of the library, RuntimeErrors with C++ stack traces, as BackendError."""
    try:
        yield
    except Exception as problem:
        raise error(f"{what}: {' '.join(str(problem).split())[-300:]}") from problem
