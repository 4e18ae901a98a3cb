"""Readers of Gemini responses: `ChunkReader` parses packets, `GeminiChunks` makes deltas.

Invariant: `end` returns only if a `finishReason` or a `blockReason` was received; a stream has no
other end marker (python-genai 2.19, `types.py`). Does no I/O.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from workers.backends.http.error_table import ERROR_BODY_BYTES, error_from, error_in
from workers.backends.http.json_text import StreamJson
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
"""All others are errors: MALFORMED_FUNCTION_CALL, OTHER and unknown reasons."""


class GeminiChunks:
    """Reads the validated chunks of one response, in order."""

    def __init__(self) -> None:
        """Before the first chunk."""
        self._finish: FinishReason | None = None
        self._usage: dict[str, Any] = {}
        self._calls = 0
        self._part_order = PartOrder()

    @property
    def has_finished(self) -> bool:
        """Whether a finish or block reason was received."""
        return self._finish is not None

    def delta(self, chunk: Mapping[str, Any]) -> Delta | None:
        """The delta of a chunk, if any.

        Raises NotSupported or ServerFault for a finish reason that is an error.
        """
        # Usage is cumulative and on every chunk: the last one counts.
        metadata = chunk.get("usageMetadata")
        delta = self._content_delta(chunk)
        self._usage = metadata or self._usage
        if not metadata or self.has_finished:
            return delta
        return (delta or Delta()).model_copy(update={"usage": usage(metadata)})

    def _content_delta(self, chunk: Mapping[str, Any]) -> Delta | None:
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
        """The `provider_meta` of the message, if any, and the terminal event.

        Raises TruncatedStream without a finish or block reason.
        """
        finish = self._finish
        if finish is None:
            raise TruncatedStream("the answer ended without a finishReason")
        if meta := self._part_order.meta:
            yield Delta(provider_meta=meta)
        if self._calls and finish == "stop":
            finish = "tool_calls"  # Gemini sends STOP
        yield Done(finish_reason=finish, usage=usage(self._usage), ignored=ignored)

    def _text(self, part: dict[str, Any], text: str) -> str:
        signature = part.get(SIGNATURE)
        if not part.get("thought"):
            self._part_order.add_text(text, signature)
        elif signature is not None:
            self._part_order.add_thought(text, signature)
        return text

    def _call(self, part: dict[str, Any]) -> ToolCallDelta:
        """Calls are never split; their id may be missing."""
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
        """Record the finish reason; return the text of a refusal, if it is one."""
        reason = candidate.get("finishReason")
        if not reason:
            return None
        message = candidate.get("finishMessage") or ""
        if reason not in _FINISH:
            error = NotSupported if reason == "LANGUAGE" else ServerFault
            raise error(f"the model stopped with {reason}: {message}".rstrip(": "))
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


def usage(metadata: dict[str, Any]) -> Usage | None:
    """The usage in tokens of `usageMetadata`; None without counts.

    Thoughts are billed as output, tool results as input.
    """
    if not any(isinstance(value, int) for value in metadata.values()):
        return None

    def count(*names: str) -> int:
        return sum(metadata.get(name) or 0 for name in names)

    return Usage(
        prompt_tokens=count("promptTokenCount", "toolUsePromptTokenCount"),
        completion_tokens=count("candidatesTokenCount", "thoughtsTokenCount"),
        cached_tokens=count("cachedContentTokenCount"),
        reasoning_tokens=count("thoughtsTokenCount"),
    )


_DONE: Final = b"[DONE]"
_MOST_BARE: Final = 1000
"""Lines of an error's JSON: all so far are parsed for each that may be the last."""


class ChunkReader:
    """Parses packets into chunks: SSE, one JSON text, or bare error text.

    Every method raises the BackendError of an error chunk.
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        """`secrets` are redacted from errors."""
        self._secrets = secrets
        self._sse = Sse()
        self._texts = StreamJson()
        self._bare: list[bytes] = []
        self._bare_bytes = 0

    def feed(self, packet: bytes) -> Iterator[dict[str, Any]]:
        """The chunks that these bytes complete."""
        return self._chunks(self._sse.feed(packet))

    def flush(self) -> Iterator[dict[str, Any]]:
        """The last, unterminated chunk, if any; raises the error of text that is not SSE."""
        yield from self._chunks(self._sse.flush(), is_cut=True)
        bare = b"\n".join(self._bare)
        if bare and b"data:".startswith(bare):
            raise TruncatedStream("the answer ended at the beginning of a chunk")
        if bare:
            raise error_from(0, bare, secrets=self._secrets)

    def whole(self, body: bytes) -> Iterator[dict[str, Any]]:
        """The chunks of a body that is one JSON text: an object, or an array of objects."""
        value = self._parsed(body, is_cut=True)[-1]
        for item in value if isinstance(value, list) else [value]:
            yield self._checked(item)

    def _chunks(
        self, events: Iterable[tuple[str, bytes]], *, is_cut: bool = False
    ) -> Iterator[dict[str, Any]]:
        for name, data in events:
            if name == BARE:
                self._add_bare(data)
            elif data == _DONE:
                continue  # an end marker of proxies; Gemini has none
            else:
                for value in self._parsed(data, is_cut=is_cut):
                    yield self._checked(value)

    def _add_bare(self, line: bytes) -> None:
        """Collect a bare line; raises the error once the JSON is complete, or too long for one.

        The connection may stay open, so a closing brace at the start of a line is the end.
        """
        self._bare.append(line)
        self._bare_bytes += len(line) + 1
        if self._bare_bytes > ERROR_BODY_BYTES or len(self._bare) > _MOST_BARE:
            raise error_from(0, b"\n".join(self._bare), secrets=self._secrets)
        if len(self._bare) == 1 or line.rstrip() in {b"}", b"]", b"}]"}:
            try:
                value = from_json(b"\n".join(self._bare))
            except ValueError:
                return
            raise error_in(value, secrets=self._secrets)

    def _parsed(self, data: bytes, *, is_cut: bool) -> Sequence[Any]:
        try:
            return self._texts.read(data)
        except ValueError as error:
            raise invalid_json(error, is_cut=is_cut) from None

    def _checked(self, item: Any) -> dict[str, Any]:
        if isinstance(item, list) and item:
            item = item[0]
        if not isinstance(item, dict) or item.get("error"):
            raise error_in(item, secrets=self._secrets)
        return item
