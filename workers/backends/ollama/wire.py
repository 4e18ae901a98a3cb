"""Our requests in Ollama's words, and its lines as our events: pure, tested with bytes.

Wire facts: ollama/ollama `api/types.go`, `server/routes.go`, `server/images.go`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import from_json

from contract.chat import ChatRequest, JsonFormat, Message, SchemaFormat, Think
from contract.errors import (
    BackendRejected,
    InvalidRequest,
    NotSupported,
    TruncatedStream,
)
from contract.events import Delta, Done, FinishReason, Progress, Timings, ToolCallDelta, Usage
from contract.roster import ModelReport, ModelTrait
from workers.backends.logprobs import read_logprobs
from workers.backends.ollama.shapes import LINE
from workers.backends.shapes import count
from workers.backends.tools import arguments_text, tool_definition

_THINK: Final[dict[Think, bool | str]] = {
    "off": False,
    "on": True,
    "minimal": "low",  # any other word than low, medium, high, max is a 400
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
}
_NO_LEVELS: Final = re.compile(r"think value .{1,40} is not supported")
_TRAITS: Final[dict[str, tuple[ModelTrait, ...]]] = {
    "completion": ("chat", "schema"),
    "embedding": ("embed",),
    "vision": ("vision",),
    "tools": ("tools",),
    "thinking": ("thinking",),
    "image": ("image",),
}


def to_chat(request: ChatRequest) -> dict[str, Any]:
    """The body of POST /api/chat; raises NotSupported for what would change the meaning."""
    if request.tool_choice not in {"auto", "none"}:
        raise NotSupported(
            "tool_choice: Ollama cannot force a tool call; use auto, or a llamacpp or vllm backend"
        )
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages),
        "stream": True,
        "options": _options(request),
        "think": _THINK.get(request.think),
        "keep_alive": seconds(request.keep_alive_s),
        "truncate": request.truncate,
        "shift": request.shift,
        "format": _format(request),
        **_likelihoods(request),
    }
    if request.tools and request.tool_choice == "auto":
        body["tools"] = [tool_definition(tool) for tool in request.tools]
    return {name: value for name, value in body.items() if value is not None}


def to_generate(request: ChatRequest) -> dict[str, Any]:
    """The body of POST /api/generate for raw text; with a suffix the model's template is needed."""
    body: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt,
        "suffix": request.suffix,
        "raw": request.suffix is None,
        "stream": True,
        "options": _options(request),
        "keep_alive": seconds(request.keep_alive_s),
        "truncate": request.truncate,
        "shift": request.shift,
        "format": _format(request),
        **_likelihoods(request),
    }
    return {name: value for name, value in body.items() if value is not None}


def unsupported_fields(request: ChatRequest) -> tuple[str, ...]:
    """Fields of a chat that raw text has no place for."""
    if request.prompt is None:
        return ()
    is_asked = {"think": request.think not in {"auto", "off"}, "tools": bool(request.tools)}
    return tuple(name for name, asked in is_asked.items() if asked)


def without_level(body: dict[str, Any], error: BackendRejected) -> dict[str, Any] | None:
    """The body to send where a model only knows thinking or not; None if that is not the error.

    Only gpt-oss has levels; to others Ollama answers 400 (`server/routes.go`), or takes any level
    as true, as later versions do.
    """
    is_level = isinstance(body.get("think"), str)
    return {**body, "think": True} if is_level and _NO_LEVELS.search(error.message) else None


def _format(request: ChatRequest) -> str | dict[str, Any] | None:
    match request.response_format:
        case JsonFormat():
            return "json"
        case SchemaFormat(schema_=schema):
            return schema
        case _:
            return None


def _likelihoods(request: ChatRequest) -> dict[str, Any]:
    if not request.logprobs:
        return {}
    return {"logprobs": True, "top_logprobs": request.top_logprobs or None}


def seconds(keep_alive_s: float | None) -> float | int | None:
    """A number in `keep_alive` is seconds; negative is for ever, 0 unloads afterwards."""
    if keep_alive_s is None:
        return None
    return int(keep_alive_s) if keep_alive_s == int(keep_alive_s) else keep_alive_s


def _options(request: ChatRequest) -> dict[str, Any]:
    options = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "repeat_penalty": request.repeat_penalty,
        "num_ctx": request.context_length,
    }
    return {name: value for name, value in options.items() if value is not None}


