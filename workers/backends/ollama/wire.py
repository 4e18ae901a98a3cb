"""Ollama's wire format: request bodies, and readers of its NDJSON lines. Does no I/O.

Source: ollama/ollama `api/types.go`, `server/routes.go`, `server/images.go`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from contract.chat import ChatRequest, JsonFormat, Message, SchemaFormat, Think
from contract.errors import BackendRejected, InvalidRequest, NotSupported, TruncatedStream
from contract.events import Delta, Done, FinishReason, Progress, Timings, ToolCallDelta, Usage
from contract.json_texts.arguments import parsed
from contract.roster import ModelReport, ModelTrait
from workers.backends.logprobs import read_logprobs
from workers.backends.ollama.shapes import LINE
from workers.backends.shapes import DownloadSums, count
from workers.backends.tools import arguments_text, few_calls, tool_definition

_THINK: Final[dict[Think, bool | str]] = {
    "off": False,
    "on": True,
    "minimal": "low",  # any level but low, medium, high, max is a 400
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
    """The body of POST /api/chat.

    Raises NotSupported for a forced tool call or an image URL, InvalidRequest for arguments of a
    tool call that are not a JSON object.
    """
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
        **_logprob_fields(request),
    }
    if request.tools and request.tool_choice == "auto":
        body["tools"] = [tool_definition(tool) for tool in request.tools]
    return {name: value for name, value in body.items() if value is not None}


def to_generate(request: ChatRequest) -> dict[str, Any]:
    """The body of POST /api/generate; `raw` unless there is a suffix, which needs the template."""
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
        **_logprob_fields(request),
    }
    return {name: value for name, value in body.items() if value is not None}


def unsupported_fields(request: ChatRequest) -> tuple[str, ...]:
    """Chat fields that POST /api/generate does not support."""
    if request.prompt is None:
        return ()
    is_set = {"think": request.think not in {"auto", "off"}, "tools": bool(request.tools)}
    return tuple(name for name, value in is_set.items() if value)


def without_level(body: dict[str, Any], error: BackendRejected) -> dict[str, Any] | None:
    """The body with `think` true in place of a level; None if that was not the error.

    Only gpt-oss has levels; for others Ollama returns 400 (`server/routes.go`), later versions
    read any level as true.
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


def _logprob_fields(request: ChatRequest) -> dict[str, Any]:
    if not request.logprobs:
        return {}
    return {"logprobs": True, "top_logprobs": request.top_logprobs or None}


