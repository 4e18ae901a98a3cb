"""A number that no float can hold is refused in arguments and schemas, not sent as null.

Subjects: api_shim/bodies/joined_texts.py, relay/admission/new_job.py.
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
USER = '{"role":"user","content":"a"}'
LONG = f'{{"role":"user","content":"{"x" * 2**21}"}}'
FUNCTION = '{"type":"function","function":{"name":"f","parameters":SENT}}'
FLAT = '{"type":"function","name":"f","parameters":SENT}'
PLAIN = '{"name":"f","parameters":SENT}'
CUSTOM = '{"name":"f","input_schema":SENT}'
FORMAT = '{"type":"json_schema","json_schema":{"name":"f","schema":SENT}}'


def asked(fields: str) -> str:
    return f'{{"model":"m",{fields}}}'


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", CALLING, "arguments"),
        ("/v1/responses", ITEM, "arguments"),
        ("/api/chat", CALLING, "arguments"),
        ("/v1/messages", USING, "input"),
        ("/v1/chat/completions", asked(f'"messages":[{USER}],"tools":[{FUNCTION}]'), "tools"),
        (
            "/v1/chat/completions",
            asked(f'"messages":[{USER}],"response_format":{FORMAT}'),
            "format",
        ),
        ("/v1/responses", asked(f'"input":"a","tools":[{FLAT}]'), "tools"),
        ("/v1/messages", asked(f'"max_tokens":1,"messages":[{USER}],"tools":[{CUSTOM}]'), "tools"),
        ("/v1/messages/count_tokens", asked(f'"messages":[{USER}],"tools":[{CUSTOM}]'), "tools"),
        ("/api/chat", asked(f'"messages":[{USER}],"tools":[{FUNCTION}]'), "tools"),
        ("/api/chat", asked(f'"messages":[{USER}],"format":SENT'), "format"),
        ("/api/generate", asked('"prompt":"a","format":SENT'), "format"),
        ("/api/v1/jobs/chat", asked(f'"messages":[{USER}],"tools":[{PLAIN}]'), "tools"),
        (
            "/api/v1/jobs/chat",
            asked(f'"messages":[{USER},{LONG}],"tools":[{PLAIN}]'),
            "tools",
        ),
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

            status = 422 if path.startswith("/api/v1") else 400
            assert answer.status_code == status, answer.text
            assert f"{field}: a number is out of range" in answer.text
