"""What a model in memory says, told apart: thoughts, calls and answer are tagged in one text.

Servers do this for their callers; a library hands over the raw text. Pure: text in, deltas out.

    <think>...</think>                                              thoughts, before the answer
    <tool_call>{"name": ..., "arguments": {...}}</tool_call>        a call, anywhere after them
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from contract.events import Delta, FinishReason, ToolCallDelta, Usage
from workers.backends.tools import arguments_text

THINK: Final = "<think>"
THOUGHT: Final = "</think>"
CALL: Final = "<tool_call>"
CALLED: Final = "</tool_call>"


class GenerationStart(NamedTuple):
    """The first thing a model says of an answer."""

    thinks: bool
    """Whether the prompt opened the thoughts already."""
    ignored: tuple[str, ...] = ()
    """Fields of the request that its template has no place for."""


class GenerationEnd(NamedTuple):
    """The last."""

    finish_reason: FinishReason
    usage: Usage


GeneratedItem = GenerationStart | str | GenerationEnd


class ToolParser:
    """Listens to one answer."""

    def __init__(self, *, calls: bool = False, is_call: bool = False) -> None:
        """`calls`: there are tools to call.

        `is_call`: the whole answer is one call's JSON, because a grammar left nothing else.
        """
        self.calls = 0
        self._state = "beginning"
        self._takes_calls = calls
        self._is_call = is_call
        self._text = ""
        self._trims = True

    def begin(self, *, thinks: bool = False, answers: bool = False) -> None:
        """`thinks`: the prompt opened the thoughts already; `answers`: there are none."""
        if answers:
            self._state, self._trims = "answering", False
        elif thinks:
            self._state = "thinking"

    def add(self, text: str) -> Iterator[Delta]:
        """What is certain now."""
        self._text += text
        if self._is_call:
            return
        while True:
            before, state = self._text, self._state
            yield from self._step()
            if (self._text, self._state) == (before, state):
                return

    def end(self) -> Iterator[Delta]:
        """What was held back in case it became a tag; call once."""
        text, self._text = self._text, ""
        if self._is_call:
            yield self._called(text)
        elif self._state == "thinking":
            yield from self._said(text, is_thought=True)
        elif self._state == "calling":
            yield self._called(text)
        else:
            yield from self._said(text)

    def _step(self) -> Iterator[Delta]:
        match self._state:
            case "beginning":
                yield from self._begin()
            case "thinking":
                yield from self._until(THOUGHT, "answering", is_thought=True)
            case "answering" if self._takes_calls:
                yield from self._until(CALL, "calling")
            case "answering":
                text, self._text = self._text, ""
                yield from self._said(text)
            case _:
                inner, tag, rest = self._text.partition(CALLED)
                if tag:
                    self._text, self._state, self._trims = rest, "answering", True
                    yield self._called(inner)

    def _begin(self) -> Iterator[Delta]:
        """A thought is only one where nothing was said before it."""
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
            yield from self._said(text, is_thought=is_thought)
            self._trims = True
            return
        held = next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
        self._text = text[len(text) - held :]
        yield from self._said(text[: len(text) - held], is_thought=is_thought)

    def _said(self, text: str, *, is_thought: bool = False) -> Iterator[Delta]:
        if self._trims:
            text = text.lstrip("\n")
        if text:
            self._trims = False
            yield Delta(thinking=text) if is_thought else Delta(content=text)

    def _called(self, text: str) -> Delta:
        """A call, whole; what is none is the model's own words."""
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