def seconds(keep_alive_s: float | None) -> float | int | None:
    """The value of `keep_alive` in seconds; negative is forever, 0 unloads afterwards."""
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
        arguments = parsed(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(
            f"messages[{at}].tool_calls: the arguments of {call.name!r} are not a JSON"
            " object with numbers in range, which Ollama needs"
        )
    return arguments


def validated_line(line: dict[str, Any]) -> dict[str, Any]:
    """The line, validated; raises BadAnswer.

    Nearly all lines have one text and nothing else: those are checked by hand.
    """
    match line:
        case {"message": {"role": "assistant", "content": str(), **others}, "done": False}:
            if not others and "logprobs" not in line:
                return line
        case _:
            pass
    return LINE.read(line)  # type: ignore[return-value]


class ChatLines:
    """Reads the lines of one chat response: `delta` of each, `done` of the last."""

    def __init__(self) -> None:
        """Before the first line."""
        self._calls = 0

    def delta(self, line: dict[str, Any]) -> Delta | None:
        """The delta of a line, if any; the last line may have one too."""
        delta = self._content_delta(line)
        logprobs = read_logprobs(line.get("logprobs"))
        if logprobs is None:
            return delta
        return (delta or Delta()).model_copy(update={"logprobs": logprobs})

    def _content_delta(self, line: dict[str, Any]) -> Delta | None:
        message = line.get("message")
        if not message:
            text = line.get("response")  # POST /api/generate
            return Delta(content=text) if text else None
        content, thinking = message.get("content"), message.get("thinking")
        calls = message.get("tool_calls")
        if calls:
            return Delta(
                content=content or None,
                thinking=thinking or None,
                tool_calls=self._numbered(few_calls(calls)),
            )
        if content:
            return Delta(content=content, thinking=thinking or None)
        return Delta(thinking=thinking) if thinking else None

    def done(self, line: dict[str, Any]) -> Done:
        """The terminal event; raises TruncatedStream for an empty `done_reason`.

        Counts may be missing (a fully cached prompt). `done_reason` is `stop` even with tool
        calls; an empty one means that the connection to the runner was closed.
        """
        reason = line.get("done_reason")
        if reason == "":
            raise TruncatedStream("Ollama ended the answer without a reason: its runner was closed")
        finish: FinishReason = "length" if reason == "length" else "stop"
        if self._calls and finish == "stop":
            finish = "tool_calls"
        return Done(
            finish_reason=finish,
            usage=_usage(line),
            timings=timings(line),
        )

    def _numbered(self, calls: Sequence[dict[str, Any]]) -> tuple[ToolCallDelta, ...]:
        """Calls are never split. Their own `index` is not used: some versions repeat 0."""
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


def _usage(line: dict[str, Any]) -> Usage | None:
    """The usage in tokens; a fully cached prompt has no count.

    None without counts, and if one of them is not a whole number: the shape reads it as null.
    """
    counts = [line[name] for name in ("prompt_eval_count", "eval_count") if name in line]
    if not counts or None in counts:
        return None
    return Usage(
        prompt_tokens=line.get("prompt_eval_count", 0), completion_tokens=line.get("eval_count", 0)
    )


def timings(line: dict[str, Any]) -> Timings:
    """The load time of the last line in milliseconds; Ollama writes nanoseconds."""
    load = line.get("load_duration")
    return Timings(load_ms=load / 1e6 if load else None)


class PullLines:
    """Reads the lines of a pull or create, and sums up the digests seen so far."""

    def __init__(self) -> None:
        """Before the first line."""
        self._sums = DownloadSums()
        self.succeeded = False

    def progress(self, line: Mapping[str, Any]) -> Progress:
        """The progress of a line, in bytes; Ollama omits `completed` while it is 0."""
        status, digest = str(line.get("status") or ""), line.get("digest")
        self.succeeded = self.succeeded or status == "success"
        if not digest:
            return Progress(status=status, **self._overall())
        total, completed = line.get("total") or 0, line.get("completed") or 0
        self._sums.put(digest, total, completed)
        return Progress(
            status=status,
            digest=digest,
            total_bytes=total,
            completed_bytes=completed,
            **self._overall(),
        )

    def _overall(self) -> dict[str, int]:
        sums = self._sums
        if not sums:
            return {}
        return {
            "overall_total_bytes": sums.total_bytes,
            "overall_completed_bytes": sums.completed_bytes,
        }


_LISTED_TRAITS: Final[tuple[ModelTrait, ...]] = ("chat", "embed", "vision", "tools", "thinking")
"""A model lacks those that its capabilities omit: the server returns 400 for them."""


def to_report(tag: dict[str, Any], shown: dict[str, Any], *, warm: bool) -> ModelReport:
    """The report of a model of /api/tags; `shown` is its /api/show, {} if not requested."""
    details = tag.get("details") or {}
    capabilities = tag.get("capabilities") or shown.get("capabilities") or ()
    info = shown.get("model_info") or {}
    family = info.get("general.architecture") or ""
    traits = tuple(trait for name in capabilities for trait in _TRAITS.get(name, ()))
    return ModelReport(
        name=tag.get("name") or tag.get("model") or "",
        traits=tuple(dict.fromkeys(traits)),
        lacks=tuple(trait for trait in _LISTED_TRAITS if trait not in traits)
        if capabilities
        else (),
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
    """A positive integer, else None; numbers of `model_info` may be JSON floats."""
    return count(number) or None


_RENDERERS: Final = frozenset({
    "cohere", "lfm2", "lfm2-thinking", "olmo3", "olmo3.1", "qwen3-coder", "qwen3-vl-instruct",
    "qwen3-vl-thinking", "qwen3.5",
})  # fmt: skip
"""Renderers that leave it open (`model/renderers/*.go`); laguna also adds a line break."""
_TESTS_FOR_LAST: Final = re.compile(
    r"if\s+not\s+(\$last\b|\(\s*eq\s+\(\s*len\s+\(\s*slice\s+\$\.Messages)"
)
"""The test before closing a message, as in templates of Ollama's library."""


def leaves_open(shown: dict[str, Any]) -> bool:
    """Whether Ollama continues a trailing assistant message; `shown` is its /api/show response.

    A prompt is rendered in one of three ways (ollama/ollama v0.33 `server/routes.go`,
    chatModeForModel): by a renderer of Ollama, some of which support prefill; by a Go template,
    which closes the message unless it tests for the last one (those of Ollama,
    `template/*.gotmpl`, all close it); or by llama-server from the model's Jinja template, which
    then repeats the prefill, because Ollama sends none of the flags that prevent it.
    """
    renderer, template = shown.get("renderer"), shown.get("template") or ""
    if shown.get("remote_host"):
        return False
    if renderer:
        return renderer in _RENDERERS
    if not template or "{%" in template:
        return False
    # Without .Messages a template is for one turn, and ends where the response begins.
    return ".Messages" not in template or bool(_TESTS_FOR_LAST.search(template))
