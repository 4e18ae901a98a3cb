"""Server-Sent Events as OpenAI's clients want them: data lines, no ids, `[DONE]` at the end. Pure.

Invariant: text never holds a character at which some readers cut lines (contract/json_lines.py).
"""

from typing import Any, Final

from contract.json_lines import json_line

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment: it may stand between events, and no reader takes it for one."""
DONE: Final = b"data: [DONE]\n\n"


def data(value: Any) -> bytes:
    """A value as an event without a name."""
    return b"data: %s\n\n" % json_line(value)


def named(name: str, value: Any) -> bytes:
    """A value as an event with a name."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json_line(value))
