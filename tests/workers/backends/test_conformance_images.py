"""Every adapter that makes images behaves alike, over a real socket.

Subjects: workers/backends/protocols.py.
"""

import asyncio
import base64
from typing import Any

import pytest
from support.backends import against_server as chatting
from support.backends import chat_request, folded
from support.images import (
    ALL,
    MODELS,
    NETWORKED,
    against_server,
    collected,
    drawing,
    pictures,
    size_of,
)

from contract.chat import ChatRequest, ImagePart, Message, TextPart
from contract.errors import (
    BackendBusy,
    BackendError,
    BackendUnreachable,
    BadEndpoint,
    ServerFault,
    TruncatedStream,
)
from contract.events import Done
from workers.backends.protocols import Backend, GenerateImages, capabilities
from workers.scripted.http import Reply

every = pytest.mark.parametrize("type", ALL)
networked = pytest.mark.parametrize("type", NETWORKED)


@every
async def test_a_backend_is_what_the_protocols_say(type: str) -> None:
    async with against_server(type) as (backend, _):
        assert isinstance(backend, Backend)
        assert isinstance(backend, GenerateImages)
        await backend.check()
        reports = {report.name: report for report in await backend.models()}

    assert "image" in capabilities(backend)
    assert reports[MODELS[type]].traits == ("image",)


@every
async def test_a_prompt_becomes_an_image_and_one_done_event(type: str) -> None:
    async with against_server(type) as (backend, _):
        events = await collected(backend.image(drawing(type)))

    assert [size_of(picture) for picture in pictures(events)] == [(48, 32)]
    assert isinstance(events[-1], Done)
    assert sum(isinstance(event, Done) for event in events) == 1


@every
async def test_the_requested_number_of_images_is_yielded_in_order(type: str) -> None:
    async with against_server(type) as (backend, _):
        events = await collected(backend.image(drawing(type, count=3)))

    assert [event.index for event in events if event.type == "image"] == [0, 1, 2]
    assert len(set(pictures(events))) == 3
    assert events[-1].ignored == ()


@every
async def test_the_seed_and_the_negative_prompt_arrive(type: str) -> None:
    variants: tuple[dict[str, Any], ...] = (
        {"seed": 1}, {"seed": 2}, {"seed": 1, "negative_prompt": "dogs"}, {"seed": 1}
    )  # fmt: skip
    async with against_server(type) as (backend, _):
        one, two, three, again = [
            pictures(await collected(backend.image(drawing(type, **fields)))) for fields in variants
        ]

    assert one == again
    assert len({one[0], two[0], three[0]}) == 3


@every
async def test_a_picture_is_made_from_another_one(type: str) -> None:
    async with against_server(type) as (backend, _):
        first = pictures(await collected(backend.image(drawing(type, seed=1))))[0]
        data_url = "data:image/png;base64," + base64.b64encode(first).decode()
        made = await collected(backend.image(drawing(type, seed=1, image=data_url, strength=0.5)))
        other = await collected(backend.image(drawing(type, seed=1, image=data_url, strength=0.9)))

    assert size_of(pictures(made)[0]) == (48, 32)
    assert len({first, *pictures(made), *pictures(other)}) == 3
    assert made[-1].ignored == ()


@every
async def test_progress_is_reported(type: str) -> None:
    async with against_server(type) as (backend, _):
        events = await collected(backend.image(drawing(type, "chunks=5,rate=20")))
    phases = [event.progress for event in events if event.type == "phase"]

    assert {event.phase for event in events if event.type == "phase"} == {"generating"}
    if type != "sd":  # it does not tell
        told_so = [progress for progress in phases if progress is not None]
        assert len(told_so) > 2
        assert told_so == sorted(told_so)


@pytest.mark.parametrize("type", ["a1111", "scripted"])
async def test_previews_come_before_the_image_and_only_on_request(type: str) -> None:
    script = "chunks=10,rate=40"
    async with against_server(type) as (backend, _):
        events = await collected(backend.image(drawing(type, script, partial_images=2)))
        without = await collected(backend.image(drawing(type, script)))

    assert len(pictures(events, partial=True)) == 2
    assert [event.partial for event in events if event.type == "image"] == [True, True, False]
    assert pictures(without, partial=True) == []


