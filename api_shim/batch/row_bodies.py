"""Bodies of rows whose jobs are done: each is what the HTTP route would send.

A body is begun when a job has ended, and made of its events. What stays in the log until the line
is written (`api_shim/following/long_answer.py`) are `kinds`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from api_shim.following.long_answer import LOGPROBS, MakesEntry
from api_shim.openai.completions import CompletionLogprobs
from api_shim.openai.logprob_fields import response_logprob
from api_shim.openai.responses.events import ResponseBuilder
from api_shim.openai.responses.response import ResponseFacts
from contract.events import Frame
from contract.result import Result

RenderBody = Callable[[Result], Mapping[str, Any]]
"""Renders the result of a job that is done as the body that the HTTP route would send.

It is held while the job runs, so it must not keep large parts of the request.
"""
OF_CHAT: Final = ("content", "thinking", LOGPROBS)


class RowBody:
    """A body that is made of the result."""

    def __init__(
        self,
        render: RenderBody,
        kinds: tuple[str, ...] = (),
        entry: MakesEntry | None = None,
    ) -> None:
        """No event is added yet; `entry` makes its log probabilities."""
        self._render = render
        self.kinds = kinds
        self.entry = entry

    def hear(self, frames: Sequence[Frame]) -> None:
        """Add the next events, as the log has them."""

    def add(self, frame: Frame) -> None:
        """Add the next event, in which marks may stand for what `kinds` names."""

    def made(self, result: Result) -> Mapping[str, Any]:
        """The body of a job with this result, once all its events are added."""
        return self._render(result)

    def within(self, line: bytes) -> bytes:
        """The JSON that has the body, with what was left out of that."""
        return line


class CompletionRow(RowBody):
    """One of `/v1/completions`, whose log probabilities are lists."""

    def __init__(self, render: RenderBody) -> None:
        """No event is added yet."""
        super().__init__(render, ("content", LOGPROBS))
        self._lists = CompletionLogprobs()

    @override
    def hear(self, frames: Sequence[Frame]) -> None:
        self._lists.add_all(frames)

    @override
    def made(self, result: Result) -> Mapping[str, Any]:
        return self._render(result.model_copy(update={"logprobs": None}))

    @override
    def within(self, line: bytes) -> bytes:
        return self._lists.within(line)


class ResponseRow(RowBody):
    """One of `/v1/responses`: its items are in the order of the events."""

    def __init__(self, facts: ResponseFacts) -> None:
        """No event is added yet."""
        self._builder = ResponseBuilder(facts)
        super().__init__(lambda _: self._builder.response, ("content", LOGPROBS), response_logprob)

    @override
    def add(self, frame: Frame) -> None:
        for _ in self._builder.add(frame):
            pass
