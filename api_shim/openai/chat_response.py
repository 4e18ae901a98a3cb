"""A chat's result as OpenAI's response body, and its events as OpenAI's chunks. Pure.

Chunks are the hot path: the constant parts are encoded once a stream, so a delta costs a parse, one
encoded string and two concatenations. Source: openai/openai-openapi,
CreateChatCompletion(Stream)Response. Reasoning is in `reasoning_content`, as with llama-server,
DeepSeek and most clients; OpenAI's API has none.
"""

from collections.abc import Sequence
from typing import Any, Final

from api_shim.http.problems import Problem
from api_shim.openai.errors import encoded
from api_shim.openai.logprob_fields import chat_logprob
from api_shim.openai.response_head import ResponseHead
from contract import sse
from contract.events import PLAIN_FIELDS, Frame, LogProb, Usage
from contract.json_lines import json_line
from contract.result import Result, unique_call_id

DONE: Final = sse.encode(b"[DONE]")
"""The last event of a stream of chunks."""
_ROLE: Final = b'{"role":"assistant","content":"","refusal":null}'
_CALLS: Final = b'{"role":"assistant","content":null,"refusal":null}'
"""The first delta of a response that begins with a tool call: its content is null, not empty."""


def response_body(head: ResponseHead, result: Result) -> dict[str, Any]:
    """The response of a request that does not stream."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": result.content or (None if result.tool_calls or result.refusal else ""),
        "refusal": result.refusal or None,
    }
    if result.thinking:
        message["reasoning_content"] = result.thinking
    if result.tool_calls:
        message["tool_calls"] = [
            {
                "id": unique_call_id(call.id, head.job_id, at),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
                **_extra(call.provider_meta),
            }
            for at, call in enumerate(result.tool_calls)
        ]
    message |= _extra(result.provider_meta)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs_body(result.logprobs),
        "finish_reason": result.finish_reason or "stop",
    }
    return {
        **head.fields("chatcmpl", "chat.completion"),
        "choices": [choice],
        "usage": usage(result.usage),
    }


def usage(used: Usage | None) -> dict[str, Any] | None:
    """Token counts as OpenAI has them; None if the backend reported none."""
    if used is None:
        return None
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
    }


def logprobs_body(tokens: Sequence[LogProb] | None) -> dict[str, Any] | None:
    """Log probabilities; None if none were requested."""
    if tokens is None:
        return None
    return {"content": [chat_logprob(each.model_dump()) for each in tokens], "refusal": None}


def _extra(meta: dict[str, Any] | None) -> dict[str, Any]:
    """Opaque data of the backend, in the field that Google's OpenAI-compatible API uses."""
    return {"extra_content": meta} if meta else {}


class ChatChunks:
    """Renders a job's events as `chat.completion.chunk`."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, head: ResponseHead, *, with_usage: bool) -> None:
        """`with_usage` adds a last chunk with the token counts."""
        self._job_id = head.job_id
        self._with_usage = with_usage
        self._has_begun = False
        self._use(head)

    def _use(self, head: ResponseHead) -> None:
        """Encode the constant parts of the chunks."""
        self._response, with_usage = head, self._with_usage
        self._head = sse.DATA + json_line(head.fields("chatcmpl", "chat.completion.chunk"))[:-1]
        self._delta = self._head + b',"choices":[{"index":0,"delta":'
        no_usage = b',"usage":null' if with_usage else b""
        self._tail = b',"logprobs":null,"finish_reason":null}]' + no_usage + b"}" + sse.END
        self._end = b',"logprobs":null,"finish_reason":%s}]' + no_usage + b"}" + sse.END

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The chunks for these frames."""
        data, role = b"", _ROLE
        for frame in frames:
            if frame.type == "delta":
                event = frame.fields
                if not data and event.get("tool_calls") and not event.get("content"):
                    role = _CALLS
                data += self._chunk(event)
            elif frame.type == "done":
                data += self._done(frame.fields)
            elif frame.type == "started" and self._response.is_alias:
                self._use(self._response.answered_by(frame))
        if data and not self._has_begun:
            self._has_begun = True
            return self._delta + role + self._tail + data
        return data

    def render_error(self, problem: Problem) -> bytes:
        """An event with an error, at which clients raise; without `[DONE]`."""
        return sse.encode(encoded(problem))

    def _chunk(self, event: dict[str, Any]) -> bytes:
        content = event.get("content")
        if content and len(event) == PLAIN_FIELDS:
            return b'%s{"content":%s}%s' % (self._delta, json_line(content), self._tail)
        delta: dict[str, Any] = {}
        if content:
            delta["content"] = content
        if thinking := event.get("thinking"):
            delta["reasoning_content"] = thinking
        if refusal := event.get("refusal"):
            delta["refusal"] = refusal
        if calls := event.get("tool_calls"):
            delta["tool_calls"] = [self._call(call) for call in calls]
        delta |= _extra(event.get("provider_meta"))
        data = event.get("logprobs")
        if not delta and not data:
            return b""
        if not data:
            return self._delta + json_line(delta) + self._tail
        tokens = [chat_logprob(each) for each in data]
        logprobs = json_line({"content": tokens, "refusal": None})
        tail = self._tail.replace(b'"logprobs":null', b'"logprobs":' + logprobs)
        return self._delta + json_line(delta) + tail

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        """A fragment of a tool call; only the first one of an index has an id."""
        index = call["index"]
        function = {"arguments": call.get("arguments") or ""}
        if call.get("name"):
            function = {"name": call["name"], **function}
        data = {"index": index, "function": function, **_extra(call.get("provider_meta"))}
        if not call.get("id"):
            return data
        id = unique_call_id(call["id"], self._job_id, index)
        return {**data, "id": id, "type": "function"}

    def _done(self, event: dict[str, Any]) -> bytes:
        data = self._delta + b"{}" + self._end % json_line(event.get("finish_reason") or "stop")
        if self._with_usage and event.get("usage"):
            counts = usage(Usage.model_validate(event["usage"]))
            data += self._head + b',"choices":[],"usage":' + json_line(counts) + b"}" + sse.END
        return data + DONE
