"""Request bodies of OpenAI-shaped servers, by dialect: chat, completions, embeddings. No I/O.

Fields that a dialect cannot express are listed in `ignored`; a field whose loss would change the
meaning raises NotSupported. Source: openai/openai-openapi, and the sources of dialects.py.
"""

import re
from typing import Any, Final, NamedTuple

from contract.chat import (
    DETAILS,
    ChatRequest,
    ImagePart,
    JsonFormat,
    Message,
    NamedTool,
    Part,
    SchemaFormat,
    TextFormat,
    Think,
)
from contract.embeddings import EmbedRequest
from contract.errors import NotSupported
from contract.images import mime_type
from workers.backends.openai.dialects import Dialect
from workers.backends.tools import tool_definition

_WITHOUT_REASONING: Final = re.compile(r"(?:chatgpt-|ft:)?gpt-(?:3|4)")
_GPT_5: Final = re.compile(r"gpt-5(?:-|$)")
_O_MODEL: Final = re.compile(r"o\d")


class ReasoningEffort(NamedTuple):
    """The `reasoning_effort` to send, None for none, and whether it matches the request."""

    word: str | None
    is_exact: bool = True


def effort(model: str, think: Think) -> ReasoningEffort:
    """The nearest effort that the model accepts, by the generation in its name (OpenAI)."""
    if think == "auto":
        return ReasoningEffort(None)
    if _WITHOUT_REASONING.match(model):
        return ReasoningEffort(None, is_exact=think == "off")
    if think == "on":
        return ReasoningEffort("medium")  # the default of these models before gpt-5.1
    if _GPT_5.match(model):
        return _nearest(think, {"off": "minimal", "xhigh": "high"})
    if _O_MODEL.match(model):
        return _nearest(think, {"off": "low", "minimal": "low", "xhigh": "high"})
    return ReasoningEffort("none" if think == "off" else think)


def _nearest(think: str, others: dict[str, str]) -> ReasoningEffort:
    return ReasoningEffort(others.get(think, think), is_exact=think not in others)


class OpenAIBody(NamedTuple):
    """The JSON of a request, and the fields of ours that it cannot express."""

    fields: dict[str, Any]
    ignored: tuple[str, ...]


def to_chat(request: ChatRequest, dialect: Dialect) -> OpenAIBody:
    """The body of POST /chat/completions.

    Raises NotSupported for an unknown named tool, or an image URL that the server does not fetch.
    """
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(at, m, dialect) for at, m in enumerate(request.messages)],
        "stream": True,
        "stream_options": {"include_usage": True},
        dialect.length_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "response_format": _response_format(request, dialect),
        **granted_fields(request, dialect),
        **_tools(request, dialect),
        **_prefill(request, dialect),
    }
    ignored: list[str] = []
    for name in ("top_k", "min_p"):
        if name in dialect.sampling:
            fields[name] = getattr(request, name)
        elif getattr(request, name) is not None:
            ignored.append(name)
    _add_think(request, dialect, fields, ignored)
    _add_overflow(request, dialect, fields, ignored)
    _add_keep_alive(request.keep_alive_s, dialect, fields, ignored)
    return OpenAIBody({k: v for k, v in fields.items() if v is not None}, tuple(ignored))


