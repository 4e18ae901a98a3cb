"""Reads the chunks of one OpenAI-shaped answer: deltas as they come, and the last word at the end.

Invariant: `done` answers only if a terminal marker was seen. A stream that merely ends is cut off:
Ollama's /v1 and LM Studio end like that on errors, and a dropped connection does, too.
"""

from typing import Any, Final, cast

from contract.errors_m_backend_errors import (
    TruncatedStream,
)
from contract.events import Delta, Done, FinishReason, Phase, Timings, ToolCallDelta, Usage
from workers.backends.content_parts import said
from workers.backends.openai.chunks_m_likelihoods import likelihoods
from workers.backends.openai.chunks_m_openai_calls import Calls
from workers.backends.openai.shapes import CHUNK, Choice, Chunk, Content, Message, Used

_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


def understood(chunk: dict[str, Any]) -> Chunk:
    """A chunk whose fields are what they must be; raises BadAnswer with the path of what is not.

    Nearly all chunks are one text and nothing else: those are looked at by hand, which costs a
    tenth.
    """
    return cast("Chunk", chunk) if _is_plain(chunk) else CHUNK.read(chunk)


def _is_plain(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1 or chunk.get("usage"):
        return False
    choice = choices[0]
    if type(choice) is not dict or choice.get("logprobs") or choice.get("finish_reason"):
        return False
    delta = choice.get("delta")
    return type(delta) is dict and len(delta) == 1 and type(delta.get("content")) is str


class Chunks:
    """Takes parsed chunks one after the other, each of them understood."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._finish: str | None = None
        self._usage: Used | None = None
        self._calls = Calls()
        self._said = False

    @property
    def has_finished(self) -> bool:
        """Whether a `finish_reason` was seen; usage may still follow."""
        return self._finish is not None

    def delta(self, chunk: Chunk) -> Delta | None:
        """What the chunk adds, if anything. Usage may stand on any chunk; the last one counts."""
        told = chunk.get("usage")
        delta = self._words(chunk)
        if not told:
            return delta
        self._usage = told
        if self.has_finished:
            return delta  # the last word tells it
        return (delta or Delta()).model_copy(update={"usage": usage(told)})

    def _words(self, chunk: Chunk) -> Delta | None:
        choices = chunk.get("choices")
        if not choices:
            return None
        choice = choices[0]
        self._finish = choice.get("finish_reason") or self._finish
        # An answer that was not streamed says `message` where a chunk says `delta`.
        name = "delta" if choice.get("delta") else "message"
        fields = choice.get("delta") or choice.get("message") or _raw(choice)
        if not fields:
            return None
        content, told = fields.get("content"), choice.get("logprobs")
        if isinstance(content, str) and content and len(fields) == 1 and not told:
            self._said = True
            return Delta(content=content)
        delta = self._other(fields, f"choices[0].{name}")
        logprobs = likelihoods(told) if told else None
        if logprobs is None:
            return delta
        return (delta or Delta()).model_copy(update={"logprobs": logprobs})

    def phase(self, chunk: Chunk) -> Phase | None:  # noqa: ARG002 - for those that tell
        """What a chunk that adds nothing says of the time before the first word, if anything."""
        return None

    def done(self, *, is_marked: bool) -> Done:
        """The last word; `is_marked` says that `[DONE]` came. Raises TruncatedStream."""
        if self._finish is None and not (is_marked and (self._said or self._calls)):
            raise TruncatedStream("the answer ended without a finish_reason")
        finish = _FINISH.get(self._finish or "stop", "stop")
        if self._calls and finish == "stop":
            finish = "tool_calls"  # vLLM says stop when the tool was named
        return Done(finish_reason=finish, usage=usage(self._usage or {}), timings=Timings())

    def _other(self, fields: Message, where: str) -> Delta | None:
        spoken = said(fields.get("content"), f"{where}.content")
        thinking = _thoughts(fields, where) + spoken.thinking
        refusal = (fields.get("refusal") or "") + spoken.refusal
        calls = self._fragments(fields)
        if not (spoken.text or thinking or refusal or calls):
            return None
        self._said = True
        return Delta(
            content=spoken.text or None,
            thinking=thinking or None,
            refusal=refusal or None,
            tool_calls=calls or None,
        )

    def _fragments(self, fields: Message) -> tuple[ToolCallDelta, ...]:
        older = fields.get("function_call")
        calls = [self._calls.add(call) for call in fields.get("tool_calls") or ()]
        if older and not calls:  # some servers write the same call in both forms
            calls.append(self._calls.add_older(older))
        return tuple(calls)


def usage(told: Used) -> Usage | None:
    """`usage` in our words; None if it tells nothing."""
    if told.get("prompt_tokens") is None and told.get("completion_tokens") is None:
        return None
    prompt: Any = told.get("prompt_tokens_details") or {}
    completion: Any = told.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=told.get("prompt_tokens") or 0,
        completion_tokens=told.get("completion_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens") or 0,
        reasoning_tokens=completion.get("reasoning_tokens") or 0,
    )


def _thoughts(fields: Message, where: str) -> str:
    for name in ("reasoning_content", "reasoning"):
        told: Content = fields.get(name)  # type: ignore[assignment]
        if told:
            spoken = said(told, f"{where}.{name}")
            return spoken.text + spoken.thinking
    return ""


def _raw(choice: Choice) -> Message | None:
    """A chunk of POST /completions has bare text."""
    text = choice.get("text")
    return {"content": text} if text else None
