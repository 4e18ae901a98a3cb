"""Times as Ollama writes them. Pure."""

import time
from functools import lru_cache
from typing import Final

_AT: Final = b'"at":'


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
