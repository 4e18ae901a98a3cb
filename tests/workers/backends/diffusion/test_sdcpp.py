"""The adapter of sd-server against what the real one answered."""

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from support.backends import WIRE, FunctionTransport
from support.images import collected, drawing, pictures, size_of

from contract.errors import (
    BackendBusy,
    BackendRejected,
    BadAnswer,
    BadEndpoint,
    ServerFault,
)
from contract.events import Done, Phase, Progress
from workers.backends.diffusion.sdcpp import MODEL, Sdcpp

CAPABILITIES = (WIRE / "sd-capabilities.json").read_bytes()
QUEUE_FULL = b'{"error":"job queue is full"}'
"""Not recorded but read: async_jobs.h, 64 jobs."""


def recorded(name: str, status: int = 200) -> httpx.Response:
    body = (WIRE / f"sd-{name}.json").read_bytes()
    return httpx.Response(status, content=body, headers={"content-type": "application/json"})


@asynccontextmanager
async def playing(
    *views: httpx.Response, accepted: httpx.Response | None = None
) -> AsyncIterator[tuple[Sdcpp, list[str]]]:
    """An sd-server that answers each question about its job with the next view."""
    requests: list[str] = []
    rest: Iterator[httpx.Response] = iter(views)

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(f"{request.method} {request.url.path}")
        match request.url.path.removeprefix("/sdcpp/v1/").partition("/")[0]:
            case "capabilities":
                return httpx.Response(200, content=CAPABILITIES)
            case "img_gen":
                return accepted or recorded("accepted", 202)
            case "jobs" if request.method == "POST":
                return recorded("cancelled")
            case "jobs":
                return next(rest)
            case _:
                return recorded("models")

    backend = Sdcpp("sd", "http://sd.test", transport=FunctionTransport(answer))
    try:
        yield backend, requests
    finally:
        await backend.aclose()


async def test_the_events_of_a_job_are_its_place_its_phase_and_its_image() -> None:
    async with playing(recorded("queued"), recorded("generating"), recorded("completed")) as (
        backend,
        requests,
    ):
        events = await collected(backend.image(drawing("sd", count=1)))

    assert isinstance(events[0], Progress)
    assert [type(event) for event in events[1:2]] == [Phase]
    assert size_of(pictures(events)[0]) == (64, 64)
    assert events[-1] == Done()
    assert not [each for each in requests if each.endswith("/cancel")]


async def test_it_has_one_model_that_makes_images() -> None:
    async with playing() as (backend, _):
        await backend.check()
        [report] = await backend.models()

    assert (report.name, report.traits, report.warm) == (MODEL, ("image",), True)


async def test_the_format_it_was_not_built_with_is_known_from_its_capabilities() -> None:
    async with playing(recorded("completed")) as (backend, _):
        events = await collected(backend.image(drawing("sd", mime_type="image/webp")))

    assert events[-1].ignored == ("mime_type",)


async def test_a_job_that_another_client_cancelled_is_a_fault() -> None:
    async with playing(recorded("generating"), recorded("cancelled")) as (backend, _):
        with pytest.raises(ServerFault, match="job cancelled by client"):
            await collected(backend.image(drawing("sd")))


async def test_a_job_that_the_server_lost_is_a_fault() -> None:
    for gone in (recorded("unknown-404", 404), httpx.Response(410, json={"error": "job expired"})):
        async with playing(recorded("generating"), gone) as (backend, _):
            with pytest.raises(ServerFault, match="any more"):
                await collected(backend.image(drawing("sd")))


async def test_closing_cancels_a_queued_job_and_ignores_the_error_of_the_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with playing(recorded("queued")) as (backend, requests):
        making = backend.image(drawing("sd"))
        await anext(making)
        await making.aclose()

    assert requests[-1].startswith("POST /sdcpp/v1/jobs/job_")
    assert requests[-1].endswith("/cancel")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (recorded("bad-400", 400), BackendRejected),
        (httpx.Response(429, content=QUEUE_FULL), BackendBusy),
        (httpx.Response(202, json={"status": "queued"}), BadEndpoint),
        (httpx.Response(202, content=b'{"id":"job_'), BadEndpoint),
        (httpx.Response(404, json={"error": "x"}), BadEndpoint),
        (httpx.Response(200, html="<html><title>Sign in</title>"), BadEndpoint),
    ],
)
async def test_a_refusal_has_its_class(
    answer: httpx.Response, error: type[BadEndpoint | BackendBusy | BackendRejected]
) -> None:
    async with playing(accepted=answer) as (backend, requests):
        with pytest.raises(error):
            await collected(backend.image(drawing("sd")))

    assert not [each for each in requests if "/jobs/" in each]


@pytest.mark.parametrize(
    "view",
    [
        {"status": "dreaming"},
        {"status": "completed", "result": None},
        {"status": "completed", "result": {"images": [{"index": 0, "b64_json": ""}, "x", None]}},
        {"status": "completed", "result": []},
        {"status": "failed", "error": None},
        {},
    ],
)
async def test_nonsense_is_a_failure_of_the_backend(view: dict[str, object]) -> None:
    async with playing(httpx.Response(200, json=view)) as (backend, _):
        with pytest.raises((BadAnswer, BadEndpoint, ServerFault)):
            await collected(backend.image(drawing("sd")))


def test_the_recorded_picture_is_a_picture() -> None:
    data = recorded("completed").json()["result"]["images"][0]["b64_json"]

    assert size_of(base64.b64decode(data)) == (64, 64)
