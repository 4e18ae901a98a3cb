"""POST /v1/completions: the body, and the contract's request that it means. Pure.

Source: openai/openai-openapi, CreateCompletionRequest.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic_core import from_json

from api_shim.http.problems import Problem
from api_shim.openai.chat_request import Sampled, sampling
from api_shim.openai.chat_response import DONE, usage
from api_shim.openai.embeddings import Ids, ids, texts
from api_shim.openai.errors import encoded
from api_shim.openai.request_fields import made, unsupported, wrong
from api_shim.openai.response_head import ResponseHead
from contract import sse
from contract.chat import ChatRequest
from contract.events import Frame, LogProb, Usage
from contract.json_lines import json_line
from contract.result import Result

_DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's, and vLLM's."""


class CompletionBody(Sampled):
    """Raw text to be continued, with no chat template around it."""

    prompt: str | list[str] | Ids | list[Ids]
    """One text, or the ids of its tokens where the backend takes them; several texts are several
    requests."""
    suffix: str | None = None
    """What stands behind the answer, where the backend can fill in the middle."""
    echo: bool | None = None
    """Whether the answer begins with the prompt."""
    best_of: int | None = None
    """1; as `n`."""
    logprobs: int | None = None
    """How many likely tokens to tell of in each place, where the backend can."""


def to_completion(body: CompletionBody) -> ChatRequest:
    """The request; raises Refusal for what cannot be done."""
    if body.best_of is not None and body.best_of != 1:
        raise unsupported("best_of", "a request has one answer here")
    prompt = _prompt(body)
    if body.echo and (body.logprobs is not None or not isinstance(prompt, str)):
        raise unsupported("echo", "only the words of a text prompt are repeated")
    return made(
        ChatRequest,
        body,
        prompt=prompt,
        suffix=body.suffix or None,
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs,
        **sampling(body, _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens),
    )


def repeated(body: CompletionBody) -> str:
    """What the answer begins with besides its own words."""
    request = _prompt(body) if body.echo else ""
    return request if isinstance(request, str) else ""


def _prompt(body: CompletionBody) -> str | tuple[int, ...]:
    prompts: list[str | tuple[int, ...]] = [*texts(body.prompt), *ids(body.prompt)]
    if not any(prompts):
        raise wrong("prompt", "it is empty, and there is nothing to go on from")
    if len(prompts) > 1:
        raise unsupported("prompt", "a request has one prompt here: send one for each")
    return prompts[0]


def whole(head: ResponseHead, result: Result, repeated: str = "") -> dict[str, Any]:
    """The answer to a request that does not stream."""
    told = None if result.logprobs is None else Offsets(len(repeated)).lists(result.logprobs)
    choice = {
        "text": repeated + result.content,
        "index": 0,
        "logprobs": told,
        "finish_reason": result.finish_reason or "stop",
    }
    return {
        **head.fields("cmpl", "text_completion"),
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

    def __init__(self, head: ResponseHead, *, with_usage: bool, repeated: str = "") -> None:
        """Tell this job's answer behind what it repeats."""
        self._repeated = repeated
        self._offsets = Offsets(len(repeated))
        self._with_usage = with_usage
        self._head = sse.DATA + json_line(head.fields("cmpl", "text_completion"))[:-1]
        no_usage = b',"usage":null' if with_usage else b""
        self._chunk = (
            self._head.replace(b"%", b"%%")
            + b',"choices":[{"text":%s,"index":0,"logprobs":%s,"finish_reason":%s}]'
            + no_usage
            + b"}"
            + sse.END
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
        return sse.encode(encoded(problem))

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
            told += self._head + b',"choices":[],"usage":' + json_line(counts) + b"}" + sse.END
        return told + DONE
