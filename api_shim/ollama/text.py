"""JSON in lines that nobody cuts, and times as Ollama writes them. Pure.

Python's `splitlines`, with which httpx and so the `ollama` client find lines, cuts at U+0085,
U+2028 and U+2029, too; they are escaped. (The rest of what it cuts at is never raw in JSON.)
"""

import time
from functools import lru_cache
from typing import Final

_CUTS: Final = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)
_AT: Final = b'"at":'


def safe(text: bytes) -> bytes:
    """JSON in which no character ends a line for anybody."""
    for raw, escaped in _CUTS:
        if raw in text:
            text = text.replace(raw, escaped)
    return text


def stamp(at: float) -> bytes:
    """Unix seconds in RFC 3339, with milliseconds."""
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    return b"%s.%03dZ" % (_second(seconds), milliseconds)


def created(body: bytes) -> bytes:
    """When an event was said, from its JSON as it is: `{"id":...,"at":1767225600.250,...`."""
    at = body.find(_AT) + len(_AT)
    seconds, _, fraction = body[at : body.find(b",", at)].partition(b".")
    return b"%s.%sZ" % (_second(int(seconds)), fraction or b"000")


@lru_cache(maxsize=64)
def _second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
