"""Images in OpenAI's words: whole, in previews, and from another image."""

import base64
from typing import Any

import httpx
import pytest
from pydantic_core import from_json
from support.backends import against_bytes, against_server, folded
from support.images import size_of

from contract.errors import (
    BackendBusy,
    InvalidRequest,
    ModelMissing,
    Refused,
    ServerFault,
    TruncatedStream,
)
from contract.events import Done, Image
from contract.images import ImageRequest
from workers.backend_registry import build
from workers.backends.dsn import parse
from workers.backends.openai.adapter import OpenAI, OpenAIImages
from workers.backends.openai.dialects import DIALECTS
from workers.backends.openai.images import to_image
from workers.backends.protocols import GenerateImages, capabilities
from workers.scripted.images import form_fields
from workers.scripted.picture import png, words_of


def image_request(model: str = "scripted-image", **fields: Any) -> ImageRequest:
    return ImageRequest(model=model, prompt="a cat", **fields)


def encoded(text: str) -> str:
    return base64.b64encode(png(text, 16, 16)).decode()


async def test_only_backends_with_the_endpoints_can_generate_images() -> None:
    plain = OpenAI("x", "http://box/v1", DIALECTS["generic"])
    images = OpenAIImages("x", "http://box/v1", DIALECTS["generic"])

    assert not isinstance(plain, GenerateImages)
    assert isinstance(images, GenerateImages)
    assert "image" in capabilities(images)


@pytest.mark.parametrize(
    ("dsn", "has_images"),
    [
        ("openai://k@", True),
        ("generic://k@host", False),
        ("generic://k@host?images=1", True),
    ],
)
async def test_a_self_hosted_server_generates_images_if_configured(
    dsn: str,
    has_images: bool,  # noqa: FBT001
) -> None:
    backend = build(parse("LLM_X", dsn))
    await backend.aclose()

    assert has_images == ("image" in capabilities(backend))


async def test_every_image_is_yielded_once_and_usage_is_reported() -> None:
    async with against_server("openai") as (backend, _):
        events = [
            event
            async for event in backend.image(image_request(count=2, width=48, height=32, seed=7))
        ]

    images = [event for event in events if isinstance(event, Image)]
    assert [image.index for image in images] == [0, 1]
    assert size_of(base64.b64decode(images[0].data or "")) == (48, 32)
    assert images[0].mime_type == "image/png"
    last = events[-1]
    assert isinstance(last, Done)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 272)
    assert last.ignored == ("seed",)


async def test_previews_come_before_the_image() -> None:
    async with against_server("openai") as (backend, _):
        events = [event async for event in backend.image(image_request(partial_images=2))]

    assert [event.partial for event in events[:-1]] == [True, True, False]
    assert {event.index for event in events[:-1]} == {0}


@pytest.mark.parametrize("partial_images", [0, 1])
async def test_an_image_is_made_from_an_image(partial_images: int) -> None:
    start = encoded("start")
    async with against_server("openai") as (backend, server):
        result = await folded(
            backend.image(
                image_request(image=start, partial_images=partial_images, width=64, height=64)
            )
        )

    assert server.seen.requests["/v1/images/edits"] == 1
    expected = png(f"{words_of('a cat', start=start)}\n0", 64, 64)
    assert result.images[-1].data == base64.b64encode(expected).decode()


def test_a_form_holds_its_fields_and_its_file() -> None:
    start = encoded("start")
    body = to_image(image_request("gpt-image-1", image=f"data:image/png;base64,{start}"), "openai")
    content, content_type = body.content

    assert form_fields(content) == {
        "model": "gpt-image-1",
        "prompt": "a cat",
        "n": "1",
        "output_format": "png",
        "image": start,
    }
    boundary = content_type.removeprefix("multipart/form-data; boundary=")
    assert content.startswith(f"--{boundary}\r\n".encode())
    assert content.endswith(f"--{boundary}--\r\n".encode())


def test_an_image_that_is_no_base64_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not base64"):
        to_image(image_request().model_copy(update={"image": "abcde"}), "openai")


