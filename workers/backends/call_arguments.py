"""Arguments of the calls in a request as values, for backends that take no text.

A job has them as JSON text, bounded as a body is (`relay/admission/call_bounds.py`). What JSON
cannot say (NaN, a number that only infinity is as large as) is refused: encoded again, a backend
would get `NaN` or `null`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from pydantic_core import from_json

from contract.chat import ChatRequest, Message
from contract.wire import is_finite

Body = TypeVar("Body")
_LARGE_CHARS: Final = 128 * 1024
_MOST_CONTAINERS: Final = 100_000
_MOST_VALUES: Final = 1_000_000
_MOST_QUOTES: Final = 500_000


def parsed(text: str) -> Any:
    """The value of arguments; raises ValueError if they are no JSON, or a number out of range."""
    value = from_json(text or "{}", allow_inf_nan=False)
    if not is_finite(value):
        raise ValueError("a number is out of range")
    return value


async def translated(translate: Callable[[ChatRequest], Body], request: ChatRequest) -> Body:
    """What `translate` makes of a request; in a thread if it has to parse large texts."""
    if sum(map(_parsed_chars, request.messages)) <= _LARGE_CHARS:
        return translate(request)
    return await asyncio.to_thread(translate, request)


def _parsed_chars(message: Message) -> int:
    calls = sum(len(call.arguments) for call in message.tool_calls)
    return calls + (len(message.text) if message.role == "tool" else 0)


def hold_much(texts: Sequence[str]) -> bool:
    """Whether texts would hold more than a body may if they were parsed; they need not be JSON."""
    if sum(map(len, texts)) <= _LARGE_CHARS:
        return False
    containers = sum(text.count("{") + text.count("[") for text in texts)
    values = containers + sum(text.count(",") for text in texts)
    quotes = sum(text.count('"') for text in texts)
    return containers > _MOST_CONTAINERS or values > _MOST_VALUES or quotes > _MOST_QUOTES
