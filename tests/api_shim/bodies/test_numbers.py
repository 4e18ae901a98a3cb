"""A number that no float can hold is refused in the arguments of a call, not sent as null.

Subjects: api_shim/bodies/joined_texts.py.
"""

import pytest
from support.shim import stage

CALL = '{"id":"c","type":"function","function":{"name":"f","arguments":SENT}}'
CALLING = f'{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{CALL}]}}]}}'
ITEM = '{"model":"m","input":[{"type":"function_call","call_id":"c","name":"f","arguments":SENT}]}'
BLOCK = '{"type":"tool_use","id":"c","name":"f","input":SENT}'
USING = (
    '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"},'
    f'{{"role":"assistant","content":[{BLOCK}]}}]}}'
)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", CALLING, "arguments"),
        ("/v1/responses", ITEM, "arguments"),
        ("/api/chat", CALLING, "arguments"),
        ("/v1/messages", USING, "input"),
    ],
)
async def test_it_is_named_with_its_field(
    path: str, body: str, field: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        for number in ("1e999", "-1E+400", "9" * 310 + ".0"):
            given = body.replace("SENT", f'{{"a":[{{"b":{number}}}]}}')
            headers = {"Content-Type": "application/json"}
            answer = await at.http.post(path, content=given, headers=headers)

            assert answer.status_code == 400, answer.text
            assert f"{field}: a number is out of range" in answer.text
