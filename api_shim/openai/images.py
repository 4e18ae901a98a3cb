"""POST /v1/images/generations and /v1/images/edits: the request and the response. Pure.

Source: openai/openai-openapi, CreateImageRequest and CreateImageEditRequest. `negative_prompt`,
`seed`, `steps`, `guidance` and `strength` are additions of ours for other backends.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic_core import from_json
from typing_extensions import override

from api_shim.following.job_refusals import RESTARTS
from api_shim.http.problems import Problem
from api_shim.openai.errors import encoded
from api_shim.openai.request_fields import (
    OpenAIRequest,
    build_request,
    invalid_field,
    unsupported_field,
)
from api_shim.openai.response_head import ResponseHead
from api_shim.submission.ignored_fields import IgnoredField
from contract import sse
from contract.events import Frame, Usage
from contract.images import LEAST_PIXELS, MOST_PIXELS, ImageRequest
from contract.json_lines import json_line
from contract.requests import Word
from contract.result import Result

_SIZE: Final = re.compile(r"^([0-9]{1,9})x([0-9]{1,9})$")
_PARTIAL: Final = 3


class ImageBody(OpenAIRequest):
    """An image to generate or edit."""

    prompt: str
    n: int | None = None
    size: Word | None = None
    """`<width>x<height>` in pixels, or `auto`."""
    response_format: Word | None = None
    """Only b64_json is supported: no image is stored, so none has a URL."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    background: Annotated[Word | None, IgnoredField(unless=("auto",))] = None
    quality: Annotated[Word | None, IgnoredField(unless=("auto",))] = None
    """The backend decides."""
    partial_images: int | None = None
    """Previews to stream, where the backend has them."""
    stream: bool | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    """How far an edit departs from its image, 0 to 1."""

    @property
    @override
    def unused_fields(self) -> tuple[str, ...]:
        """Previews have no effect without a stream."""
        return () if self.stream else ("partial_images",)


def to_image(body: ImageBody, *, image: str | None = None, mask: str | None = None) -> ImageRequest:
    """The request; `image` and `mask` are base64. Raises Refusal for what is not supported."""
    if body.response_format not in {None, "url", "b64_json"}:
        raise invalid_field("response_format", "must be b64_json")
    if body.response_format == "url":
        raise unsupported_field(
            "response_format", "images are not stored, so they have no URL: use b64_json"
        )
    if body.background == "transparent":
        raise unsupported_field("background", "no backend supports a transparent background")
    previews = body.partial_images if body.stream else None
    return build_request(
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
        raise invalid_field("size", "must be auto or like 1024x1024")
    width, height = int(found[1]), int(found[2])
    if not all(LEAST_PIXELS <= side <= MOST_PIXELS for side in (width, height)):
        raise invalid_field(
            "size",
            f"width and height must be {LEAST_PIXELS} to {MOST_PIXELS} pixels each, not {size}",
        )
    return {"width": width, "height": height}


Family = Literal["image_generation", "image_edit"]


def response_body(head: ResponseHead, request: ImageRequest, result: Result) -> dict[str, Any]:
    """The response of a request that does not stream."""
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
    """Token counts as OpenAI has them; None if the backend reported none."""
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
    """Renders a job's images as a stream of events."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, head: ResponseHead, request: ImageRequest, family: Family) -> None:
        """`request` has the size, `family` the prefix of the events' names."""
        self._created = head.created
        self._size = f"{request.width}x{request.height}"
        self._family = family
        self._previews = 0
        self._held: dict[str, Any] | None = None
        """A finished image that may be the last one, whose event has the usage."""

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The events for these frames."""
        data = b""
        for frame in frames:
            if frame.type in RESTARTS:
                self._held, self._previews = None, 0
            elif frame.type == "image":
                data += self._image(from_json(frame.body))
            elif frame.type == "done":
                fields = from_json(frame.body).get("usage")
                data += self._finish(Usage.model_validate(fields) if fields else None)
        return data

    def render_error(self, problem: Problem) -> bytes:
        """An event with an error, at which clients raise."""
        return sse.encode(encoded(problem), name=b"error")

    def _image(self, image: dict[str, Any]) -> bytes:
        data = self._finish(None)
        if not image.get("partial"):
            self._held = image
            return data
        index, self._previews = self._previews, self._previews + 1
        name = f"{self._family}.partial_image"
        fields = self._fields(name, image) | {"partial_image_index": index}
        return data + sse.encode(json_line(fields), name=name.encode())

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
