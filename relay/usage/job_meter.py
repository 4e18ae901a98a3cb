"""UsageCounts what a job has used, from its events: by its worker, or from its log after its end.

What was streamed counts, whoever ended the job. The backend's own count is taken where there is
one. The tokens of an attempt that was cut off are estimated: a fragment is one token, a long one
as many as a quarter of its bytes; a prompt has the tokens that another attempt of the job reports,
else one for four bytes.
"""

import re
from collections.abc import Callable
from typing import Final

from pydantic_core import from_json

from contract.events import (
    PLAIN_FIELDS,
    Delta,
    Done,
    Event,
    Frame,
    Image,
    Resumed,
    Scores,
    Usage,
    Vectors,
)
from contract.usage import UsageCounts

_LONGEST_TOKEN: Final = 32
"""A longer fragment is more than one token: the publisher or the server has joined some."""
_BYTES_A_TOKEN: Final = 4
_ROWS: Final = frozenset({"vectors", "scores"})
_FROM_OUTSIDE: Final = frozenset({"queued", "failed", "cancelled"})
_TIME: Final = re.compile(rb'\{"id":"[0-9-]*","at":([0-9.]+),')


class _Attempt:
    """What one attempt has produced."""

    __slots__ = ("began_at", "images", "is_resumed", "last_at", "pieces", "usage", "was_answered")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.last_at = began_at
        self.pieces = 0
        """Estimated tokens of its fragments."""
        self.images = 0
        self.usage: Usage | None = None
        """The last count of the backend; of the whole answer, if it continues another attempt."""
        self.is_resumed = False
        self.was_answered = False
        """Whether the backend has produced anything, so that it has read the prompt."""

    @property
    def is_empty(self) -> bool:
        """Whether it only told that the answer of the attempts before was whole."""
        counted = self.usage is not None and self.usage.prompt_tokens
        return self.is_resumed and not self.pieces and not counted


class JobMeter:
    """UsageCounts a job, one event at a time; times are unix seconds."""

    __slots__ = ("_attempt", "_attempts")

    def __init__(self) -> None:
        """Begin before the first attempt."""
        self._attempts: list[_Attempt] = []
        self._attempt = _Attempt(0.0)

    def begin(self, at: float) -> None:
        """Count another attempt, which began at this time (unix seconds)."""
        self._attempt = _Attempt(at)
        self._attempts.append(self._attempt)

    @property
    def attempts(self) -> int:
        """The number of attempts so far."""
        return len(self._attempts)

    @property
    def pieces(self) -> int:
        """Estimated completion tokens of the last attempt so far."""
        return self._attempt.pieces

    @property
    def usage(self) -> Usage | None:
        """The backend's last count in the last attempt, if it has sent one."""
        return self._attempt.usage

    def add(self, event: Event) -> None:
        """Count an event of the last attempt."""
        attempt = self._attempt
        if isinstance(event, Delta):
            if event.content:
                attempt.pieces += _tokens(event.content)
                attempt.was_answered = True
            if event.thinking or event.tool_calls or event.refusal or event.usage:
                self._add_other(event)
        elif isinstance(event, Vectors | Scores):
            attempt.was_answered = True
        elif isinstance(event, Image):
            attempt.was_answered = True
            attempt.images += not event.partial
        elif isinstance(event, Resumed):
            attempt.is_resumed = True
        elif isinstance(event, Done) and event.usage is not None:
            self._count(event.usage)

    def _add_other(self, delta: Delta) -> None:
        attempt = self._attempt
        calls = [(call.name or "") + (call.arguments or "") for call in delta.tool_calls or ()]
        for text in (delta.thinking, delta.refusal, *calls):
            if text:
                attempt.pieces += _tokens(text)
                attempt.was_answered = True
        if delta.usage is not None:
            self._count(delta.usage)

    def _count(self, usage: Usage) -> None:
        # Nothing at all, where there is text: a backend that does not count. Vectors may be cached.
        if usage.prompt_tokens or usage.completion_tokens or not self._attempt.pieces:
            self._attempt.usage = usage
            self._attempt.was_answered = True

    def add_frame(self, frame: Frame) -> None:
        """Count the next event of a log; what is large or frequent is not validated."""
        at = _at(frame.body)
        if frame.type == "delta":
            fields = from_json(frame.body)
            if len(fields) == PLAIN_FIELDS and isinstance(fields.get("content"), str):
                self._attempt.pieces += _tokens(fields["content"])
                self._attempt.was_answered = True
            else:
                self.add(frame.event)
        elif frame.type in _ROWS:
            self._attempt.was_answered = True
        else:
            if frame.type == "started":
                self.begin(at)
            self.add(frame.event)
        # What ends an attempt from outside may come long after the backend's last answer.
        if frame.type not in _FROM_OUTSIDE:
            self._attempt.last_at = at

    def end(self, at: float) -> None:
        """The last attempt ended at this time (unix seconds)."""
        self._attempt.last_at = at

    def counts(self, prompt_estimate: Callable[[], int]) -> UsageCounts:
        """What all attempts have used; without requests, outcome and cost.

        `prompt_estimate` returns the estimated tokens of the request's prompt.
        """
        answered = [each for each in self._attempts if each.was_answered and not each.is_empty]
        usages = [each.usage for each in reversed(answered) if each.usage]
        known = next((each for each in usages if each.prompt_tokens), usages[0] if usages else None)
        completion, continued, is_estimated = _written(answered)
        prompt = 0
        has_text = any(each.pieces for each in answered)
        if known is not None and (known.prompt_tokens or not has_text):
            prompt = known.prompt_tokens
        elif answered:
            prompt = prompt_estimate()
            is_estimated = is_estimated or prompt > 0
        spent_s = sum(max(0.0, each.last_at - each.began_at) for each in self._attempts)
        return UsageCounts(
            estimated=int(is_estimated),
            prompt_tokens=prompt * len(answered) + continued,
            completion_tokens=completion,
            cached_tokens=known.cached_tokens if known else 0,
            reasoning_tokens=known.reasoning_tokens if known else 0,
            images=sum(each.images for each in self._attempts),
            backend_ms=round(spent_s * 1000),
        )


def _written(attempts: list[_Attempt]) -> tuple[int, int, bool]:
    """Completion tokens, prompt tokens of beginnings that were sent back, and whether estimated.

    The usage of an attempt that continues others is of the whole answer: its own part is that
    without the beginning, which the backend has read as a part of the prompt.
    """
    completion = continued = beginning = 0
    is_estimated = False
    for attempt in attempts:
        beginning = beginning if attempt.is_resumed else 0
        own = attempt.pieces
        if attempt.usage is not None:
            own = max(attempt.usage.completion_tokens - beginning, 0)
        elif own:
            is_estimated = True
        if attempt.usage is not None and attempt.usage.partial:
            own, is_estimated = max(own, attempt.pieces), True
        completion += own
        continued += beginning
        beginning += own
    return completion, continued, is_estimated


def _tokens(text: str) -> int:
    if len(text) <= _LONGEST_TOKEN:
        return 1
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def _at(body: bytes) -> float:
    """The time in a frame's JSON, which begins with `{"id":"1-2","at":1.5,`."""
    match = _TIME.match(body)
    return float(match[1]) if match else float(from_json(body)["at"])
