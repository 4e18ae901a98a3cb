"""What the arguments of calls may hold on every surface that takes them as text.

Subjects: relay/admission/call_bounds.py.
"""

from typing import Any, Final

import pytest
from support.shim import stage

MANY: Final = '{"a":[' + "[]," * 100_000 + "[]]}"
FUNCTION: Final = {"name": "f", "arguments": MANY}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "assistant", "tool_calls": [
                {"id": "c", "type": "function", "function": FUNCTION}]}]},
        ),
        ("/v1/responses", {"input": [{"type": "function_call", "call_id": "c", **FUNCTION}]}),
        (
            "/api/chat",
            {"messages": [{"role": "assistant", "tool_calls": [{"function": FUNCTION}]}]},
        ),
        ("/api/v1/jobs/chat", {"messages": [{"role": "assistant", "tool_calls": [FUNCTION]}]}),
    ],
)  # fmt: skip
async def test_every_surface_refuses_them(
    path: str, body: dict[str, Any], shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.post(path, json={"model": "m", **body})

        assert answer.status_code == 413, answer.text[:500]
        assert "more than 100000 objects and arrays" in answer.text
