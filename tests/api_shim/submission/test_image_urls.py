"""An invalid image is 400 (natively 422) with the reason, in every API that accepts images.

Subjects: contract/images.py, api_shim/http/problems.py.
"""

import asyncio
from typing import Any

import httpx
import pytest
from support.shim import stage

from relay.claims import StartedJob

WRONG = {
    "http://[": "not a URL",
    "http://a b.test/cat.png": "the host of the address cannot be",
    "http://a\x01b.test/cat.png": "control character",
    "http://1.2.3.4:99999/": "not a URL",
    "file:///etc/passwd": "file URLs are not fetched",
    "ftp://x.test/a.png": "ftp URLs are not fetched",
    "/etc/passwd": "no PNG, JPEG, GIF, WebP or BMP image",
    "//etc/passwd": "no PNG, JPEG, GIF, WebP or BMP image",
    "data:image/png;base64,/etc/passwd": "no PNG, JPEG, GIF, WebP or BMP image",
    "data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=": "no PNG, JPEG, GIF, WebP or BMP image",
    "iVBORw0KGgoAA": "base64 of a wrong length",
    "iVBORw0KGgo==": "base64 of a wrong length",
}


def bodies(image: str) -> dict[str, dict[str, Any]]:
    """A call of each path that shows this image."""
    part = {"type": "image_url", "image_url": {"url": image}}
    item = {"role": "user", "content": [{"type": "input_image", "image_url": image}]}
    shown = {"role": "user", "content": [{"type": "image", "image": image}]}
    beside = {"role": "user", "content": "x", "images": [image]}
    return {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": [part]}]},
        "/v1/responses": {"input": [item]},
        "/api/chat": {"messages": [beside]},
        "/api/generate": {"prompt": "x", "images": [image]},
        "/api/v1/jobs/chat": {"messages": [shown]},
        "/api/v1/jobs/image": {"prompt": "x", "image": image},
    }


@pytest.mark.parametrize(("image", "reason"), list(WRONG.items()))
async def test_what_is_no_image_is_refused_before_it_waits(
    image: str, reason: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        for path, body in bodies(image).items():
            answer = await at.http.post(path, json={"model": "m", **body})
            expected = 422 if path.startswith("/api/v1") else 400

            assert (path, answer.status_code) == (path, expected)
            assert reason in answer.text
            assert image[:8] not in answer.json().get("detail", "")


async def claimed(at: Any) -> StartedJob:
    async with asyncio.timeout(5):
        while True:
            claim: StartedJob | None = await at.relay.start_next("scripted.chat", "w1")
            if claim is not None:
                return claim
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", [path for path in bodies("") if path != "/api/v1/jobs/image"])
async def test_a_scheme_in_capitals_is_one(path: str, shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {"model": "m", **bodies("DATA:IMAGE/PNG;BASE64,iVBORw0KGgo=")[path]}
        asking = asyncio.create_task(at.http.post(path, json=body))
        request = (await claimed(at)).request
        asking.cancel()
        await asyncio.wait({asking})

        assert b'"data:image/png;base64,iVBORw0KGgo="' in request


async def test_the_field_is_named(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer: httpx.Response = await at.http.post(
            "/v1/chat/completions",
            json={"model": "m", **bodies("file:///etc/passwd")["/v1/chat/completions"]},
        )

        assert answer.json()["error"]["param"] == "messages.0.content.0.image_url"
