"""vLLM with and without sleep mode, and requests that are never sent."""

import httpx
import pytest
from pydantic_core import to_json
from support.backends import against_bytes, against_imitation, chat_request, folded

from contract.chat import SchemaFormat
from contract.models import LoadRequest, UnloadRequest
from workers.backend_registry import build
from workers.backends.dsn import parse
from workers.backends.openai.dialects import VLLM
from workers.backends.openai.requests import to_chat
from workers.backends.protocols import SwapModels


@pytest.mark.parametrize(
    ("dsn", "sleeps"), [("vllm://h", False), ("vllm://h?dev=0", False), ("vllm://h?dev=1", True)]
)
async def test_only_one_in_development_mode_can_swap(dsn: str, *, sleeps: bool) -> None:
    backend = build(parse("LLM_V", dsn))

    assert isinstance(backend, SwapModels) == sleeps
    await backend.aclose()


async def test_it_sleeps_at_level_one_and_is_woken_once() -> None:
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        if request.url.path == "/is_sleeping":
            return httpx.Response(200, json={"is_sleeping": "/sleep?level=1" in paths})
        return httpx.Response(
            200, json={"data": [{"id": "m"}]} if request.method == "GET" else None
        )

    async with against_bytes("vllm-dev", handler=handler) as backend:
        await folded(backend.load(LoadRequest(model="m")))
        await folded(backend.unload(UnloadRequest(model="m")))
        await folded(backend.load(LoadRequest(model="m")))

    orders = [path for path in paths if path.startswith(("/sleep", "/wake_up"))]
    assert orders == ["/sleep?level=1", "/wake_up"]


async def test_a_sleeping_server_is_cold() -> None:
    async with against_imitation("vllm-dev") as (backend, _):
        await folded(backend.unload(UnloadRequest(model="*")))
        models = await backend.models()

    assert {False} == {model.warm for model in models}
    assert {8192} == {model.context_length for model in models}


def test_a_schema_is_sent_as_a_response_format_because_guided_json_is_ignored() -> None:
    """vLLM 0.33 answers 200 with unconstrained text to `guided_json` and its like."""
    body = to_chat(chat_request("m", response_format=SchemaFormat(schema={"type": "object"})), VLLM)

    assert body.fields["response_format"]["type"] == "json_schema"
    assert not [name for name in body.fields if name.startswith("guided")]


@pytest.mark.parametrize(("think", "wanted"), [("off", None), ("high", "high")])
def test_thinking_is_sent_to_the_template_and_as_an_effort(think: str, wanted: str | None) -> None:
    fields = to_chat(chat_request("m", think=think), VLLM).fields

    assert fields["chat_template_kwargs"] == {"enable_thinking": think != "off"}
    assert fields.get("reasoning_effort") == wanted


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("stop_reason", "END", "END"),
        ("matched_stop", "END", "END"),  # SGLang
        ("matched_stop", 128009, None),  # the id of the model's own last token
        ("stop_reason", None, None),
    ],
)
async def test_the_stop_sequence_that_ended_a_text_is_known(
    field: str, value: object, known: str | None
) -> None:
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", field: value}
    packet = b"data: %s\n\ndata: [DONE]\n\n" % to_json({"choices": [choice]})
    async with against_bytes("vllm", packet) as backend:
        result = await folded(backend.chat(chat_request("m", stop=("END",))))

    assert (result.content, result.stop_sequence) == ("a", known)
