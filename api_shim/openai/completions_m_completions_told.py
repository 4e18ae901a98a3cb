"""A completion in OpenAI's words, whole and in chunks. Pure; the chunks are a hot path.

Source: openai/openai-openapi, CreateCompletionResponse; a chunk has the same shape.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import from_json

from api_shim.http.problems import Problem
from api_shim.openai import sse
from api_shim.openai.chat_response import usage
from api_shim.openai.errors import encoded
from api_shim.openai.response_head import Heading
from contract.events import LogProb, Usage
from contract.events_m_frames import Frame
from contract.json_lines import json_line
from contract.result import Result


def whole(heading: Heading, result: Result, repeated: str = "") -> dict[str, Any]:
    """The answer to a request that does not stream."""
    told = None if result.logprobs is None else Offsets(len(repeated)).lists(result.logprobs)
    choice = {
        "text": repeated + result.content,
        "index": 0,
        "logprobs": told,
        "finish_reason": result.finish_reason or "stop",
    }
    return {
        **heading.fields("cmpl", "text_completion"),
        "choices": [choice],
        "usage": usage(result.usage),
    }


class Offsets:
    """Likelihoods as this endpoint tells them: parallel lists, and where each token begins."""

    def __init__(self, begin: int = 0) -> None:
        """The first token begins after this many characters."""
        self._at = begin

    def lists(self, told: Iterable[LogProb]) -> dict[str, Any]:
        """The next tokens."""
        lists: dict[str, list[Any]] = {
            "text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": [],
        }  # fmt: skip
        for each in told:
            lists["text_offset"].append(self._at)
            lists["token_logprobs"].append(each.logprob)
            lists["tokens"].append(each.token)
            lists["top_logprobs"].append({top.token: top.logprob for top in each.top_logprobs})
            self._at += len(each.token)
        return lists


class CompletionChunks:
    """One answer as a stream of `text_completion`."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, heading: Heading, *, with_usage: bool, repeated: str = "") -> None:
        """Tell this job's answer behind what it repeats."""
        self._repeated = repeated
        self._offsets = Offsets(len(repeated))
        self._with_usage = with_usage
        self._head = b"data: " + json_line(heading.fields("cmpl", "text_completion"))[:-1]
        no_usage = b',"usage":null' if with_usage else b""
        self._chunk = (
            self._head.replace(b"%", b"%%")
            + b',"choices":[{"text":%s,"index":0,"logprobs":%s,"finish_reason":%s}]'
            + no_usage
            + b"}\n\n"
        )

    def tell(self, frames: Sequence[Frame]) -> bytes:
        """Their chunks."""
        told = b""
        for frame in frames:
            if frame.type == "delta":
                told += self._delta(from_json(frame.body))
            elif frame.type == "done":
                told += self._done(from_json(frame.body))
        if told and self._repeated:
            told = self._chunk % (json_line(self._repeated), b"null", b"null") + told
            self._repeated = ""
        return told

    def fail(self, problem: Problem) -> bytes:
        """An event with an error, at which clients raise; no `[DONE]`, for it is not."""
        return b"data: %s\n\n" % encoded(problem)

    def _delta(self, event: dict[str, Any]) -> bytes:
        content, told = event.get("content"), event.get("logprobs")
        if told:
            lists = self._offsets.lists(LogProb.model_validate(each) for each in told)
            return self._chunk % (json_line(content or ""), json_line(lists), b"null")
        return self._chunk % (json_line(content), b"null", b"null") if content else b""

    def _done(self, event: dict[str, Any]) -> bytes:
        told = self._chunk % (b'""', b"null", json_line(event.get("finish_reason") or "stop"))
        if self._with_usage and event.get("usage"):
            counts = usage(Usage.model_validate(event["usage"]))
            told += self._head + b',"choices":[],"usage":' + json_line(counts) + b"}\n\n"
        return told + sse.DONE
