"""Server-Sent Events as OpenAI's clients want them: data lines, no ids, `[DONE]` at the end. Pure.

Invariant: text never holds a character at which some readers cut lines. Python's `splitlines`,
which httpx uses, cuts at U+0085, U+2028 and U+2029, too.
"""

from typing import Any, Final

from pydantic_core import to_json

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment: it may stand between events, and no reader takes it for one."""
DONE: Final = b"data: [DONE]\n\n"


def json(value: Any) -> bytes:
    """A value as JSON that is one line to every reader."""
    text = to_json(value)
    if b"\xc2\x85" in text:
        text = text.replace(b"\xc2\x85", b"\\u0085")
    if b"\xe2\x80" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text


def data(value: Any) -> bytes:
    """A value as an event without a name."""
    return b"data: %s\n\n" % json(value)


def named(name: str, value: Any) -> bytes:
    """A value as an event with a name."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json(value))
