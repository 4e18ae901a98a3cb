"""POST /v1/images/generations and /edits: the bodies, and the request that they mean. Pure.

Source: openai/openai-openapi, CreateImageRequest and CreateImageEditRequest. `negative_prompt`,
`seed`, `steps`, `guidance` and `strength` are ours, for backends that are not OpenAI.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic_core import from_json
from typing_extensions import override

from api_shim.http.problems import Problem
from api_shim.openai.errors import encoded
from api_shim.openai.request_fields import OpenAIRequest, made, unsupported, wrong
from api_shim.openai.response_head import ResponseHead
from api_shim.submission.ignored_fields import LeftAlone
from contract import sse
from contract.events import Frame, Usage
from contract.images import LEAST_PIXELS, MOST_PIXELS, ImageRequest
from contract.json_lines import json_line
from contract.result import Result

_SIZE: Final = re.compile(r"^([0-9]{1,9})x([0-9]{1,9})$")
_PARTIAL: Final = 3


class ImageBody(OpenAIRequest):
    """What an image is to show, and how."""

    prompt: str
    n: int | None = None
    size: str | None = None
    """`<width>x<height>` in pixels, or `auto`."""
    response_format: str | None = None
    """b64_json: images are not kept anywhere that an address could lead to."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    background: Annotated[str | None, LeftAlone(unless=("auto",))] = None
    quality: Annotated[str | None, LeftAlone(unless=("auto",))] = None
    """Left to the backend."""
    partial_images: int | None = None
    """Previews to stream, where the backend has them."""
    stream: bool | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    """How far an edit goes from its image, 0 to 1."""

    @property
    @override
    def unused(self) -> tuple[str, ...]:
        """Previews are only told in a stream."""
        return () if self.stream else ("partial_images",)


def to_image(body: ImageBody, *, image: str | None = None, mask: str | None = None) -> ImageRequest:
    """The request; `image` and `mask` are base64. Raises Refusal for what cannot be done."""
    if body.response_format not in {None, "url", "b64_json"}:
        raise wrong("response_format", "it is b64_json")
    if body.response_format == "url":
        raise unsupported("response_format", "images are not kept here: ask for b64_json")
    if body.background == "transparent":
        raise unsupported("background", "no backend is known to leave it transparent")
    previews = body.partial_images if body.stream else None
    return made(
        ImageRequest,
        body,
        prompt=body.prompt,
        image=image,
        mask=mask,
        count=body.n,
        mime_type=body.output_format and f"image/{body.output_format}",
        partial_images=None if previews is None else min(previews, _PARTIAL),
        negative_prompt=body.negative_prompt,
        seed=body.seed,
        steps=body.steps,
        guidance=body.guidance,
        strength=body.strength,
        **_size(body.size),
    )


def _size(size: str | None) -> dict[str, Any]:
    if size in {None, "", "auto"}:
        return {}
    found = _SIZE.match(size or "")
    if found is None:
        raise wrong("size", "it is auto, or looks like 1024x1024")
    width, height = int(found[1]), int(found[2])
    if not all(LEAST_PIXELS <= side <= MOST_PIXELS for side in (width, height)):
        raise wrong(
            "size",
            f"width and height are {LEAST_PIXELS} to {MOST_PIXELS} pixels each, not {size}",
        )
    return {"width": width, "height": height}


Family = Literal["image_generation", "image_edit"]


def whole(head: ResponseHead, request: ImageRequest, result: Result) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    finished = [image for image in result.images if not image.partial]
    return {
        "created": head.created,
        "data": [{"b64_json": i.data} if i.data else {"url": i.url} for i in finished],
        "background": "opaque",
        "output_format": _format(finished[0].mime_type) if finished else None,
        "size": f"{request.width}x{request.height}",
        "quality": None,
        "usage": usage(result.usage),
    }


def usage(used: Usage | None) -> dict[str, Any] | None:
    """Tokens, as OpenAI counts them up; None of the many backends that count none."""
    if used is None:
        return None
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"text_tokens": used.prompt_tokens, "image_tokens": 0},
        "output_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def _format(mime_type: str) -> str:
    return mime_type.removeprefix("image/")


class ImageEvents:
    """Images as a stream of events."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, head: ResponseHead, request: ImageRequest, family: Family) -> None:
        """Tell this job's images."""
        self._created = head.created
        self._size = f"{request.width}x{request.height}"
        self._family = family
        self._previews = 0
        self._held: dict[str, Any] | None = None
        """An image that is finished, and for all that is known the last one."""

    def tell(self, frames: Sequence[Frame]) -> bytes:
        """Their events."""
        told = b""
        for frame in frames:
            if frame.type == "image":
                told += self._image(from_json(frame.body))
            elif frame.type == "done":
                fields = from_json(frame.body).get("usage")
                told += self._finish(Usage.model_validate(fields) if fields else None)
        return told

    def fail(self, problem: Problem) -> bytes:
        """An event with an error, at which clients raise."""
        return sse.encode(encoded(problem), name=b"error")

    def _image(self, image: dict[str, Any]) -> bytes:
        told = self._finish(None)
        if not image.get("partial"):
            self._held = image
            return told
        index, self._previews = self._previews, self._previews + 1
        name = f"{self._family}.partial_image"
        fields = self._fields(name, image) | {"partial_image_index": index}
        return told + sse.encode(json_line(fields), name=name.encode())

    def _finish(self, used: Usage | None) -> bytes:
        image, self._held = self._held, None
        if image is None:
            return b""
        self._previews = 0
        name = f"{self._family}.completed"
        fields = self._fields(name, image) | {"usage": usage(used)}
        return sse.encode(json_line(fields), name=name.encode())

    def _fields(self, name: str, image: dict[str, Any]) -> dict[str, Any]:
        data = {"b64_json": image["data"]} if image.get("data") else {"url": image.get("url")}
        return {
            "type": name,
            **data,
            "created_at": self._created,
            "size": self._size,
            "quality": "auto",
            "background": "opaque",
            "output_format": _format(image.get("mime_type", "image/png")),
        }
