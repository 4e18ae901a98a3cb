"""A job's events as the lines of /api/chat and /api/generate. Pure.

This is the chunk path: a line is concatenated around the event's text, which stays JSON as the
worker wrote it. Invariant: one object a line, no empty line, and the last line has `done: true` or
is an error. Source: ollama/ollama `api/types.go` (ChatResponse, GenerateResponse).
"""

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from api_shim.following.job_refusals import RESTARTS
from api_shim.http.problems import Problem, Refusal, problem_of
from api_shim.ollama.chat_messages import ToolCallBuilder
from api_shim.ollama.errors import encoded
from api_shim.ollama.response_fields import created, logprob, metrics, stamp
from contract.events import Done, Frame
from contract.json_lines import json_line, one_line
from contract.result import Result

NDJSON: Final = "application/x-ndjson"
_TEXT: Final = b'"type":"delta","content":"'


class LineShape(NamedTuple):
    """Formats of an endpoint's text fields, from `created_at` to the value of `done`."""

    content: bytes
    thinking: bytes
    """The same for content and thinking."""
    has_calls: bool


CHAT: Final = LineShape(
    b'"message":{"role":"assistant","content":%s},"done":',
    b'"message":{"role":"assistant","content":%s,"thinking":%s},"done":',
    has_calls=True,
)
GENERATE: Final = LineShape(
    b'"response":%s,"done":', b'"response":%s,"thinking":%s,"done":', has_calls=False
)


class ChatResponseLines:
    """Renders a job's events as lines."""

    media_type = NDJSON

    def __init__(self, model: str, shape: LineShape) -> None:
        """`model` is the name that the client sent."""
        self._head = b'{"model":%s,"created_at":"' % json_line(model)
        self._shape = shape
        self._calls = ToolCallBuilder()

    @property
    def keep_alive(self) -> bytes:
        """A line with empty text: NDJSON has no comments."""
        return self._line(stamp(time.time()), self._shape.content % b'""')

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The lines for these frames."""
        return b"".join([self._render_frame(frame) for frame in frames])

    def render_error(self, problem: Problem) -> bytes:
        """The last line of a response that failed."""
        return encoded(problem) + b"\n"

    def _render_frame(self, frame: Frame) -> bytes:
        if frame.type == "delta":
            return self._delta(frame.body)
        if frame.type == "done":
            return self._end(frame)
        if frame.type in RESTARTS:
            self._calls = ToolCallBuilder()
        return b""

    def _delta(self, body: bytes) -> bytes:
        """The line of a delta; most are text alone, and are not parsed.

        Quotes in a JSON string are escaped, so `","` never occurs inside one.
        """
        at = body.find(_TEXT)
        if at > 0 and body[-2:] == b'"}' and body.find(b'","', at + len(_TEXT)) < 0:
            text = one_line(body[at + len(_TEXT) - 1 : -1])
            return self._line(created(body), self._shape.content % text)
        return self._rich(body)

    def _rich(self, body: bytes) -> bytes:
        fields = from_json(body)
        self._calls.add(fields.get("tool_calls") or ())
        content = (fields.get("content") or "") + (fields.get("refusal") or "")
        thinking = fields.get("thinking")
        likely = fields.get("logprobs")
        if not (content or thinking or likely):
            return b""
        text = json_line(content)
        if thinking:
            middle = self._shape.thinking % (text, json_line(thinking))
        else:
            middle = self._shape.content % text
        if likely:
            middle = b'"logprobs":%s,%s' % (json_line([logprob(each) for each in likely]), middle)
        return self._line(created(body), middle)

    def _end(self, frame: Frame) -> bytes:
        done = frame.event
        if not isinstance(done, Done):
            return b""
        at, calls = created(frame.body), b""
        if self._shape.has_calls and self._calls:
            try:
                message = {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": self._calls.whole,
                }
            except Refusal as error:
                return self.render_error(problem_of(error, {}))
            calls = self._line(at, b'"message":%s,"done":' % json_line(message))
        middle = self._shape.content % b'""'
        return calls + self._line(at, middle, b"true," + json_line(metrics(done))[1:])

    def _line(self, at: bytes, middle: bytes, end: bytes = b"false}") -> bytes:
        return b'%s%s",%s%s\n' % (self._head, at, middle, end)


def response_body(model: str, shape: LineShape, result: Result) -> bytes:
    """The response of a job that is done as one object; raises Refusal for invalid tool calls."""
    calls = ToolCallBuilder.of(result.tool_calls)
    thinking = {"thinking": result.thinking} if result.thinking else {}
    likely = [logprob(each.model_dump()) for each in result.logprobs or ()]
    content = result.content + result.refusal
    text_fields: dict[str, Any]
    if shape.has_calls:
        tool_calls = {"tool_calls": calls.whole} if calls else {}
        text_fields = {
            "message": {"role": "assistant", "content": content, **thinking, **tool_calls}
        }
    else:
        text_fields = {"response": content, **thinking}
    return json_line(
        {
            "model": model,
            "created_at": stamp(time.time()).decode(),
            **text_fields,
            **({"logprobs": likely} if likely else {}),
            "done": True,
            **metrics(result),
        }
    )


def load_response(model: str, shape: LineShape, reason: str, at: float) -> bytes:
    """The response when the model was loaded or unloaded, at unix `at`."""
    text_fields: dict[str, Any] = {"response": ""}
    if shape.has_calls:
        text_fields = {"message": {"role": "assistant", "content": ""}}
    fields = {"model": model, "created_at": stamp(at).decode(), **text_fields}
    return json_line({**fields, "done": True, "done_reason": reason})
