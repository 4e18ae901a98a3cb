"""JSON that is one line to every reader, and JSON to every reader: the only place where it is made.

U+0085, U+2028 and U+2029 may stand raw in JSON, and readers that look for lines cut at them
(Python's `splitlines`, and so httpx's `iter_lines`): they are escaped wherever lines are the frame,
which is SSE, NDJSON and files of lines. What is no number (NaN, infinities) has no word in JSON and
is null.
"""

from typing import Any, Final

from pydantic_core import to_json  # noqa: TID251 - the place

_CUTS: Final = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


def one_line(raw: bytes) -> bytes:
    """JSON with every character escaped that ends a line for somebody.

    The rest of what `splitlines` cuts at is never raw in JSON.
    """
    for cut, escaped in _CUTS:
        if cut in raw:
            raw = raw.replace(cut, escaped)
    return raw


def json_line(value: Any) -> bytes:
    """A value as compact JSON in one line, without a line end."""
    return one_line(to_json(value, inf_nan_mode="null"))
