"""What the arguments of a request's tool calls may hold: JSON texts, which some backends parse.

Each text was one string to whoever counted the body. It is counted here, on the one way to a
queue, so that the bounds hold on every surface, for rows of batches and for other producers.
"""

import asyncio

from contract.chat import ChatRequest, CountRequest
from contract.errors import PayloadTooLarge
from contract.jobs import AnyRequest
from contract.json_texts.json_scan import LARGE_BYTES, TooMuch, demand_bounds_together


async def check_arguments(request: AnyRequest) -> None:
    """Check what the arguments of all calls hold together; raises PayloadTooLarge.

    Large ones are counted in a thread.
    """
    if not isinstance(request, ChatRequest | CountRequest):
        return
    texts = [call.arguments for message in request.messages for call in message.tool_calls]
    if sum(map(len, texts)) > LARGE_BYTES:
        await asyncio.to_thread(_demand, texts)


def _demand(texts: list[str]) -> None:
    try:
        demand_bounds_together(texts)
    except TooMuch as error:
        raise PayloadTooLarge(
            f"The JSON in the arguments of tool calls is too large, {error} together: send fewer "
            "calls, or smaller arguments."
        ) from None
