"""The kinds of content blocks of a response, and the stream events that begin, fill and end each.

Pure. Which block is open, and when it ends, is in answer_blocks.py.
Source: anthropics/anthropic-sdk-python, RawMessageStreamEvent and ContentBlock.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from pydantic_core import from_json

from api_shim.anthropic.signatures import sign
from contract.json_texts.arguments import ObjectScan, ScanRoom, parsed_as_far

StreamEvent = dict[str, Any]


class AnswerBlock(Protocol):
    """One block; its methods return the events of what they do."""

    def start(self, index: int) -> StreamEvent:
        """The event that begins it."""
        ...

    def close(self, index: int) -> Iterator[StreamEvent]:
        """The events that end it, without `content_block_stop`."""
        ...

    @property
    def value(self) -> dict[str, Any]:
        """The block as JSON."""
        ...


def _begun(index: int, block: Mapping[str, Any]) -> StreamEvent:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, **delta: Any) -> StreamEvent:
    return {"type": "content_block_delta", "index": index, "delta": delta}


class TextAnswer:
    """Text of the model."""

    def __init__(self) -> None:
        """No text yet."""
        self._texts: list[str] = []

    def start(self, index: int) -> StreamEvent:
        """The event that begins it."""
        return _begun(index, {"type": "text", "text": ""})

    def append(self, index: int, text: str) -> Iterator[StreamEvent]:
        """Add a fragment."""
        self._texts.append(text)
        yield _delta(index, type="text_delta", text=text)

    def close(self, index: int) -> Iterator[StreamEvent]:  # noqa: ARG002 - nothing but the stop
        """The events that end it: none."""
        return iter(())

    @property
    def value(self) -> dict[str, Any]:
        """The block as JSON."""
        return {"type": "text", "text": "".join(self._texts), "citations": None}


class ThinkingAnswer:
    """Thinking of the model, with a signature at its end."""

    def __init__(self, *, is_omitted: bool) -> None:
        """`is_omitted`: the text goes into the signature alone."""
        self._texts: list[str] = []
        self._is_omitted = is_omitted
        self.facts: dict[str, Any] = {}
        """What the signature carries besides."""

    def start(self, index: int) -> StreamEvent:
        """The event that begins it."""
        return _begun(index, {"type": "thinking", "thinking": "", "signature": ""})

    def append(self, index: int, text: str) -> Iterator[StreamEvent]:
        """Add a fragment."""
        self._texts.append(text)
        if not self._is_omitted:
            yield _delta(index, type="thinking_delta", thinking=text)

    def close(self, index: int) -> Iterator[StreamEvent]:
        """The signature."""
        yield _delta(index, type="signature_delta", signature=self._signature)

    @property
    def _signature(self) -> str:
        text = {"thinking": "".join(self._texts)} if self._is_omitted else {}
        return sign({**text, **self.facts})

    @property
    def value(self) -> dict[str, Any]:
        """The block as JSON."""
        text = "" if self._is_omitted else "".join(self._texts)
        return {"type": "thinking", "thinking": text, "signature": self._signature}


class SealedAnswer:
    """Opaque data of the backend that the client returns unchanged."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        """The block has all of its data from the beginning."""
        self._data = sign(facts)

    def start(self, index: int) -> StreamEvent:
        """The event that begins it."""
        return _begun(index, self.value)

    def close(self, index: int) -> Iterator[StreamEvent]:  # noqa: ARG002 - nothing but the stop
        """The events that end it: none."""
        return iter(())

    @property
    def value(self) -> dict[str, Any]:
        """The block as JSON."""
        return {"type": "redacted_thinking", "data": self._data}


class CallAnswer:
    """A call of one of the client's tools."""

    def __init__(self, id: str, name: str, room: ScanRoom) -> None:
        """A call without arguments yet; all calls of a message share `room`."""
        self._id = id
        self._name = name
        self._arguments: list[str] = []
        self._scan = ObjectScan(room)
        self._is_object: bool | None = None
        self.is_too_much = False
        """Whether the arguments of all calls of the message hold too much to be parsed."""

    def start(self, index: int) -> StreamEvent:
        """The event that begins it."""
        return _begun(index, self._block({}))

    def append(self, index: int, text: str) -> Iterator[StreamEvent]:
        """Add a fragment of the arguments."""
        self._arguments.append(text)
        self._scan.add(text)
        yield _delta(index, type="input_json_delta", partial_json=text)

    def close(self, index: int) -> Iterator[StreamEvent]:
        """An empty object, if there were no arguments."""
        if not self._arguments:
            yield _delta(index, type="input_json_delta", partial_json="{}")

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a JSON object; parsed once, when it has ended."""
        if not self._scan.is_closed:
            return False
        if self._is_object is None:
            try:
                self._is_object = isinstance(from_json(self.arguments), dict)
            except ValueError:
                self._is_object = False
        return self._is_object

    @property
    def arguments(self) -> str:
        """The text of the arguments so far."""
        return "".join(self._arguments)

    @property
    def value(self) -> dict[str, Any]:
        """The block as JSON; arguments that were cut off are as whole as they can be."""
        text, arguments = self.arguments, None
        if not self.is_too_much:
            with suppress(ValueError):
                arguments = parsed_as_far(text)
        # Anthropic's own key for arguments that the model got wrong.
        return self._block(arguments if isinstance(arguments, dict) else {"INVALID_JSON": text})

    def _block(self, input: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "tool_use", "id": self._id, "name": self._name, "input": input}
