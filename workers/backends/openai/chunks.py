"""Reader of OpenAI-shaped responses: chunks become deltas, tool calls and usage. Does no I/O.

Also reads responses that were not streamed, and content in parts (Mistral). Invariant: `done`
returns only if a terminal marker was seen. A stream that ends without one was truncated: Ollama's
/v1 and LM Studio end like that on errors, and so does a dropped connection.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from contract.chat import DETAILS, LONGEST_STOP
from contract.errors import BadAnswer, TruncatedStream
from contract.events import Delta, Done, FinishReason, Phase, Timings, ToolCallDelta, Usage
from contract.json_texts.arguments import ObjectScan, ScanRoom
from workers.backends.http.json_text import parse_json
from workers.backends.logprobs import read_logprobs
from workers.backends.openai.shapes import (
    CHUNK,
    Content,
    OpenAIChoice,
    OpenAIChunk,
    OpenAIFunction,
    OpenAIMessage,
    OpenAIPart,
    OpenAIToolCall,
    OpenAIUsageFields,
)
from workers.backends.tools import arguments_text, few_calls

_FUNCTION_CALL: Final = "function_call"
"""The key of the single call of the older form, in place of an index."""


class _OpenCall:
    """A tool call whose fragments are being received."""

    __slots__ = ("_arguments", "_is_object", "_scan", "name", "number")

    def __init__(self, number: int, room: ScanRoom) -> None:
        """`number` is its index among the calls of the response, which share `room`."""
        self.number = number
        self.name = ""
        self._arguments: list[str] = []
        self._scan = ObjectScan(room)
        self._is_object: bool | None = None

    @property
    def has_arguments(self) -> bool:
        """Whether it has any yet."""
        return bool(self._arguments)

    def append(self, text: str) -> None:
        """Add a fragment of its arguments."""
        self._arguments.append(text)
        self._scan.add(text)

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a JSON object; parsed once, when it has ended."""
        if not self._scan.is_closed:
            return False
        if self._is_object is None:
            try:
                self._is_object = isinstance(parse_json("".join(self._arguments).encode()), dict)
            except ValueError:
                self._is_object = False
        return self._is_object


class ToolCallReader:
    """Assembles the tool calls of one response from fragments, with or without index and id."""

    def __init__(self) -> None:
        """No call yet."""
        self._by_id: dict[str, _OpenCall] = {}
        self._by_index: dict[int | str | None, _OpenCall] = {}
        self._count = 0
        self._room = ScanRoom()

    def __bool__(self) -> bool:
        """Whether the response has a call."""
        return self._count > 0

    def add(self, call: OpenAIToolCall) -> ToolCallDelta:
        """The delta of a `tool_calls` fragment; the first of a call has an id."""
        function: OpenAIFunction = call.get("function") or {}
        return self._fragment(call.get("index"), call.get("id") or None, function)

    def add_function_call(self, function: OpenAIFunction) -> ToolCallDelta:
        """The delta of a `function_call` fragment, which has neither id nor index."""
        return self._fragment(_FUNCTION_CALL, None, function)

    def _fragment(
        self, index: int | str | None, id: str | None, function: OpenAIFunction
    ) -> ToolCallDelta:
        name, arguments = function.get("name") or None, function.get("arguments")
        text = arguments_text(arguments) if arguments else None
        known = self._open_call(index, id, name, text)
        call = known or _OpenCall(self._count, self._room)
        if known is None:
            self._count += 1
            id = id or self._new_id(call.number)
            self._by_id[id] = call
        self._by_index[index] = self._by_index[None] = call
        call.name = name or call.name
        if text:
            call.append(text)
        return ToolCallDelta(index=call.number, id=None if known else id, name=name, arguments=text)

    def _open_call(
        self, index: int | str | None, id: str | None, name: str | None, text: str | None
    ) -> _OpenCall | None:
        """The call that a fragment continues; None if it starts one."""
        if id is not None:
            return self._by_id.get(id)
        call = self._by_index.get(index)
        if call is None or not name:
            return call
        is_another = bool(call.name) and name != call.name and call.has_arguments
        return None if is_another or (text and call.is_whole) else call

    def _new_id(self, number: int) -> str:
        """An unused id for a call without one."""
        while f"call_{number}" in self._by_id:
            number += 1
        return f"call_{number}"


_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


