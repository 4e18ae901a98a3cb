"""What of an image request reaches each server, and what a picture is."""

import base64
import json
from urllib.parse import quote

import httpx
import pytest
from support.backends import FunctionTransport
from support.images import size_of

from contract.errors import (
    AuthenticationRefused,
    InvalidRequest,
    ModelMissing,
    ServerFault,
)
from contract.images import ImageRequest
from workers.backends.diffusion.a1111 import A1111
from workers.backends.diffusion.sdcpp import MODEL
from workers.backends.diffusion.wire import base64_of, mime_type_of, to_a1111, to_sdcpp
from workers.scripted.picture import png

WHOLE = ImageRequest(
    model=MODEL,
    prompt="a cat",
    negative_prompt="dogs",
    image="data:image/png;base64,iVBORw0KGgo=",
    strength=0.5,
    width=64,
    height=48,
    count=2,
    steps=3,
    guidance=1.5,
    seed=7,
    mime_type="image/jpeg",
)


def test_every_field_reaches_sd_server() -> None:
    body = to_sdcpp(WHOLE, ("png", "jpeg"), MODEL)

    assert body.ignored == ()
    assert body.fields == {
        "prompt": "a cat",
        "negative_prompt": "dogs",
        "width": 64,
        "height": 48,
        "batch_count": 2,
        "seed": 7,
        "sample_params": {"sample_steps": 3, "guidance": {"txt_cfg": 1.5}},
        "init_image": "iVBORw0KGgo=",
        "strength": 0.5,
        "output_format": "jpeg",
    }


def test_every_field_but_the_format_reaches_a1111() -> None:
    body = to_a1111(WHOLE, "cats.safetensors [1]", "task(1)")

    assert body.ignored == ("mime_type",)
    assert body.fields["override_settings"] == {"sd_model_checkpoint": "cats.safetensors [1]"}
    assert body.fields["init_images"] == ["iVBORw0KGgo="]
    assert (body.fields["n_iter"], body.fields["batch_size"]) == (2, 1)
    assert (body.fields["cfg_scale"], body.fields["denoising_strength"]) == (1.5, 0.5)


def test_without_a_wish_the_server_decides_but_not_on_the_seed() -> None:
    request = ImageRequest(model=MODEL, prompt="a cat")
    native, web_ui = to_sdcpp(request, (), MODEL).fields, to_a1111(request, "x", "t").fields

    assert native["seed"] >= 0
    assert native["seed"] != web_ui["seed"]
    assert not {"sample_params", "init_image", "strength", "negative_prompt"} & set(native)
    assert not {"steps", "cfg_scale", "init_images", "denoising_strength"} & set(web_ui)


def test_zero_is_a_wish() -> None:
    request = WHOLE.model_copy(update={"seed": 0, "strength": 0.0, "guidance": 0.0})
    native = to_sdcpp(request, (), MODEL).fields

    assert (native["seed"], native["strength"]) == (0, 0.0)
    assert native["sample_params"]["guidance"] == {"txt_cfg": 0.0}


def test_an_address_is_no_image() -> None:
    with pytest.raises(InvalidRequest, match="base64"):
        base64_of("https://example.com/cat.png")


@pytest.mark.parametrize(
    ("magic", "mime_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
    ],
)
def test_the_type_of_a_picture_is_read_from_its_first_bytes(magic: bytes, mime_type: str) -> None:
    image = base64.b64encode(magic).decode()

    assert mime_type_of(image, "png") == mime_type
    assert mime_type_of("AAAA", "jpeg") == "image/jpeg"


@pytest.mark.parametrize(("width", "height"), [(16, 16), (48, 32), (511, 7), (1, 1)])
def test_a_scripted_picture_is_a_png_of_its_size(width: int, height: int) -> None:
    picture = png("a cat", width, height)

    assert size_of(picture) == (width, height)
    assert picture == png("a cat", width, height)
    assert picture != png("a dog", width, height)


@pytest.mark.parametrize(
    "broken",
    [b"", b"GIF89a", png("x", 16, 16)[:-20], png("x", 16, 16)[:-12], png("x", 16, 16)[:20]],
)
def test_what_is_broken_is_no_png(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"PNG|broken|truncated"):
        size_of(broken)


def a1111(handler: FunctionTransport, **options: str) -> A1111:
    return A1111("a1111", "http://box:7860", transport=handler, **options)


async def test_user_and_password_are_sent_and_never_shown() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        echo = f"Incorrect username or s3cret: {quote(seen[-1])}"
        return httpx.Response(401, json={"detail": echo})

    backend = a1111(FunctionTransport(answer), user="me", password="s3cret")
    with pytest.raises(AuthenticationRefused) as raised:
        await backend.check()
    await backend.aclose()

    assert seen == ["Basic " + base64.b64encode(b"me:s3cret").decode()]
    assert "s3cret" not in raised.value.message
    assert quote(seen[0].removeprefix("Basic ")) not in raised.value.message


def web_ui(answer: object) -> FunctionTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/sd-models"):
            return httpx.Response(200, json=[{"title": "cats [1]", "model_name": "cats"}])
        return httpx.Response(200, json=answer)

    return FunctionTransport(handle)


async def test_an_unknown_checkpoint_is_not_requested() -> None:
    backend = a1111(web_ui({}))
    with pytest.raises(ModelMissing, match="dogs"):
        [event async for event in backend.image(ImageRequest(model="dogs", prompt="x"))]
    await backend.aclose()


async def test_a_grid_before_the_pictures_is_left_out() -> None:
    pictures = [base64.b64encode(png(name, 16, 16)).decode() for name in ("grid", "a", "b")]
    info = json.dumps({"index_of_first_image": 1})
    backend = a1111(web_ui({"images": pictures, "info": info}))
    events = [e async for e in backend.image(ImageRequest(model="cats", prompt="x", count=2))]
    await backend.aclose()

    assert [e.data for e in events if e.type == "image"] == pictures[1:]


async def test_an_answer_without_a_picture_is_a_fault() -> None:
    backend = a1111(web_ui({"images": [], "info": "not json"}))
    with pytest.raises(ServerFault, match="without an image"):
        [event async for event in backend.image(ImageRequest(model="cats", prompt="x"))]
    await backend.aclose()
