"""Estimated cost of a job, for fair order between tenants and the bounds of a queue.

The length of an answer is unknown in advance. What matters is that one rule holds for all tenants
and that a long prompt costs more than a short one: four bytes of text are a token, and the speeds
are those of a small model on one card. Both are rough.
"""

from typing import Any, Final, NamedTuple

from contract.chat import ChatRequest, CountRequest, Message, SchemaFormat, TextPart
from contract.embeddings import EmbedRequest
from contract.images import ImageRequest
from contract.requests import Request
from contract.rerank import RerankRequest

BYTES_A_TOKEN: Final = 4
"""Of a text, about."""
IMAGE_TOKENS: Final = 500
"""Of one image in a prompt."""
_ANSWER_TOKENS: Final = 512
"""Of an answer without `max_tokens`, and the most that is counted of `max_tokens`."""
_READ_PER_S: Final = 2000.0
"""Prompt tokens per second."""
_WRITE_PER_S: Final = 50.0
"""Answer tokens per second."""
_EMBED_PER_S: Final = 5000.0
"""Tokens per second that a small encoder reads, for vectors or for scores."""
_IMAGE_S: Final = 10.0
"""For one image of 512x512 pixels in 20 steps."""
_OTHER_S: Final = 1.0
"""For a job without tokens: a pull, a list, a load."""
_LEAST_S: Final = 0.01
_PUNCTUATION: Final = 6
"""Bytes of a member in JSON beside its name and text: quotes, colon, comma, or a short value."""


class Cost(NamedTuple):
    """An estimated cost."""

    seconds: float
    """Of a backend's time."""
    tokens: int
    """Of prompt and answer."""


def cost_of(request: Request) -> Cost:
    """The estimated cost of a request for its backend; at least 0.01 s."""
    match request:
        case ChatRequest():
            prompt = prompt_tokens(request)
            answer = min(request.max_tokens or _ANSWER_TOKENS, _ANSWER_TOKENS)
            seconds = prompt / _READ_PER_S + answer / _WRITE_PER_S
            return Cost(max(_LEAST_S, seconds), prompt + answer)
        case CountRequest():
            return Cost(_LEAST_S, 0)
        case EmbedRequest():
            tokens = sum(_tokens(text) for text in request.input)
            tokens += sum(len(ids) for ids in request.tokens)
            return Cost(max(_LEAST_S, tokens / _EMBED_PER_S), tokens)
        case RerankRequest():
            tokens = sum(_tokens(query) + _tokens(text) for query, text in request.pairs)
            return Cost(max(_LEAST_S, tokens / _EMBED_PER_S), tokens)
        case ImageRequest():
            size = request.width * request.height / 512**2
            return Cost(_IMAGE_S * request.count * size * (request.steps or 20) / 20, 0)
        case _:
            return Cost(_OTHER_S, 0)


def prompt_tokens(request: ChatRequest) -> int:
    """The estimated tokens of a request's prompt: messages, images, tools, schema of the answer."""
    total = sum(
        _tokens(tool.description) + _schema_tokens(tool.parameters) for tool in request.tools
    )
    if isinstance(request.response_format, SchemaFormat):
        total += _schema_tokens(request.response_format.schema_)
    if request.prompt is not None:
        given = request.prompt
        total += _tokens(given) if isinstance(given, str) else len(given)
        total += _tokens(request.suffix or "")
    for message in request.messages:
        total += _message_tokens(message)
    return total


def _message_tokens(message: Message) -> int:
    total = sum(_tokens(call.arguments) for call in message.tool_calls)
    if message.thinking is not None:
        total += _tokens(message.thinking)
    if isinstance(message.content, str):
        return total + _tokens(message.content)
    for part in message.content:
        total += _tokens(part.text) if isinstance(part, TextPart) else IMAGE_TOKENS
    return total


def prompt_estimate(request: Request) -> int:
    """The estimated tokens that a request sends to its backend; 0 if it sends no text."""
    match request:
        case ChatRequest():
            return prompt_tokens(request)
        case EmbedRequest() | RerankRequest():
            return cost_of(request).tokens
        case _:
            return 0


def _schema_tokens(schema: dict[str, Any]) -> int:
    """Of a schema, without its JSON, which would be a copy of what may be large."""
    size_bytes = 0
    groups: list[Any] = [schema]
    for group in groups:
        if type(group) is dict:
            size_bytes += sum(map(len, group))
        values = group.values() if type(group) is dict else group
        size_bytes += len(values) * _PUNCTUATION
        for value in values:
            if type(value) is str:
                size_bytes += len(value) if value.isascii() else len(value.encode())
            elif type(value) is dict or type(value) is list:
                groups.append(value)
    return size_bytes // BYTES_A_TOKEN + 1


def _tokens(text: str) -> int:
    size_bytes = len(text) if text.isascii() else len(text.encode())  # a copy of what may be large
    return size_bytes // BYTES_A_TOKEN + 1