def plain_text(chunk: dict[str, Any]) -> str | None:
    """The text of a chunk that has one text and nothing else, as nearly all chunks; else None."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1 or chunk.get("usage"):
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("logprobs") or choice.get("finish_reason"):
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1:
        return None
    text = delta.get("content")
    return text if type(text) is str else None


class ReasoningDetails:
    """OpenRouter's `reasoning_details` so far: signed or encrypted thoughts must be sent back.

    A text comes in fragments that have one index, its signature with the last of them.
    Source: openrouter.ai/docs, "Preserving reasoning".
    """

    def __init__(self) -> None:
        """No detail yet."""
        self._details: list[tuple[dict[str, Any], list[str]]] = []
        """Each with the fragments of its text."""
        self._size_bytes = 0

    def add(self, details: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Add fragments; returns all details as `provider_meta` if these have opaque data.

        Raises BadAnswer once they are too large to be sent back.
        """
        for detail in details:
            self._size_bytes += len(to_json(detail))
            if self._size_bytes > _MOST_DETAILS_BYTES:
                raise BadAnswer(
                    "the backend's answer is too large: its reasoning_details have more than"
                    f" {_MOST_DETAILS_BYTES} bytes"
                )
            self._add(detail)
        is_opaque = any(detail.get("signature") or detail.get("data") for detail in details)
        return {DETAILS: [_whole(*each) for each in self._details]} if is_opaque else None

    def _add(self, detail: dict[str, Any]) -> None:
        last, texts = self._details[-1] if self._details else ({}, [])
        name = _fragmented(detail)
        text = detail.get(name) if name else None
        is_same = all(last.get(each) == detail.get(each) for each in ("type", "index"))
        if name and is_same and isinstance(text, str | None):
            last.update({key: value for key, value in detail.items() if value is not None})
            texts.append(text or "")
        else:
            self._details.append((dict(detail), [text] if isinstance(text, str) else []))


def _fragmented(detail: dict[str, Any]) -> str | None:
    """The field whose text comes in fragments."""
    kind = detail.get("type")
    return _FRAGMENTED.get(kind) if isinstance(kind, str) else None


def _whole(detail: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    name = _fragmented(detail)
    return {**detail, name: "".join(texts)} if name and texts else detail


_FRAGMENTED: Final = {"reasoning.text": "text", "reasoning.summary": "summary"}
"""The field of each type that comes in fragments."""
_MOST_DETAILS_BYTES: Final = 8 * 2**20
"""A request that sends them back has at most four times as much."""


class OpenAIChunks:
    """Reads the chunks of one response, in order."""

    def __init__(self) -> None:
        """Before the first chunk."""
        self._finish: str | None = None
        self._stop_sequence: str | None = None
        self._usage: OpenAIUsageFields | None = None
        self._cached = 0
        self._calls = ToolCallReader()
        self._details = ReasoningDetails()
        self._has_content = False

    @property
    def has_finished(self) -> bool:
        """Whether a `finish_reason` was received; usage may still follow."""
        return self._finish is not None

    def event(self, raw: dict[str, Any] | str) -> Delta | Phase | None:
        """The event of a chunk, or of the text of one that has nothing else; None without any.

        Raises BadAnswer with the JSON path of a wrong field. Nearly all chunks have one text and
        nothing else; those are not validated by their shape, which would take most of the time.
        """
        if text := raw if isinstance(raw, str) else plain_text(raw):
            self._has_content = True
            return Delta(content=text)
        chunk = CHUNK.read({} if isinstance(raw, str) else raw)
        delta = self.delta(chunk)
        return self.phase(chunk) if delta is None else delta

    def delta(self, chunk: OpenAIChunk) -> Delta | None:
        """The delta of a chunk, if any. Usage may be on any chunk; the last one counts."""
        usage_fields = chunk.get("usage")
        if timings := chunk.get("timings"):
            self._cached = timings.get("cache_n") or self._cached
        delta = self._content_delta(chunk)
        if not usage_fields:
            return delta
        self._usage = usage_fields
        if self.has_finished:
            return delta  # `Done` carries it
        return (delta or Delta()).model_copy(update={"usage": usage(usage_fields)})

    def _content_delta(self, chunk: OpenAIChunk) -> Delta | None:
        choices = chunk.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if choice.get("finish_reason"):
            self._finish = choice.get("finish_reason")
            # Of vLLM and SGLang; no other server says which sequence ended the answer.
            stopped = choice.get("stop_reason") or choice.get("matched_stop")
            self._stop_sequence = stopped if len(stopped or "") <= LONGEST_STOP else None
        # A response that was not streamed has `message` in place of `delta`.
        name = "delta" if choice.get("delta") else "message"
        fields = choice.get("delta") or choice.get("message") or _completion_message(choice)
        scored = choice.get("logprobs")
        if not fields:
            if not scored:
                return None
            fields = {}  # of a token that is a part of a character: the text comes with the next
        content = fields.get("content")
        if isinstance(content, str) and content and len(fields) == 1 and not scored:
            self._has_content = True
            return Delta(content=content)
        delta = self._full_delta(fields, f"choices[0].{name}")
        logprobs = read_logprobs(scored) if scored else None
        if logprobs is None:
            return delta
        return (delta or Delta()).model_copy(update={"logprobs": logprobs})

    def phase(self, chunk: OpenAIChunk) -> Phase | None:  # noqa: ARG002 - overridden for llama-swap
        """The phase that a chunk without a delta reports, if any."""
        return None

    def done(self, *, is_marked: bool) -> Done:
        """The terminal event; `is_marked`: `[DONE]` was received.

        Raises TruncatedStream without a `finish_reason`, or `[DONE]` after content.
        """
        if self._finish is None and not (is_marked and (self._has_content or self._calls)):
            raise TruncatedStream("the answer ended without a finish_reason")
        finish = _FINISH.get(self._finish or "stop", "stop")
        if self._calls and finish == "stop":
            finish = "tool_calls"  # vLLM sends stop for a named tool
        return Done(
            finish_reason=finish,
            stop_sequence=self._stop_sequence if finish == "stop" else None,
            usage=usage(self._usage or {}, self._cached),
            timings=Timings(),
        )

    def _full_delta(self, fields: OpenAIMessage, where: str) -> Delta | None:
        texts = content_text(fields.get("content"), f"{where}.content")
        thinking = _reasoning(fields, where) + texts.thinking
        refusal = (fields.get("refusal") or "") + texts.refusal
        calls = self._fragments(fields)
        meta = self._details.add(fields.get("reasoning_details") or ())
        if not (texts.text or thinking or refusal or calls or meta):
            return None
        self._has_content = True
        return Delta(
            provider_meta=meta,
            content=texts.text or None,
            thinking=thinking or None,
            refusal=refusal or None,
            tool_calls=calls or None,
        )

    def _fragments(self, fields: OpenAIMessage) -> tuple[ToolCallDelta, ...]:
        function_call = fields.get("function_call")
        calls = [self._calls.add(call) for call in few_calls(fields.get("tool_calls"))]
        if function_call and not calls:  # some servers send the same call in both forms
            calls.append(self._calls.add_function_call(function_call))
        return tuple(calls)


def usage(fields: OpenAIUsageFields, cached: int = 0) -> Usage | None:
    """The `Usage` of a `usage` object, in tokens; None without counts.

    `cached` is what the server has said beside it of the tokens that were in its cache.
    """
    if fields.get("prompt_tokens") is None and fields.get("completion_tokens") is None:
        return None
    prompt_tokens = fields.get("prompt_tokens") or 0
    prompt: Any = fields.get("prompt_tokens_details") or {}
    completion: Any = fields.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=fields.get("completion_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens")
        or fields.get("prompt_cache_hit_tokens")
        or min(cached, prompt_tokens),
        reasoning_tokens=completion.get("reasoning_tokens") or 0,
    )


