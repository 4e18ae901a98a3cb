"""Every name in a request has a bound; only texts of people and models are as long as the body.

Subjects: contract/requests.py, contract/chat.py.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from support.shim import stage

from contract.chat import LONGEST_CALL_ID, Message, ToolCall

TEXTS: Final = frozenset(
    {
        "arguments", "content", "context", "data", "description", "documents", "image", "image_url",
        "images", "input", "instructions", "license", "mask", "negative_prompt", "output", "prompt",
        "query", "reasoning", "reasoning_content", "refusal", "signature", "source", "suffix",
        "system", "template", "text", "text_1", "text_2", "texts", "thinking", "title", "url",
    }
)  # fmt: skip
"""What has no bound but that of the body."""
TIMES: Final = frozenset({"not_before", "until"})
"""Read as times, and kept as numbers."""
CALLS: Final = frozenset({"body.messages.tool_calls.id", "body.messages.tool_calls.name"})
"""Of the native surface: bounded in a message, because a backend's own have no bound."""
REFUSED: Final = frozenset({"body.files", "body.adapters"})
"""Of Ollama's create."""
BOUNDS: Final = frozenset({"maxLength", "pattern", "enum", "const", "format"})
LONG: Final = "n" * 300_000


def unbounded(schema: dict[str, Any], path: str, schemas: Any, inside: Any = ()) -> Iterator[str]:
    """Paths of all texts without a bound."""
    if (name := schema.get("$ref", "").rpartition("/")[2]) and name not in inside:
        yield from unbounded(schemas[name], path, schemas, (*inside, name))
    items = [schema["items"]] if isinstance(schema.get("items"), dict) else []
    for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *items):
        yield from unbounded(each, path, schemas, inside)
    if schema.get("type") == "string" and BOUNDS.isdisjoint(schema):
        yield path
    for name, each in schema.get("properties", {}).items():
        yield from unbounded(each, f"{path}.{name}", schemas, inside)
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from unbounded(values, path, schemas, inside)


def test_what_has_no_bound_is_a_text(session_shim: str) -> None:
    document = httpx.get(f"{session_shim}/openapi.json").json()
    found = {
        (path, field)
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for field in unbounded(content["schema"], "body", document["components"]["schemas"])
    }

    assert len(found) > 50
    assert not {
        (path, field)
        for path, field in found
        if field.rpartition(".")[2] not in TEXTS | TIMES and field not in CALLS | REFUSED
    }


def user(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a", **fields}]}


def call(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "tool_calls": [fields]}]}


OPENAI_CALL: Final = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("path", "body", "field", "most"),
    [
        ("/api/v1/jobs/chat", {**user(), "model": LONG}, "model", 256),
        ("/api/v1/jobs/chat", call(id=LONG, name="f"), "messages.0.tool_calls.0", LONGEST_CALL_ID),
        ("/api/v1/jobs/chat", call(name=LONG), "messages.0.tool_calls.0", 1024),
        ("/api/v1/jobs/chat", user(tool_name=LONG), "messages.0.tool_name", 1024),
        ("/api/v1/jobs/chat", {**user(), "stop": [LONG]}, "stop.0", 4096),
        ("/api/v1/jobs/chat", {**user(), "tool_choice": {"name": LONG}}, "tool_choice", 1024),
        ("/v1/chat/completions", {**user(), "model": LONG}, "model", 256),
        ("/v1/chat/completions", call(id=LONG, **OPENAI_CALL), "tool_calls.0.id", LONGEST_CALL_ID),
        ("/v1/chat/completions", {**user(), "prompt_cache_key": LONG}, "prompt_cache_key", 2**18),
        ("/v1/chat/completions", {**user(), "stop": LONG}, "stop", 4096),
        ("/v1/chat/completions", {**user(), "service_tier": LONG}, "service_tier", 256),
        ("/v1/chat/completions", {**user(), "logit_bias": {LONG[:2000]: 1}}, "logit_bias", 256),
        ("/v1/embeddings", {"input": "a", "model": LONG}, "model", 256),
        ("/v1/responses", {"input": "a", "safety_identifier": LONG}, "safety_identifier", 4096),
        ("/v1/responses", {"input": [{"type": LONG}]}, "type", 256),
        ("/v1/responses", {"input": "a", "previous_response_id": LONG}, "previous_resp", 256),
        ("/v1/batches", {"input_file_id": LONG, "endpoint": "/v1/embeddings"}, "input_file", 256),
        ("/v1/messages", {**user(), "max_tokens": 1, "model": LONG}, "model", 256),
        ("/v1/messages", {**user(), "max_tokens": 1, "stop_sequences": [LONG]}, "stop_seq", 4096),
        (
            "/v1/messages",
            {"max_tokens": 1, **user(content=[{"type": "tool_result", "tool_use_id": LONG}])},
            "tool_use_id",
            LONGEST_CALL_ID,
        ),
        ("/api/chat", {**user(), "model": LONG}, "model", 256),
        ("/api/chat", {**user(), "keep_alive": LONG}, "keep_alive", 256),
        ("/api/chat", {**user(), "options": {"stop": [LONG]}}, "options.stop", 4096),
        ("/api/chat", call(function={"name": LONG}), "messages.0.tool_calls.0.function.name", 1024),
        ("/api/copy", {"source": LONG, "destination": "a"}, "source", 256),
        ("/v2/rerank", {"query": "a", "documents": ["a"], "model": LONG}, "model", 256),
        ("/v2/embed", {"texts": ["a"], "input_type": LONG}, "input_type", 256),
        ("/v1/score", {"text_1": "a", "text_2": "a", "backend": LONG}, "backend", 256),
        ("/api/v1/dead/redrive", {"queue": LONG}, "queue", 256),
    ],
)
def test_a_long_name_is_refused_with_field_limit_and_remedy(
    session_shim: str, path: str, body: dict[str, Any], field: str, most: int
) -> None:
    named = {} if path in {"/v1/batches", "/api/copy", "/api/v1/dead/redrive"} else {"model": "m"}
    answer = httpx.post(f"{session_shim}{path}", json={**named, **body})

    assert answer.status_code == (422 if path.startswith("/api/v1") else 400), answer.text[:500]
    told = json.dumps(answer.json(), ensure_ascii=False)
    assert (field in told, str(most) in told, "shorten it" in told) == (True, True, True), told
    assert len(told) < 2000


async def test_ids_of_calls_may_be_as_long_as_signatures(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = call(id="i" * LONGEST_CALL_ID, name="n" * 1024)
        answer = await at.http.post("/api/v1/jobs/chat", json={"model": "m", **body})

        assert answer.status_code == 202, answer.text


def test_a_call_of_a_backend_has_no_bound() -> None:
    call = ToolCall(id=LONG, name=LONG)

    assert call.name == LONG
    with pytest.raises(ValueError, match="at most 65536"):
        Message(role="assistant", tool_calls=(call,))