@pytest.mark.parametrize(
    ("dialect", "model", "wish", "size", "ignored"),
    [
        ("openai", "gpt-image-1", {}, None, ()),
        ("openai", "gpt-image-1", {"width": 1024, "height": 1024}, "1024x1024", ()),
        (
            "openai",
            "gpt-image-1-mini",
            {"width": 1920, "height": 1080},
            "1536x1024",
            ("width", "height"),
        ),
        ("openai", "gpt-image-2", {"width": 1920, "height": 1080}, "1920x1080", ()),
        ("openai", "dall-e-3", {"width": 900, "height": 1600}, "1024x1792", ("width", "height")),
        ("openai", "dall-e-2", {"width": 300, "height": 300}, "256x256", ("width", "height")),
        ("generic", "sd", {}, "512x512", ()),
        ("generic", "sd", {"width": 640, "height": 480}, "640x480", ()),
    ],
)
def test_a_size_is_the_nearest_that_the_model_knows(
    dialect: str, model: str, wish: dict[str, int], size: str | None, ignored: tuple[str, ...]
) -> None:
    body = to_image(image_request(model, **wish), dialect)

    assert isinstance(body.content, dict)
    assert body.content.get("size") == size
    assert body.ignored == ignored


def test_self_hosted_servers_get_requests_for_base64_without_a_stream() -> None:
    body = to_image(image_request("sd", partial_images=2, mime_type="image/jpeg"), "generic")

    assert body.content == {
        "model": "sd",
        "prompt": "a cat",
        "n": 1,
        "size": "512x512",
        "response_format": "b64_json",
    }
    assert body.ignored == ("mime_type", "partial_images")


async def test_an_address_is_passed_on() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert from_json(request.content)["prompt"] == "a cat"
        return httpx.Response(200, json={"created": 1, "data": [{"url": "https://x.test/a.png"}]})

    async with against_bytes("openai", handler=handler) as backend:
        result = await folded(backend.image(image_request("dall-e-3")))

    assert (result.images[0].url, result.images[0].data) == ("https://x.test/a.png", None)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("busy", BackendBusy),
        ("crash", ServerFault),
        ("body", ServerFault),
        ("refuse", Refused),
    ],
)
async def test_an_error_instead_of_an_image_has_its_class(
    fault: str, error: type[Exception]
) -> None:
    async with against_server("openai") as (backend, _):
        with pytest.raises(error):
            await folded(backend.image(image_request(f"scripted-image:fail={fault}")))
        with pytest.raises(ModelMissing):
            await folded(backend.image(image_request("nobody-knows-it")))


@pytest.mark.parametrize(
    ("fault", "error"),
    [("after:1", TruncatedStream), ("cut:1", TruncatedStream), ("error:1", ServerFault)],
)
async def test_previews_alone_are_no_image(fault: str, error: type[Exception]) -> None:
    request = image_request(f"scripted-image:fail={fault},style=openai", partial_images=2)
    async with against_server("openai") as (backend, _):
        with pytest.raises(error):
            await folded(backend.image(request))


@pytest.mark.parametrize("wire", ["trickle", "crlf", "split"])
async def test_the_image_is_the_same_however_its_bytes_are_cut(wire: str) -> None:
    async with against_server("openai") as (backend, _):
        model = f"scripted-image:wire={wire}"
        result = await folded(
            backend.image(image_request(model, partial_images=1, width=16, height=16))
        )

    assert size_of(base64.b64decode(result.images[0].data or "")) == (16, 16)


@pytest.mark.parametrize("data", [[], [{"revised_prompt": "a dog"}]])
async def test_an_answer_without_an_image_is_a_failure(data: list[Any]) -> None:
    raw = httpx.Response(200, json={"data": data}).content
    async with against_bytes("openai", raw, content_type="application/json") as backend:
        with pytest.raises((TruncatedStream, ServerFault)):
            await folded(backend.image(image_request("gpt-image-1")))