def _reasoning(fields: OpenAIMessage, where: str) -> str:
    for name in ("reasoning_content", "reasoning"):
        content: Content = fields.get(name)  # type: ignore[assignment]
        if content:
            texts = content_text(content, f"{where}.{name}")
            return texts.text + texts.thinking
    return ""


def _completion_message(choice: OpenAIChoice) -> OpenAIMessage | None:
    """A choice of POST /completions, which has `text`, as a message."""
    text = choice.get("text")
    return {"content": text} if text else None


_THOUGHT_TYPES: Final = frozenset({"thinking", "reasoning", "reasoning_text"})
_EMPTY_TYPES: Final = frozenset({"reference"})
"""Parts that cite a source and hold no text."""


class ContentText(NamedTuple):
    """The texts of one `content`, by what they are."""

    text: str
    thinking: str
    refusal: str


def content_text(content: Content, where: str) -> ContentText:
    """The texts of a content, a string or a list of parts.

    `where` is its JSON path. Raises BadAnswer for a part without text. Source of the part types:
    mistralai/client-python, ContentChunk (`text`, `thinking`, `reference` ...; a thinking part
    holds parts itself); openai/openai-openapi (`output_text`, `reasoning`, `refusal`).
    """
    if isinstance(content, str):
        return ContentText(content, "", "")
    text: list[str] = []
    thinking: list[str] = []
    refusal: list[str] = []
    for at, part in enumerate(content or ()):
        if isinstance(part, str):
            text.append(part)
        elif (kind := part.get("type")) in _THOUGHT_TYPES:
            thinking.append(_thought(part, f"{where}[{at}]"))
        elif kind == "refusal":
            refusal.append(part.get("refusal") or "")
        elif "text" in part:
            text.append(part["text"] or "")
        elif kind not in _EMPTY_TYPES:
            raise BadAnswer(f"the backend's answer is not understood at {where}[{at}]: no text")
    return ContentText("".join(text), "".join(thinking), "".join(refusal))


def _thought(part: OpenAIPart, where: str) -> str:
    inner = part.get("thinking")
    found = content_text(inner if inner is not None else part.get("text"), f"{where}.thinking")
    return found.text + found.thinking