def _messages(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    names = {call.id: call.name for message in messages for call in message.tool_calls if call.id}
    return [_message(at, message, names) for at, message in enumerate(messages)]


def _message(at: int, message: Message, names: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.images:
        fields["images"] = [_image(at, image) for image in message.images]
    if message.thinking:
        fields["thinking"] = message.thinking
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": _object(at, call)}}
            if call.id
            else {"function": {"name": call.name, "arguments": _object(at, call)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        name = message.tool_name or names.get(message.tool_call_id or "")
        fields |= {"tool_name": name} if name else {}
        fields |= {"tool_call_id": message.tool_call_id} if message.tool_call_id else {}
    return fields


def _image(at: int, image: str) -> str:
    if image.startswith(("http:", "https:")):
        raise NotSupported(
            f"messages[{at}].content: Ollama takes images as base64, not as URLs; send the bytes"
        )
    return image.partition(",")[2] if image.startswith("data:") else image


def _object(at: int, call: Any) -> dict[str, Any]:
    try:
        arguments = from_json(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(
            f"messages[{at}].tool_calls: the arguments of {call.name!r} are no JSON object, which"
            " Ollama needs"
        )
    return arguments


def validated_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line whose fields are what they must be; raises BadAnswer.

    Nearly all lines are one text and nothing else: those are looked at by hand.
    """
    match line:
        case {"message": {"role": "assistant", "content": str(), **others}, "done": False}:
            if not others and "logprobs" not in line:
                return line
        case _:
            pass
    return LINE.read(line)  # type: ignore[return-value]


class ChatLines:
    """Reads the lines of one chat answer: `delta` of a line, and `done` of the last."""

    def __init__(self) -> None:
        """No tool call seen yet."""
        self._calls = 0

    def delta(self, line: dict[str, Any]) -> Delta | None:
        """What the line adds to the answer, if anything; the last line may add something too."""
        delta = self._words(line)
        told = read_logprobs(line.get("logprobs"))
        if told is None:
            return delta
        return (delta or Delta()).model_copy(update={"logprobs": told})

    def _words(self, line: dict[str, Any]) -> Delta | None:
        message = line.get("message")
        if not message:
            text = line.get("response")  # POST /api/generate
            return Delta(content=text) if text else None
        content, thinking = message.get("content"), message.get("thinking")
        calls = message.get("tool_calls")
        if calls:
            return Delta(
                content=content or None, thinking=thinking or None, tool_calls=self._numbered(calls)
            )
        if content:
            return Delta(content=content, thinking=thinking or None)
        return Delta(thinking=thinking) if thinking else None

    def done(self, line: dict[str, Any]) -> Done:
        """The last word; raises TruncatedStream when Ollama says that it was cut off.

        Counts may be missing (a prompt that was cached whole), and `done_reason` stays `stop`
        with tool calls; empty, it means that the connection to the runner was closed.
        """
        reason = line.get("done_reason")
        if reason == "":
            raise TruncatedStream("Ollama ended the answer without a reason: its runner was closed")
        finish: FinishReason = "length" if reason == "length" else "stop"
        if self._calls and finish == "stop":
            finish = "tool_calls"
        return Done(
            finish_reason=finish,
            usage=_usage(line.get("prompt_eval_count"), line.get("eval_count")),
            timings=timings(line),
        )

    def _numbered(self, calls: list[dict[str, Any]]) -> tuple[ToolCallDelta, ...]:
        """A call is always whole. Its own `index` is not used: some versions repeat 0."""
        first = self._calls
        self._calls += len(calls)
        return tuple(
            ToolCallDelta(
                index=first + at,
                id=str(call.get("id") or f"call_{first + at}"),
                name=call["function"]["name"],
                arguments=arguments_text(call["function"].get("arguments")),
            )
            for at, call in enumerate(calls)
        )


def _usage(prompt: int | None, completion: int | None) -> Usage | None:
    """A prompt that was cached whole has no count; a line without any tells none."""
    if prompt is None and completion is None:
        return None
    return Usage(prompt_tokens=prompt or 0, completion_tokens=completion or 0)


def timings(line: dict[str, Any]) -> Timings:
    """What the last line tells of time; Ollama counts nanoseconds."""
    load = line.get("load_duration")
    return Timings(load_ms=load / 1e6 if load else None)


class PullLines:
    """Reads the lines of a pull or a create and adds up the digests seen so far."""

    def __init__(self) -> None:
        """Nothing seen, and no success yet."""
        self._layers: dict[str, tuple[int, int]] = {}
        self.succeeded = False

    def progress(self, line: Mapping[str, Any]) -> Progress:
        """How far it has come; `completed` is left out while it is 0."""
        status, digest = str(line.get("status") or ""), line.get("digest")
        self.succeeded = self.succeeded or status == "success"
        if not digest:
            return Progress(status=status, **self._overall())
        self._layers[digest] = (line.get("total") or 0, line.get("completed") or 0)
        total, completed = self._layers[digest]
        return Progress(
            status=status,
            digest=digest,
            total_bytes=total,
            completed_bytes=completed,
            **self._overall(),
        )

    def _overall(self) -> dict[str, int]:
        if not self._layers:
            return {}
        return {
            "overall_total_bytes": sum(total for total, _ in self._layers.values()),
            "overall_completed_bytes": sum(completed for _, completed in self._layers.values()),
        }


_TOLD: Final[tuple[ModelTrait, ...]] = ("chat", "embed", "vision", "tools", "thinking")
"""What a list of capabilities leaves out, the model cannot do: the server answers 400 to it."""


def to_report(tag: dict[str, Any], shown: dict[str, Any], *, warm: bool) -> ModelReport:
    """A model of /api/tags, with what /api/show told of it (empty if it was not asked)."""
    details = tag.get("details") or {}
    told = tag.get("capabilities") or shown.get("capabilities") or ()
    info = shown.get("model_info") or {}
    family = info.get("general.architecture") or ""
    traits = tuple(trait for name in told for trait in _TRAITS.get(name, ()))
    return ModelReport(
        name=tag.get("name") or tag.get("model") or "",
        traits=tuple(dict.fromkeys(traits)),
        lacks=tuple(trait for trait in _TOLD if trait not in traits) if told else (),
        warm=warm,
        context_length=_whole(
            details.get("context_length") or info.get(f"{family}.context_length")
        ),
        dimension=_whole(details.get("embedding_length") or info.get(f"{family}.embedding_length"))
        if "embed" in traits
        else None,
        size_bytes=_whole(tag.get("size")),
    )


def _whole(number: Any) -> int | None:
    """Numbers of `model_info` may be JSON floats."""
    return count(number) or None
