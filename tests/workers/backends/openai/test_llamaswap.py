"""The chunks and lists of llama-swap, with texts from its source."""

from typing import Any

import httpx
import pytest
from pydantic_core import from_json, to_json
from support.backends import against_bytes, against_imitation, chat_request, folded

from contract.errors import (
    BackendBusy,
    BackendRejected,
    ModelLoading,
    ModelMissing,
    ServerFault,
)
from contract.events import Done, Phase
from contract.images import ImageRequest
from contract.models import LoadRequest, UnloadRequest
from workers.backends.openai.llamaswap import is_loading, model_report

TELLING = "scripted-think:style=swap,load=0.1,think=2,chunks=2"


def envelope(message: Any, code: str) -> bytes:
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return to_json({"src": "llama-swap", "error": error})


async def test_loading_is_not_taken_for_a_thought() -> None:
    async with against_imitation("llamaswap", TELLING) as (backend, _):
        events = [event async for event in backend.chat(chat_request(TELLING))]
        result = await folded(backend.chat(chat_request(TELLING)))

    assert [event for event in events if isinstance(event, Phase)] == [Phase(phase="loading")]
    assert result.thinking == " The user"
    assert "".join(getattr(event, "thinking", "") or "" for event in events) == " The user"


async def test_loading_is_reported_although_the_list_lacks_it() -> None:
    unlisted = "scripted-story:style=swap,load=0.1"
    async with against_imitation("llamaswap") as (backend, _):
        events = [event async for event in backend.chat(chat_request(unlisted))]

    assert [event for event in events if isinstance(event, Phase)] == [Phase(phase="loading")]


async def test_a_start_that_fails_after_loading_chunks_is_an_error() -> None:
    broken = "scripted-story:style=swap,fail=crash"
    async with against_imitation("llamaswap", broken) as (backend, _):
        with pytest.raises(ServerFault, match="did not start"):
            await folded(backend.chat(chat_request(broken)))


@pytest.mark.parametrize(
    "chunk",
    [
        {"id": "x", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        {"object": "y", "choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": "hm"}}]},
        {"choices": []},
        {"choices": [{"delta": None}]},
        {},
    ],
)
def test_reasoning_of_a_model_is_not_a_loading_chunk(chunk: dict[str, Any]) -> None:
    assert not is_loading(chunk)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, envelope("model not found", "not_found"), ModelMissing),
        (409, envelope("model x is not loaded; path matches", "conflict"), BackendRejected),
        (429, envelope("concurrency limit", "rate_limit_exceeded"), BackendBusy),
        (503, envelope("process is not ready", "service_unavailable"), ModelLoading),
        (500, envelope("unspecific error: exited", "internal_error"), ServerFault),
        (502, envelope("upstream is gone", "bad_gateway"), ServerFault),
        (500, b'{"error":"unable to start process"}', ServerFault),
        (500, b"llama-swap: unable to start process", ServerFault),
    ],
)
async def test_its_errors_have_their_class(
    status: int, body: bytes, error: type[Exception]
) -> None:
    sent = {"status": status, "content_type": "application/json", "retry_after": "1"}
    async with against_bytes("llamaswap", body, **sent) as backend:
        with pytest.raises(error) as caught:
            await folded(backend.chat(chat_request("m")))

    assert getattr(caught.value, "retry_after_s", None) == 1.0


async def test_it_makes_images_as_the_server_behind_it_does() -> None:
    bodies: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            cold = {"id": "flux", "status": {"value": "unloaded"}}
            return httpx.Response(200, json={"data": [cold]})
        assert request.url.path == "/v1/images/generations"
        bodies.append(from_json(request.content))
        return httpx.Response(200, json={"created": 1, "data": [{"b64_json": "iVBORw0KGgo="}]})

    async with against_bytes("llamaswap", handler=handler) as backend:
        request = ImageRequest(model="flux", prompt="a cat", width=256, height=256)
        phase, image, done = [event async for event in backend.image(request)]

    [body] = bodies
    assert (body["size"], body["response_format"]) == ("256x256", "b64_json")
    assert (phase, image.data) == (Phase(phase="loading"), "iVBORw0KGgo=")
    assert isinstance(done, Done)


async def test_a_model_whose_server_has_no_list_counts_as_loaded() -> None:
    name = "scripted-embed:fail=missing"
    async with against_imitation("llamaswap", name) as (backend, _):
        events = [event async for event in backend.load(LoadRequest(model=name))]

    assert isinstance(events[-1], Done)


async def test_a_model_that_does_not_start_is_a_server_fault() -> None:
    name = "scripted-story:fail=crash"
    async with against_imitation("llamaswap", name) as (backend, _):
        with pytest.raises(ServerFault, match="exited"):
            await folded(backend.load(LoadRequest(model=name)))


async def test_a_name_with_slashes_is_unloaded_by_that_name() -> None:
    requests: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(200, text="OK")

    async with against_bytes("llamaswap", handler=handler) as backend:
        await folded(backend.unload(UnloadRequest(model="org/model v2:Q4")))
        await folded(backend.unload(UnloadRequest(model="*")))

    assert requests == ["POST /api/models/unload/org/model%20v2%3AQ4", "GET /unload"]


def test_the_list_has_the_facts_of_the_configuration() -> None:
    report = model_report(
        {
            "id": "vl",
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "capabilities": {"vision": True, "function_calling": True},
            "context_length": 32768,
            "status": {"value": "loaded"},
        }
    )

    assert report.traits == ("chat", "vision", "tools")
    assert (report.lacks, report.warm, report.context_length) == (("image",), True, 32768)


def test_an_image_model_does_not_chat() -> None:
    shape = {"input_modalities": ["text"], "output_modalities": ["image"]}
    report = model_report(
        {"id": "sd", "architecture": shape, "capabilities": {"image_generation": True}}
    )

    assert report.traits == ("image",)
    assert report.lacks == ("chat", "vision")


def test_what_is_not_configured_is_unknown() -> None:
    report = model_report({"id": "m"})

    assert (report.traits, report.lacks, report.warm, report.context_length) == ((), (), None, None)
