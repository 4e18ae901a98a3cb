"""Parser of generated text: thinking and tool calls are tagged, the rest is content.

Servers parse this themselves; libraries return the raw text. Text in, deltas out, no I/O.

    <think>...</think>                                              thinking, before the content
    <tool_call>{"name": ..., "arguments": {...}}</tool_call>        a call, anywhere after it
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from contract.events import Delta, FinishReason, ToolCallDelta, Usage
from workers.backends.tools import arguments_text

THINK: Final = "<think>"
THINK_END: Final = "</think>"
CALL: Final = "<tool_call>"
CALL_END: Final = "</tool_call>"


class GenerationStart(NamedTuple):
    """The first item of a generation."""

    thinks: bool
    """Whether the prompt already contains the opening <think>."""
    ignored: tuple[str, ...] = ()
    """Request fields that the template does not render."""


class GenerationEnd(NamedTuple):
    """The last item of a generation."""

    finish_reason: FinishReason
    usage: Usage
    stop_sequence: str | None = None
    """The one that ended the text, if that is known."""


GeneratedItem = GenerationStart | str | GenerationEnd


class ToolParser:
    """Parses the text of one response."""

    def __init__(self, *, calls: bool = False, is_call: bool = False) -> None:
        """`calls`: the request has tools.

        `is_call`: the whole text is the JSON of one call, enforced by a grammar.
        """
        self.calls = 0
        self._state = "beginning"
        self._takes_calls = calls
        self._is_call = is_call
        self._text = ""
        self._trims = True

    def begin(self, *, thinks: bool = False, skips_thinking: bool = False) -> None:
        """`thinks`: the prompt contains <think>; `skips_thinking`: the response has no thinking."""
        if skips_thinking:
            self._state, self._trims = "answering", False
        elif thinks:
            self._state = "thinking"

    def add(self, text: str) -> Iterator[Delta]:
        """Yield the deltas that are certain after this text."""
        self._text += text
        if self._is_call:
            return
        while True:
            before, state = self._text, self._state
            yield from self._step()
            if (self._text, self._state) == (before, state):
                return

    def end(self) -> Iterator[Delta]:
        """Yield the text held back for a possible tag; call once."""
        text, self._text = self._text, ""
        if self._is_call:
            yield self._call_delta(text)
        elif self._state == "thinking":
            yield from self._text_delta(text, is_thought=True)
        elif self._state == "calling":
            yield self._call_delta(text)
        else:
            yield from self._text_delta(text)

    def _step(self) -> Iterator[Delta]:
        match self._state:
            case "beginning":
                yield from self._begin()
            case "thinking":
                yield from self._until(THINK_END, "answering", is_thought=True)
            case "answering" if self._takes_calls:
                yield from self._until(CALL, "calling")
            case "answering":
                text, self._text = self._text, ""
                yield from self._text_delta(text)
            case _:
                inner, tag, rest = self._text.partition(CALL_END)
                if tag:
                    self._text, self._state, self._trims = rest, "answering", True
                    yield self._call_delta(inner)

    def _begin(self) -> Iterator[Delta]:
        """<think> counts only at the beginning of the text."""
        text = self._text.lstrip()
        if text.startswith(THINK):
            self._text, self._state = text[len(THINK) :], "thinking"
        elif not THINK.startswith(text):
            self._state, self._trims = "answering", False
        yield from ()

    def _until(self, tag: str, then: str, *, is_thought: bool = False) -> Iterator[Delta]:
        text, found, rest = self._text.partition(tag)
        if found:
            self._text, self._state = rest, then
            yield from self._text_delta(text, is_thought=is_thought)
            self._trims = True
            return
        held = next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
        self._text = text[len(text) - held :]
        yield from self._text_delta(text[: len(text) - held], is_thought=is_thought)

    def _text_delta(self, text: str, *, is_thought: bool = False) -> Iterator[Delta]:
        if self._trims:
            text = text.lstrip("\n")
        if text:
            self._trims = False
            yield Delta(thinking=text) if is_thought else Delta(content=text)

    def _call_delta(self, text: str) -> Delta:
        """The delta of a call; text that is not one is content."""
        call = _parsed(text)
        if call is None:
            return Delta(content=text if self._is_call else f"{CALL}{text}")
        index, self.calls = self.calls, self.calls + 1
        arguments = arguments_text(call.get("arguments", call.get("parameters")))
        part = ToolCallDelta(
            index=index, id=f"call_{index}", name=call["name"], arguments=arguments
        )
        return Delta(tool_calls=(part,))


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        call = from_json(text.strip())
    except ValueError:
        return None
    return call if isinstance(call, dict) and isinstance(call.get("name"), str) else None
