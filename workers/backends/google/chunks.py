"""Reads the chunks of one Gemini answer: deltas as they come, and the last words at the end.

Invariant: `last` answers only if a `finishReason` or a `blockReason` was seen; there is no other
marker of an end (python-genai 2.19, `types.py`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic_core import from_json

from contract.errors import (
    NotSupported,
    ServerFault,
    TruncatedStream,
)
from contract.events import Delta, Done, FinishReason, ToolCallDelta, Usage
from workers.backends.google.requests import SIGNATURE, PartOrder, call_meta
from workers.backends.http.decoders import BARE, Sse
from workers.backends.http.error_table import error_from, error_in
from workers.backends.shapes import invalid_json
from workers.backends.tools import arguments_text

_FINISH: Final[dict[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
"""The others are failures: MALFORMED_FUNCTION_CALL, OTHER and whatever is new."""


class GeminiChunks:
    """Takes parsed chunks one after the other."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._finish: FinishReason | None = None
        self._usage: dict[str, Any] = {}
        self._calls = 0
        self._part_order = PartOrder()

    @property
    def has_finished(self) -> bool:
        """Whether the end was announced."""
        return self._finish is not None

    def delta(self, chunk: Mapping[str, Any]) -> Delta | None:
        """What the chunk adds, if anything; raises the BackendError that its end means."""
        # Usage is cumulative and on every chunk: the last one counts.
        told = chunk.get("usageMetadata")
        delta = self._words(chunk)
        self._usage = told or self._usage
        if not told or self.has_finished:
            return delta
        return (delta or Delta()).model_copy(update={"usage": usage(told)})

    def _words(self, chunk: Mapping[str, Any]) -> Delta | None:
        candidates = chunk.get("candidates")
        if not candidates:
            return self._blocked(chunk.get("promptFeedback") or {})
        candidate = candidates[0]
        content: list[str] = []
        thinking: list[str] = []
        calls: list[ToolCallDelta] = []
        for part in (candidate.get("content") or {}).get("parts") or ():
            if part.get("functionCall"):
                calls.append(self._call(part))
            elif isinstance(text := part.get("text"), str):
                (thinking if part.get("thought") else content).append(self._text(part, text))
        refusal = self._end(candidate)
        if not (any(content) or any(thinking) or calls or refusal):
            return None
        return Delta(
            content="".join(content) or None,
            thinking="".join(thinking) or None,
            tool_calls=tuple(calls) or None,
            refusal=refusal,
        )

    def end(self, ignored: tuple[str, ...]) -> Iterator[Delta | Done]:
        """What goes back with the message, if anything, and the last word.

        Raises TruncatedStream.
        """
        finish = self._finish
        if finish is None:
            raise TruncatedStream("the answer ended without a finishReason")
        if meta := self._part_order.meta:
            yield Delta(provider_meta=meta)
        if self._calls and finish == "stop":
            finish = "tool_calls"  # Gemini says STOP
        yield Done(finish_reason=finish, usage=usage(self._usage), ignored=ignored)

    def _text(self, part: dict[str, Any], text: str) -> str:
        signature = part.get(SIGNATURE)
        if not part.get("thought"):
            self._part_order.add_text(text, signature)
        elif signature is not None:
            self._part_order.add_thought(text, signature)
        return text

    def _call(self, part: dict[str, Any]) -> ToolCallDelta:
        """A call comes whole; its id may be missing."""
        call, index = part["functionCall"], self._calls
        self._calls += 1
        self._part_order.add_call(index)
        return ToolCallDelta(
            index=index,
            id=call.get("id") or f"call_{index}",
            name=call.get("name"),
            arguments=arguments_text(call.get("args")),
            provider_meta=call_meta(call.get("id"), part.get(SIGNATURE)),
        )

    def _end(self, candidate: dict[str, Any]) -> str | None:
        """Note how the answer ended; return the words of a refusal."""
        reason = candidate.get("finishReason")
        if not reason:
            return None
        message = candidate.get("finishMessage") or ""
        if reason not in _FINISH:
            error = NotSupported if reason == "LANGUAGE" else ServerFault
            raise error(f"the model gave up with {reason}: {message}".rstrip(": "))
        self._finish = _FINISH[reason]
        if self._finish != "content_filter":
            return None
        return message or f"The answer was withheld: {reason}."

    def _blocked(self, feedback: dict[str, Any]) -> Delta | None:
        reason = feedback.get("blockReason")
        if not reason:
            return None
        self._finish = "content_filter"
        message = feedback.get("blockReasonMessage")
        return Delta(refusal=message or f"The prompt was blocked: {reason}.")


def usage(told: dict[str, Any]) -> Usage | None:
    """`usageMetadata` in our words: thoughts are billed as output, results of tools as input.

    None if it tells nothing.
    """
    if not any(isinstance(value, int) for value in told.values()):
        return None

    def count(*names: str) -> int:
        return sum(told.get(name) or 0 for name in names)

    return Usage(
        prompt_tokens=count("promptTokenCount", "toolUsePromptTokenCount"),
        completion_tokens=count("candidatesTokenCount", "thoughtsTokenCount"),
        cached_tokens=count("cachedContentTokenCount"),
        reasoning_tokens=count("thoughtsTokenCount"),
    )


_DONE: Final = b"[DONE]"


class ChunkReader:
    """Fed with packets; gives chunks. Raises the BackendError that a chunk is."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        """`secrets` are kept out of errors."""
        self._secrets = secrets
        self._sse = Sse()
        self._bare: list[bytes] = []

    def feed(self, packet: bytes) -> Iterator[dict[str, Any]]:
        """The chunks that these bytes complete."""
        return self._chunks(self._sse.feed(packet))

    def flush(self) -> Iterator[dict[str, Any]]:
        """The chunk that the end cut short, if any; raises what stood bare at the end."""
        yield from self._chunks(self._sse.flush(), is_cut=True)
        bare = b"\n".join(self._bare)
        if bare and b"data:".startswith(bare):
            raise TruncatedStream("the answer broke off at the beginning of a chunk")
        if bare:
            raise error_from(0, bare, secrets=self._secrets)

    def whole(self, body: bytes) -> Iterator[dict[str, Any]]:
        """The chunks of an answer that is one JSON text: an object, or an array of them."""
        value = self._parsed(body, is_cut=True)
        for item in value if isinstance(value, list) else [value]:
            yield self._checked(item)

    def _chunks(
        self, events: Iterable[tuple[str, bytes]], *, is_cut: bool = False
    ) -> Iterator[dict[str, Any]]:
        for name, data in events:
            if name == BARE:
                self._add_bare(data)
            elif data == _DONE:
                continue  # a proxy's word of the end, which Gemini does not have
            else:
                yield self._checked(self._parsed(data, is_cut=is_cut))

    def _add_bare(self, line: bytes) -> None:
        """Collect; the last brace tells the error although the connection may stay open.

        It stands at the beginning of its line: the braces inside are not tried.
        """
        self._bare.append(line)
        if len(self._bare) == 1 or line.rstrip() in {b"}", b"]", b"}]"}:
            try:
                value = from_json(b"\n".join(self._bare))
            except ValueError:
                return
            raise error_in(value, secrets=self._secrets)

    def _parsed(self, data: bytes, *, is_cut: bool) -> Any:
        try:
            return from_json(data)
        except ValueError as error:
            raise invalid_json(error, is_cut=is_cut) from None

    def _checked(self, item: Any) -> dict[str, Any]:
        if isinstance(item, list) and item:
            item = item[0]
        if not isinstance(item, dict) or item.get("error"):
            raise error_in(item, secrets=self._secrets)
        return item