async def test_fields_that_sd_server_cannot_express_are_reported() -> None:
    async with against_server("sd") as (backend, _):
        request = drawing("sd", mime_type="image/webp", strength=0.2, partial_images=1)
        done = (await collected(backend.image(request.model_copy(update={"model": "other"}))))[-1]

    assert set(done.ignored) == {"mime_type", "strength", "partial_images", "model"}


@every
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("busy", BackendBusy),
        ("html", BadEndpoint),
        ("crash", ServerFault),
        ("drop", BackendUnreachable),
        ("error:2", ServerFault),
    ],
)
async def test_a_fault_has_its_class(type: str, fault: str, error: type[BackendError]) -> None:
    async with against_server(type) as (backend, _):
        with pytest.raises(error) as raised:
            await collected(backend.image(drawing(type, f"rate=50,fail={fault}")))

    assert raised.value.retryable is error.retryable


@networked
async def test_a_truncated_answer_is_an_error(type: str) -> None:
    async with against_server(type) as (backend, _):
        with pytest.raises((BadEndpoint, TruncatedStream)):
            await collected(backend.image(drawing(type, "rate=50,fail=cut:1")))


async def test_a_job_that_sd_server_lost_is_its_fault() -> None:
    async with against_server("sd") as (backend, _):
        with pytest.raises(ServerFault, match="does not have our job any more"):
            await collected(backend.image(drawing("sd", "rate=50,fail=after:1")))


async def test_the_error_of_a_failed_job_has_its_reason() -> None:
    async with against_server("sd") as (backend, _):
        with pytest.raises(ServerFault, match="generate_image returned no results"):
            await collected(backend.image(drawing("sd", "rate=50,fail=error:1")))


async def test_a_queued_job_reports_its_place_and_can_be_cancelled() -> None:
    async with against_server("sd") as (backend, server):
        first = asyncio.create_task(collected(backend.image(drawing("sd", "chunks=3,rate=2"))))
        await server.seen.until(lambda seen: seen.requests["/sdcpp/v1/img_gen"] == 1)
        waiting = backend.image(drawing("sd"))
        event = await anext(waiting)
        await waiting.aclose()
        cancelled = list(server.diffusion.interrupted)
        first.cancel()
        await asyncio.wait({first})

    assert event.status == "number 1 in the queue of the server"
    assert cancelled == ["job_00000001"]


async def test_closing_does_not_wait_for_a_running_job() -> None:
    async with against_server("sd") as (backend, server):
        making = backend.image(drawing("sd", "chunks=3,rate=1"))
        event = await anext(making)
        async with asyncio.timeout(1):
            await making.aclose()

    assert event.type == "phase"
    assert server.diffusion.interrupted == []


async def test_a1111_is_interrupted_when_the_stream_is_closed() -> None:
    async with against_server("a1111") as (backend, server):
        making = asyncio.create_task(collected(backend.image(drawing("a1111", "chunks=9,rate=1"))))
        await server.seen.until(lambda seen: seen.requests["/sdapi/v1/progress"] > 0)
        making.cancel()
        await asyncio.wait({making})
        [task] = server.diffusion.interrupted

    assert making.cancelled()
    assert task.startswith("task(fleet-")


async def test_a_server_without_progress_makes_pictures_all_the_same() -> None:
    """As sd-server, which implements a part of A1111's API."""
    async with against_server("a1111") as (backend, server):
        a1111 = server.diffusion.handlers["/sdapi/"]
        server._handlers["/sdapi/"] = lambda request: (
            Reply(b"{}", 404) if request.path.endswith("/progress") else a1111(request)
        )
        events = await collected(backend.image(drawing("a1111", "chunks=4,rate=20")))

    assert len(pictures(events)) == 1


@pytest.mark.parametrize("type", ["ollama", "openai", "llamacpp", "scripted"])
async def test_a_picture_feeds_straight_back_into_a_chat(type: str) -> None:
    async with against_server("sd") as (painter, _):
        events = await collected(painter.image(drawing("sd", count=2)))
    parts = [ImagePart(image=event.data) for event in events if event.type == "image"]
    message = Message(role="user", content=(TextPart(text="what is it?"), *parts))
    async with chatting(type) as (backend, _):
        request = ChatRequest(model="scripted-echo", messages=(message,))
        seen = await folded(backend.chat(request))
        blind = await folded(backend.chat(chat_request("scripted-echo", "what is it?")))

    assert seen.content == "what is it? [images: 2]"
    assert blind.content == "what is it?"
