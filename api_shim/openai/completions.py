"""POST /v1/completions: the request and the response. Pure.

Source: openai/openai-openapi, CreateCompletionRequest and CreateCompletionResponse.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from api_shim.following.job_refusals import RESTARTS
from api_shim.http.problems import Problem
from api_shim.openai.chat_request import Sampled, sampling
from api_shim.openai.chat_response import DONE, usage
from api_shim.openai.embeddings import Ids, ids, texts
from api_shim.openai.errors import encoded
from api_shim.openai.request_fields import build_request, invalid_field, unsupported_field
from api_shim.openai.response_head import ResponseHead
from contract import sse
from contract.chat import ChatRequest
from contract.events import Frame, LogProb, Usage
from contract.json_lines import json_line
from contract.result import Result

_DEFAULT_MAX_TOKENS: Final = 16
"""The default of OpenAI and vLLM."""


class CompletionBody(Sampled):
    """Raw text to continue, without a chat template."""

    prompt: str | list[str] | Ids | list[Ids]
    """One text, or token ids where the backend accepts them; send several requests for several
    texts.
    """
    suffix: str | None = None
    """Text after the completion, where the backend can fill in the middle."""
    echo: bool | None = None
    """Whether the response begins with the prompt."""
    best_of: int | None = None
    """Only 1 is supported, as for `n`."""
    logprobs: int | None = None
    """Number of likely tokens to report at each position, where the backend can."""


def to_completion(body: CompletionBody) -> ChatRequest:
    """The request; raises Refusal for what is not supported."""
    if body.best_of is not None and body.best_of != 1:
        raise unsupported_field("best_of", "must be 1: send several requests")
    prompt = _prompt(body)
    if body.echo and (body.logprobs is not None or not isinstance(prompt, str)):
        raise unsupported_field("echo", "only a text prompt without logprobs can be echoed")
    return build_request(
        ChatRequest,
        body,
        prompt=prompt,
        suffix=body.suffix or None,
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs,
        **sampling(body, _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens),
    )


def echoed_prompt(body: CompletionBody) -> str:
    """The text that the response repeats before its own; empty unless `echo`."""
    request = _prompt(body) if body.echo else ""
    return request if isinstance(request, str) else ""


def _prompt(body: CompletionBody) -> str | tuple[int, ...]:
    prompts: list[str | tuple[int, ...]] = [*texts(body.prompt), *ids(body.prompt)]
    if not any(prompts):
        raise invalid_field("prompt", "must not be empty")
    if len(prompts) > 1:
        raise unsupported_field(
            "prompt", "several prompts are not supported: send a request for each"
        )
    return prompts[0]


def response_body(head: ResponseHead, result: Result, echoed_prompt: str = "") -> dict[str, Any]:
    """The response of a request that does not stream."""
    logprobs = (
        None if result.logprobs is None else Offsets(len(echoed_prompt)).lists(result.logprobs)
    )
    choice = {
        "text": echoed_prompt + result.content,
        "index": 0,
        "logprobs": logprobs,
        "finish_reason": result.finish_reason or "stop",
    }
    return {
        **head.fields("cmpl", "text_completion"),
        "choices": [choice],
        "usage": usage(result.usage),
    }


class Offsets:
    """Log probabilities in this endpoint's form: parallel lists, with the offset of each token."""

    def __init__(self, begin: int = 0) -> None:
        """The first token begins after this many characters."""
        self._at = begin

    def lists(self, tokens: Iterable[LogProb]) -> dict[str, Any]:
        """The lists for the next tokens."""
        lists: dict[str, list[Any]] = {
            "text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": [],
        }  # fmt: skip
        for each in tokens:
            lists["text_offset"].append(self._at)
            lists["token_logprobs"].append(each.logprob)
            lists["tokens"].append(each.token)
            lists["top_logprobs"].append({top.token: top.logprob for top in each.top_logprobs})
            self._at += len(each.token)
        return lists


class CompletionLogprobs:
    """The lists of a whole answer as JSON, because its entries as objects are ten times that."""

    def __init__(self) -> None:
        """No token is added yet."""
        self._offsets = Offsets()
        self._lists: dict[str, bytearray] = {}

    def _add(self, frame: Frame) -> None:
        if frame.type in RESTARTS:
            self._offsets, self._lists = Offsets(), {}
        elif b'"logprobs"' in frame.body and (tokens := frame.fields.get("logprobs")):
            lists = self._offsets.lists(LogProb.model_validate(each) for each in tokens)
            for name, values in lists.items():
                held = self._lists.setdefault(name, bytearray())
                held += b"," * bool(held) + json_line(values)[1:-1]

    def add_all(self, frames: Iterable[Frame]) -> None:
        """Add the next events of the log."""
        for frame in frames:
            self._add(frame)

    def within(self, body: bytes) -> bytes:
        """The JSON of a response without log probabilities, with them."""
        if not self._lists:
            return body
        # No text of a response has an unescaped quotation mark.
        before, after = body.split(b'"logprobs":null', 1)
        lists = [b'"%b":[%b]' % (name.encode(), bytes(held)) for name, held in self._lists.items()]
        return b'%b"logprobs":{%b}%b' % (before, b",".join(lists), after)


class CompletionChunks:
    """Renders a job's events as chunks of `text_completion`."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, head: ResponseHead, *, with_usage: bool, echoed_prompt: str = "") -> None:
        """`echoed_prompt` is sent before the job's own text."""
        self._echoed_prompt = echoed_prompt
        self._offsets = Offsets(len(echoed_prompt))
        self._with_usage = with_usage
        self._use(head)

    def _use(self, head: ResponseHead) -> None:
        """Encode the constant parts of the chunks."""
        self._response, with_usage = head, self._with_usage
        self._head = sse.DATA + json_line(head.fields("cmpl", "text_completion"))[:-1]
        no_usage = b',"usage":null' if with_usage else b""
        self._chunk = (
            self._head.replace(b"%", b"%%")
            + b',"choices":[{"text":%s,"index":0,"logprobs":%s,"finish_reason":%s}]'
            + no_usage
            + b"}"
            + sse.END
        )

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The chunks for these frames."""
        data = b""
        for frame in frames:
            if frame.type == "delta":
                data += self._delta(frame.fields)
            elif frame.type == "done":
                data += self._done(frame.fields)
            elif frame.type == "started" and self._response.is_alias:
                self._use(self._response.answered_by(frame))
        if data and self._echoed_prompt:
            data = self._chunk % (json_line(self._echoed_prompt), b"null", b"null") + data
            self._echoed_prompt = ""
        return data

    def render_error(self, problem: Problem) -> bytes:
        """An event with an error, at which clients raise; without `[DONE]`."""
        return sse.encode(encoded(problem))

    def _delta(self, event: dict[str, Any]) -> bytes:
        content, tokens = event.get("content"), event.get("logprobs")
        if tokens:
            lists = self._offsets.lists(LogProb.model_validate(each) for each in tokens)
            return self._chunk % (json_line(content or ""), json_line(lists), b"null")
        return self._chunk % (json_line(content), b"null", b"null") if content else b""

    def _done(self, event: dict[str, Any]) -> bytes:
        data = self._chunk % (b'""', b"null", json_line(event.get("finish_reason") or "stop"))
        if self._with_usage and event.get("usage"):
            counts = usage(Usage.model_validate(event["usage"]))
            data += self._head + b',"choices":[],"usage":' + json_line(counts) + b"}" + sse.END
        return data + DONE
