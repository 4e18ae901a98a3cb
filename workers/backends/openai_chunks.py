"""Reads the chunks of one OpenAI-shaped answer: deltas as they come, and the last word at the end.

Invariant: `done` answers only if a terminal marker was seen. A stream that merely ends is cut off:
Ollama's /v1 and LM Studio end like that on errors, and a dropped connection does, too.
"""

from typing import Any, Final

from contract.backend_errors import (
    TruncatedStream,
)
from contract.events import Delta, Done, FinishReason, Phase, Timings, ToolCallDelta, Usage
from workers.backends.likelihoods import likelihoods
from workers.backends.tools import arguments_text

_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


class Chunks:
    """Takes parsed chunks one after the other."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, str] = {}
        self._said = False

    @property
    def has_finished(self) -> bool:
        """Whether a `finish_reason` was seen; usage may still follow."""
        return self._finish is not None

    def delta(self, chunk: dict[str, Any]) -> Delta | None:
        """What the chunk adds, if anything. Usage may stand on any chunk; the last one counts."""
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if choice.get("finish_reason"):
            self._finish = str(choice["finish_reason"])
        # An answer that was not streamed says `message` where a chunk says `delta`.
        fields = choice.get("delta") or choice.get("message") or _raw(choice)
        if not fields:
            return None
        content, told = fields.get("content"), choice.get("logprobs")
        if content and len(fields) == 1 and not told:
            self._said = True
            return Delta(content=content)
        delta = self._other(fields, content)
        logprobs = likelihoods(told) if told else None
        if logprobs is None:
            return delta
        return (delta or Delta()).model_copy(update={"logprobs": logprobs})

    def phase(self, chunk: dict[str, Any]) -> Phase | None:  # noqa: ARG002 - for those that tell
        """What a chunk that adds nothing says of the time before the first word, if anything."""
        return None

    def done(self, *, is_marked: bool) -> Done:
        """The last word; `is_marked` says that `[DONE]` came. Raises TruncatedStream."""
        if self._finish is None and not (is_marked and (self._said or self._calls)):
            raise TruncatedStream("the answer ended without a finish_reason")
        finish = _FINISH.get(self._finish or "stop", "stop")
        if self._calls and finish == "stop":
            finish = "tool_calls"  # vLLM says stop when the tool was named
        usage = self._usage
        prompt, completion = (
            usage.get("prompt_tokens_details") or {},
            usage.get("completion_tokens_details") or {},
        )
        return Done(
            finish_reason=finish,
            usage=Usage(
                prompt_tokens=usage.get("prompt_tokens") or 0,
                completion_tokens=usage.get("completion_tokens") or 0,
                cached_tokens=prompt.get("cached_tokens") or 0,
                reasoning_tokens=completion.get("reasoning_tokens") or 0,
            ),
            timings=Timings(),
        )

    def _other(self, fields: dict[str, Any], content: Any) -> Delta | None:
        thinking = fields.get("reasoning_content") or fields.get("reasoning")
        refusal, calls = fields.get("refusal"), fields.get("tool_calls")
        if not (content or thinking or refusal or calls):
            return None
        self._said = True
        return Delta(
            content=content or None,
            thinking=thinking if isinstance(thinking, str) and thinking else None,
            refusal=refusal or None,
            tool_calls=tuple(self._call(call) for call in calls) if calls else None,
        )

    def _call(self, call: dict[str, Any]) -> ToolCallDelta:
        """A fragment: the first of an index has id and name; arguments are text, object or null.

        Without an index a fragment with a new id begins a call, and one without id continues the
        last. An id may be missing, or a number (LM Studio).
        """
        function = call.get("function") or {}
        id = None if call.get("id") in {None, ""} else str(call["id"])
        index = call.get("index")
        if index is None:
            index = self._index_of(id, function)
        arguments = function.get("arguments")
        is_new = index not in self._calls
        if is_new:
            id = id or f"call_{index}"
            self._calls[index] = id
        return ToolCallDelta(
            index=index,
            id=id if is_new else None,
            name=function.get("name") or None,
            arguments=arguments_text(arguments) if arguments else None,
        )

    def _index_of(self, id: str | None, function: dict[str, Any]) -> int:
        for index, known in self._calls.items():
            if known == id:
                return index
        if id is None and self._calls and not function.get("name"):
            return max(self._calls)
        return len(self._calls)


def _raw(choice: dict[str, Any]) -> dict[str, Any] | None:
    """A chunk of POST /completions has bare text."""
    text = choice.get("text")
    return {"content": text} if text else None
