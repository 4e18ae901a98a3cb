"""Ids of tool calls, unique beyond one response. Pure."""

import re
from typing import Final

_COUNTED: Final = re.compile(r"^(call_?)?[0-9]{1,3}$")
"""A call id that is a counter: other responses have the same one."""


def unique_call_id(id: str | None, job_id: str, index: int) -> str:
    """An id for a tool call that no other response has: clients look up results by it.

    Some servers count from 0 in every response.
    """
    if id and not _COUNTED.match(id):
        return id
    return f"call_{job_id[:24]}{index}"
