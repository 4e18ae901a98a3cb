"""Reads the chunks of one OpenAI-shaped answer: deltas as they come, and the last word at the end.

Invariant: `done` answers only if a terminal marker was seen. A stream that merely ends is cut off:
Ollama's /v1 and LM Studio end like that on errors, and a dropped connection does, too.
"""

from typing import Any, Final, NamedTuple, cast

from pydantic_core import from_json

from contract.errors import BadAnswer, TruncatedStream
from contract.events import Delta, Done, FinishReason, Phase, Timings, ToolCallDelta, Usage
from workers.backends.logprobs import read_logprobs
from workers.backends.openai.shapes import (
    CHUNK,
    Call,
    Choice,
    Chunk,
    Content,
    Function,
    Message,
    Part,
    UsageFields,
)
from workers.backends.tools import arguments_text

_OLDER: Final = "function_call"
"""Where the one call of the older form goes on, in place of an index."""


class _OpenCall:
    """A call that has begun."""

    __slots__ = ("arguments", "name", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = ""
        self.arguments: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether nothing can follow: an object has ended, and no JSON goes on after that."""
        try:
            return isinstance(from_json("".join(self.arguments)), dict)
        except ValueError:
            return False


class ToolCallReader:
    """The calls of one answer."""

    def __init__(self) -> None:
        """None yet."""
        self._by_id: dict[str, _OpenCall] = {}
        self._by_index: dict[int | str | None, _OpenCall] = {}
        self._count = 0

    def __bool__(self) -> bool:
        """Whether one has begun."""
        return self._count > 0

    def add(self, call: Call) -> ToolCallDelta:
        """A fragment as it came; the first of a call has an id and its number."""
        function: Function = call.get("function") or {}
        return self._fragment(call.get("index"), call.get("id") or None, function)

    def add_older(self, function: Function) -> ToolCallDelta:
        """A fragment of `function_call`, which has neither an id nor an index."""
        return self._fragment(_OLDER, None, function)

    def _fragment(
        self, index: int | str | None, id: str | None, function: Function
    ) -> ToolCallDelta:
        name, arguments = function.get("name") or None, function.get("arguments")
        text = arguments_text(arguments) if arguments else None
        known = self._open_call(index, id, name, text)
        call = known or _OpenCall(self._count)
        if known is None:
            self._count += 1
            id = id or self._new_id(call.number)
            self._by_id[id] = call
        self._by_index[index] = self._by_index[None] = call
        call.name = name or call.name
        if text:
            call.arguments.append(text)
        return ToolCallDelta(index=call.number, id=None if known else id, name=name, arguments=text)

    def _open_call(
        self, index: int | str | None, id: str | None, name: str | None, text: str | None
    ) -> _OpenCall | None:
        """The call that a fragment goes on with; None: it begins one."""
        if id is not None:
            return self._by_id.get(id)
        call = self._by_index.get(index)
        if call is None or not name:
            return call
        is_another = bool(call.name) and name != call.name and bool(call.arguments)
        return None if is_another or (text and call.is_whole) else call

    def _new_id(self, number: int) -> str:
        """An id for a call that has none."""
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


def validated_chunk(chunk: dict[str, Any]) -> Chunk:
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


class OpenAIChunks:
    """Takes parsed chunks one after the other, each of them validated."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._finish: str | None = None
        self._usage: UsageFields | None = None
        self._calls = ToolCallReader()
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
        logprobs = read_logprobs(told) if told else None
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
        spoken = content_text(fields.get("content"), f"{where}.content")
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


def usage(told: UsageFields) -> Usage | None:
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
            spoken = content_text(told, f"{where}.{name}")
            return spoken.text + spoken.thinking
    return ""


def _raw(choice: Choice) -> Message | None:
    """A chunk of POST /completions has bare text."""
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
        elif isinstance(part.get("text"), str):
            text.append(part.get("text") or "")
        elif kind not in _EMPTY_TYPES:
            raise BadAnswer(f"the backend's answer is not understood at {where}[{at}]: no text")
    return ContentText("".join(text), "".join(thinking), "".join(refusal))


def _thought(part: Part, where: str) -> str:
    inner = part.get("thinking")
    found = content_text(inner if inner is not None else part.get("text"), f"{where}.thinking")
    return found.text + found.thinking
