"""Arguments of the calls in a request as values, for backends that take no text.

A job has them as JSON text, bounded as a body is (`relay/admission/call_bounds.py`). What JSON
cannot say is refused: encoded again, a backend would get `NaN` or `null`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from contract.chat import ChatRequest, Message
from contract.json_texts.json_scan import LARGE_BYTES, TooMuch, demand_bounds_together

Body = TypeVar("Body")


async def translated(translate: Callable[[ChatRequest], Body], request: ChatRequest) -> Body:
    """What `translate` makes of a request; in a thread if it has to parse large texts."""
    if sum(map(_parsed_chars, request.messages)) <= LARGE_BYTES:
        return translate(request)
    return await asyncio.to_thread(translate, request)


def _parsed_chars(message: Message) -> int:
    calls = sum(len(call.arguments) for call in message.tool_calls)
    return calls + (len(message.text) if message.role == "tool" else 0)


def hold_much(texts: Sequence[str]) -> bool:
    """Whether texts would hold more than a body may if they were parsed; they need not be JSON."""
    if sum(map(len, texts)) <= LARGE_BYTES:
        return False
    try:
        demand_bounds_together(texts)
    except TooMuch:
        return True
    return False