def granted_fields(request: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    """The optional fields that the dialect grants."""
    fields: dict[str, Any] = {
        name: getattr(request, name)
        for name in ("frequency_penalty", "presence_penalty", "logit_bias")
        if name in dialect.grants
    }
    if "repeat_penalty" in dialect.grants:
        fields[dialect.repeat_field] = request.repeat_penalty
    if request.logprobs and "logprobs" in dialect.grants:
        fields |= {"logprobs": True, "top_logprobs": request.top_logprobs or None}
    return fields


def to_embed(request: EmbedRequest, dialect: Dialect) -> OpenAIBody:
    """The body of POST /embeddings without its `input`."""
    fields: dict[str, Any] = {"model": request.model, "encoding_format": dialect.embed_encoding}
    ignored: list[str] = []
    if dialect.embed_dimensions and request.dimensions is not None:
        fields["dimensions"] = request.dimensions
    if dialect.truncate == "field":
        fields |= {} if request.truncate is False else {"truncate_prompt_tokens": -1}
    elif request.truncate:
        ignored.append("truncate")
    _add_keep_alive(request.keep_alive_s, dialect, fields, ignored)
    return OpenAIBody(fields, tuple(ignored))


def _add_think(
    request: ChatRequest, dialect: Dialect, fields: dict[str, Any], ignored: list[str]
) -> None:
    if request.think == "auto":
        return
    match dialect.think:
        case "effort":
            word, is_exact = effort(request.model, request.think)
            fields["reasoning_effort"] = word
            ignored += [] if is_exact else ["think"]
        case "template":
            fields["chat_template_kwargs"] = {"enable_thinking": request.think != "off"}
            if request.think not in {"off", "on"}:
                fields["reasoning_effort"] = request.think
        case "none":
            ignored.append("think")


def _add_overflow(
    request: ChatRequest, dialect: Dialect, fields: dict[str, Any], ignored: list[str]
) -> None:
    """`truncate` and `shift`: false needs no field where the server never truncates."""
    for name in ("truncate", "shift"):
        wanted, support = getattr(request, name), getattr(dialect, name)
        if wanted is None or (support != "unknown" and not wanted):
            continue
        if support == "field":
            fields["truncate_prompt_tokens"] = -1
        else:
            ignored.append(name)


def _add_keep_alive(
    keep_alive_s: float | None, dialect: Dialect, fields: dict[str, Any], ignored: list[str]
) -> None:
    if keep_alive_s is None:
        return
    if dialect.keep_alive_field and keep_alive_s > 0:
        fields[dialect.keep_alive_field] = int(keep_alive_s)
    else:
        ignored.append("keep_alive_s")


def _prefill(request: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    if dialect.prefill != "flags" or request.messages[-1].role != "assistant":
        return {}
    return {"add_generation_prompt": False, "continue_final_message": True}


def _tools(request: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    if not request.tools or request.tool_choice == "none":
        return {}  # vLLM returns 400 for an empty list
    tools, choice = request.tools, request.tool_choice
    sent: str | dict[str, Any]
    if isinstance(choice, NamedTool):
        named = tuple(tool for tool in tools if tool.name == choice.name)
        if not named:
            raise NotSupported(f"tool_choice: no tool is called {choice.name!r}")
        if dialect.named_tool:
            sent = {"type": "function", "function": {"name": choice.name}}
        else:
            tools, sent = named, "required"
    else:
        sent = choice
    fields: dict[str, Any] = {
        "tools": [
            tool_definition(tool, strict="tools[].strict" in dialect.grants) for tool in tools
        ],
        "tool_choice": sent,
    }
    if request.parallel_tool_calls is not None and "parallel_tool_calls" in dialect.grants:
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    return fields


def _response_format(request: ChatRequest, dialect: Dialect) -> dict[str, Any] | None:
    match request.response_format:
        case TextFormat():
            return None
        case JsonFormat() if dialect.json_object:
            return {"type": "json_object"}
        case JsonFormat():
            return _schema("object", {"type": "object"}, strict=False)
        case SchemaFormat(name=name, schema_=schema, strict=strict):
            return _schema(name, schema, strict=strict)


def _schema(name: str, schema: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": strict},
    }


def _message(at: int, message: Message, dialect: Dialect) -> dict[str, Any]:
    content: str | list[dict[str, Any]]
    if isinstance(message.content, str) or (message.role == "assistant" and not message.images):
        content = message.text  # llama-server drops the parts of a prefill (llama.cpp #14353)
    else:
        content = [_part(at, part, dialect) for part in message.content]
    fields: dict[str, Any] = {"role": message.role, "content": content}
    fields |= _thoughts(message, dialect)
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id or f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for number, call in enumerate(message.tool_calls)
        ]
    if message.role == "tool":
        fields["tool_call_id"] = message.tool_call_id or "call_0"
        if message.tool_name and "messages[].tool_name" in dialect.grants:
            fields["name"] = message.tool_name
    return fields


def _thoughts(message: Message, dialect: Dialect) -> dict[str, Any]:
    """The reasoning of an assistant message, in the dialect's fields, if it has any."""
    fields: dict[str, Any] = {}
    details = (message.provider_meta or {}).get(DETAILS)
    if details and "messages[].reasoning_details" in dialect.grants:
        fields[DETAILS] = details
    if message.thinking and "messages[].thinking" in dialect.grants:
        fields[dialect.thinking_field] = message.thinking
    return fields


def _part(at: int, part: Part, dialect: Dialect) -> dict[str, Any]:
    if not isinstance(part, ImagePart):
        return {"type": "text", "text": part.text}
    url = part.image
    if url.startswith(("http:", "https:")):
        if not dialect.image_urls:
            raise NotSupported(
                f"messages[{at}].content: {dialect.type} takes images as base64, not as URLs"
            )
    elif not url.startswith("data:"):
        url = f"data:{mime_type(url)};base64,{url}"
    return {"type": "image_url", "image_url": {"url": url}}


_CHAT_ONLY = ("think", "tools", "truncate", "shift", "keep_alive_s")


def to_completion(request: ChatRequest, dialect: Dialect) -> OpenAIBody:
    """The body of POST /completions, for a request with a `prompt`; chat fields are ignored."""
    logprob_fields = granted_fields(request, dialect)
    if logprob_fields.pop("logprobs", False):
        # In completions it is the number of alternatives per token.
        logprob_fields["logprobs"] = logprob_fields.pop("top_logprobs", None) or 1
    fields: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt if isinstance(request.prompt, str) else _ids(request),
        "suffix": request.suffix,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Without it OpenAI stops after 16 tokens.
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        **{name: getattr(request, name) for name in dialect.sampling},
        **logprob_fields,
    }
    given = request.model_fields_set
    ignored = [name for name in _CHAT_ONLY if name in given and getattr(request, name)]
    ignored += ["top_k"] if request.top_k is not None and "top_k" not in dialect.sampling else []
    ignored += ["min_p"] if request.min_p is not None and "min_p" not in dialect.sampling else []
    if not isinstance(request.response_format, TextFormat):
        ignored.append("response_format")
    return OpenAIBody({k: v for k, v in fields.items() if v is not None}, tuple(ignored))


def _ids(request: ChatRequest) -> list[int]:
    return [each for each in request.prompt or () if isinstance(each, int)]
